//! What an endpoint and the kernel are like, as MessagePack maps, for those who ask and those who watch.

use super::io::Io;
use super::request::{NO_CONN, What};
use crate::proto::{Body, RequestId};
use crate::ring::layout::*;
use crate::router::{PeerState, State};
use crate::status::{IOK_STATUS_NO_REQUEST, IOK_STATUS_OK};
use crate::value::write;

impl Io {
    pub(super) fn state_op(&mut self, channel: u32, head: &Submission) {
        if head.key != 0 {
            return self.request_state_op(channel, head);
        }
        if head.endpoint == 0 {
            return self.kernel_state_op(channel, head);
        }
        let Some(of) = self.endpoint(head.endpoint) else {
            return self.no_endpoint(channel, head);
        };
        if head.flags & IOK_FLAG_UNTIL_UP != 0 && of.listener.is_none() {
            let timeout_ms = if head.timeout_ms == 0 { of.options.timeout_ms } else { head.timeout_ms };
            let id = self.core.begin(channel, head, What::UntilUp, timeout_ms);
            self.with_router(Self::endpoint_key(head.endpoint), |router, _, act| router.handle_waiter(id, act));
            return;
        }
        let body = self.state_value(Self::endpoint_key(head.endpoint));
        self.core.answer(channel, head, IOK_STATUS_OK, Body::Msgpack(&body));
    }

    fn request_state_op(&mut self, channel: u32, head: &Submission) {
        let Some(request) = self.core.find(channel, head.key).and_then(|id| self.core.requests.get(id)) else {
            let message = format!("key: {}: expected the tag of a request under way", head.key);
            return self.core.refuse(channel, head, IOK_STATUS_NO_REQUEST, "NOREQUEST", &message);
        };
        let mut body = Vec::new();
        write::map(&mut body, 2);
        write::str(&mut body, b"has_conn");
        write::bool(&mut body, request.conn != NO_CONN);
        write::str(&mut body, b"sent_ago_ns");
        match request.sent_ns {
            0 => write::nil(&mut body),
            sent_ns => write::uint(&mut body, self.core.now_ns.saturating_sub(sent_ns)),
        }
        self.core.answer(channel, head, IOK_STATUS_OK, Body::Msgpack(&body));
    }

    fn kernel_state_op(&mut self, channel: u32, head: &Submission) {
        if head.flags & IOK_FLAG_UNTIL_UP != 0 && !self.is_ready() {
            let id = self.core.begin(channel, head, What::UntilUp, head.timeout_ms);
            self.readiness_waiters.push(id);
            return;
        }
        let body = self.kernel_state_value();
        self.core.answer(channel, head, IOK_STATUS_OK, Body::Msgpack(&body));
    }

    pub(super) fn watch_op(&mut self, channel: u32, head: &Submission) {
        let key = Self::endpoint_key(head.endpoint);
        if head.endpoint != 0 && self.endpoint(head.endpoint).is_none_or(|of| of.listener.is_some()) {
            return self.no_endpoint(channel, head);
        }
        let id = self.core.begin(channel, head, What::Stream, IOK_TIMEOUT_NONE);
        self.core.push(id, IOK_KIND_ACCEPTED, Body::None, 0);
        let body = if head.endpoint == 0 { self.kernel_state_value() } else { self.state_value(key) };
        self.core.push(id, IOK_KIND_PUSH, Body::Msgpack(&body), 0);
        let requests = &self.core.requests;
        let watchers = match self.endpoints.get_mut(key as usize).filter(|_| head.endpoint != 0) {
            Some(of) => &mut of.watchers,
            None => &mut self.kernel_watchers,
        };
        watchers.retain(|id| requests.get(*id).is_some());
        watchers.push(id);
    }

    /// Tells those who watch an endpoint what has changed.
    pub(super) fn tell_watchers(&mut self, key: u32) {
        let Some(of) = self.endpoints.get_mut(key as usize) else { return };
        let Some(version) = of.router.as_ref().map(|router| router.version()) else { return };
        if of.version_told == version {
            return;
        }
        of.version_told = version;
        let watchers = std::mem::take(&mut of.watchers);
        let internal = of.internal;
        let live: Vec<RequestId> = watchers.into_iter().filter(|id| self.core.requests.get(*id).is_some()).collect();
        if !live.is_empty() {
            let body = self.state_value(key);
            self.push_all(&live, &body);
        }
        if let Some(of) = self.endpoints.get_mut(key as usize) {
            of.watchers = live;
        }
        if !internal {
            self.tell_kernel_watchers();
        }
    }

    fn push_all(&mut self, streams: &[RequestId], body: &[u8]) {
        for id in streams {
            self.core.push(*id, IOK_KIND_PUSH, Body::Msgpack(body), 0);
        }
    }

    pub(super) fn tell_kernel_watchers(&mut self) {
        let is_live = |id: &RequestId| self.core.requests.get(*id).is_some();
        self.kernel_watchers.retain(is_live);
        self.readiness_waiters.retain(is_live);
        if !self.kernel_watchers.is_empty() {
            let (watchers, body) = (self.kernel_watchers.clone(), self.kernel_state_value());
            self.push_all(&watchers, &body);
        }
        if !self.readiness_waiters.is_empty() && self.is_ready() {
            let body = self.kernel_state_value();
            for id in std::mem::take(&mut self.readiness_waiters) {
                let ending =
                    super::core::Ending { status: IOK_STATUS_OK, fate: IOK_FATE_REPLIED, peer: 0, first_byte_ns: 0 };
                self.core.end(id, ending, Body::Msgpack(&body));
            }
        }
    }

    /// Why the kernel is not ready, for who has waited for it in vain.
    pub(super) fn why_not_ready(&self) -> Option<String> {
        let missing = self.missing();
        (!missing.is_empty()).then(|| format!("not up in time: {}", missing.join(", ")))
    }

    /// The endpoints that the program cannot do without, and that are not up; and listeners that leave.
    pub(super) fn missing(&self) -> Vec<&str> {
        let is_up = |of: &super::endpoint::Endpoint| of.router.as_ref().is_some_and(|router| router.is_up());
        let missing = self.endpoints.iter().filter(|(_, of)| of.leaving.is_some() || of.options.required && !is_up(of));
        missing.map(|(_, of)| of.shown.as_str()).collect()
    }

    /// Every endpoint that the program cannot do without is up.
    pub(super) fn is_ready(&self) -> bool {
        self.why_not_ready().is_none()
    }

    /// An endpoint's state as a MessagePack map.
    pub(super) fn state_value(&mut self, key: u32) -> Vec<u8> {
        let state = self.with_router(key, |router, _, act| (router.state(act), router.version()));
        let of = &self.endpoints[key as usize];
        let mut map = MapWriter::new();
        map.number("endpoint", u64::from(of.number));
        map.text("kind", if of.listener.is_some() { "listener" } else { "service" });
        map.text("url", &of.shown);
        if let Some(listener) = &of.listener {
            map.text("state", if of.leaving.is_some() { "leaving" } else { "up" });
            map.text("address", &listener.address());
            map.number("conns", listener.conns as u64);
        }
        if let Some((state, version)) = &state {
            service_state(&mut map, state);
            map.flag("required", of.options.required);
            map.number("version", *version);
        }
        let now = self.core.now();
        if let Some(tls) = self.endpoints.get_mut(key as usize).and_then(|of| of.tls.as_mut()) {
            map.map("tls", |map| tls.tell(now, map));
        }
        map.number("requests", self.core.under_way(key) as u64);
        map.number("inflight", self.on_conns(key) as u64);
        let heard =
            self.conns.iter().filter(|(_, conn)| conn.endpoint == key).map(|(_, conn)| conn.first_byte_ns).max();
        if let Some(heard_ns) = heard.filter(|heard_ns| *heard_ns != 0) {
            map.number("heard_ms", self.core.now_ns.saturating_sub(heard_ns) / 1_000_000);
        }
        map.finish()
    }

    /// Requests that wait for replies on an endpoint's conns, lanes and leases included.
    pub(super) fn on_conns(&self, key: u32) -> usize {
        self.conns.iter().filter(|(_, conn)| conn.endpoint == key).map(|(_, conn)| conn.proto.inflight()).sum()
    }

    /// The kernel's state: whether the program's dependencies are there, and what it has open.
    pub(super) fn kernel_state_value(&self) -> Vec<u8> {
        let own = || self.endpoints.iter().filter(|(_, of)| !of.internal);
        let word = |of: &super::endpoint::Endpoint| match &of.router {
            None => "up",
            Some(router) if router.is_up() => "up",
            Some(_) => "down",
        };
        let missing: Vec<&str> =
            own().filter(|(_, of)| of.options.required && word(of) != "up").map(|(_, of)| of.shown.as_str()).collect();
        let mut map = MapWriter::new();
        map.flag("ready", missing.is_empty());
        map.array("missing", missing.len(), |out| missing.iter().for_each(|url| write::str(out, url.as_bytes())));
        map.array("endpoints", own().count(), |out| {
            for (_, of) in own() {
                let mut one = MapWriter::new();
                one.number("endpoint", u64::from(of.number));
                one.text("url", &of.shown);
                one.text("state", word(of));
                one.flag("required", of.options.required);
                out.extend_from_slice(&one.finish());
            }
        });
        map.finish()
    }
}

fn service_state(map: &mut MapWriter, state: &State) {
    map.text("state", state.word);
    map.text("description", &state.description);
    map.number("conns", state.conns as u64);
    map.number("queued", state.queued as u64);
    map.number("leases", state.leases as u64);
    map.number("topics", state.topics as u64);
    map.number("attempts", u64::from(state.attempts));
    map.text("last_error", state.last_error.as_deref().unwrap_or(""));
    map.array("peers", state.peers.len(), |out| {
        for peer in &state.peers {
            out.extend_from_slice(&peer_value(peer));
        }
    });
}

fn peer_value(peer: &PeerState) -> Vec<u8> {
    let mut map = MapWriter::new();
    map.text("name", &peer.name);
    map.text("state", peer.word);
    map.text("role", peer.role.name());
    map.number("conns", peer.conns as u64);
    map.number("inflight", peer.inflight as u64);
    map.number("latency_us", peer.latency_ns / 1000);
    map.number("requests", peer.requests);
    map.number("failures", peer.failures);
    map.number("weight", u64::from(peer.weight));
    map.number("priority", u64::from(peer.priority));
    map.text("last_error", peer.last_error.as_deref().unwrap_or(""));
    map.finish()
}

/// A MessagePack map whose size is known at its end.
pub struct MapWriter {
    bytes: Vec<u8>,
    open: write::Open,
    pairs: u32,
}

impl MapWriter {
    fn new() -> Self {
        let mut bytes = Vec::new();
        let open = write::map_open(&mut bytes);
        MapWriter { bytes, open, pairs: 0 }
    }

    fn key(&mut self, key: &str) {
        self.pairs += 1;
        write::str(&mut self.bytes, key.as_bytes());
    }

    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        write::str(&mut self.bytes, value.as_bytes());
    }

    pub fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        write::uint(&mut self.bytes, value);
    }

    pub fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        write::bool(&mut self.bytes, value);
    }

    fn map(&mut self, key: &str, each: impl FnOnce(&mut MapWriter)) {
        self.key(key);
        let mut inner = MapWriter::new();
        each(&mut inner);
        self.bytes.extend_from_slice(&inner.finish());
    }

    fn array(&mut self, key: &str, count: usize, each: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        write::array(&mut self.bytes, count as u32);
        each(&mut self.bytes);
    }

    fn finish(mut self) -> Vec<u8> {
        write::count_close(&mut self.bytes, self.open, self.pairs);
        self.bytes
    }
}
