//! Submissions: what each op does.

use super::channel::{Message, Taken};
use super::core::Ending;
use super::endpoint::{Endpoint, read_url};
use super::io::{Io, LISTENER_TOKENS};
use super::listener::Listener;
use super::observing::access::AccessLog;
use super::observing::trace::Context;
use super::request::{REQUESTS_MAX, What};
use crate::proto::{Body, Class, Need, RequestId, Route};
use crate::ring::layout::*;
use crate::router::is_stream;
use crate::status::*;
use mio::Token;

/// Submissions taken from one channel in a turn, so that one busy channel starves no other.
const SUBMISSION_BUDGET: usize = 4096;
/// Endpoints open at a time.
const ENDPOINTS_MAX: usize = 4096;

impl Io {
    /// Takes what a channel has submitted. True if something is left for the next turn.
    pub fn drain_channel(&mut self, key: u32) -> bool {
        let Some(channel) = self.core.channels.get_mut(key as usize) else { return false };
        if channel.is_corrupt() {
            return false;
        }
        channel.retry();
        self.core.report_losses(key);
        let Some(channel) = self.core.channels.get_mut(key as usize) else { return false };
        let Ok(mut submitted) = channel.submitted() else {
            return self.corrupt_channel(key);
        };
        channel.stalled = false;
        let mut left = SUBMISSION_BUDGET;
        while left > 0 {
            left -= 1;
            let Some(channel) = self.core.channels.get_mut(key as usize) else { return false };
            let full = !channel.has_credit() || self.core.requests.len() >= REQUESTS_MAX;
            let (head, payload) = match submitted.peek() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(_) => return self.corrupt_channel(key),
            };
            // What ends something is taken all the same: it is what gives credits back.
            if full
                && !matches!(
                    head.op,
                    IOK_OP_CANCEL | IOK_OP_REPLY | IOK_OP_SEND | IOK_OP_CREDIT | IOK_OP_RELEASE | IOK_OP_CLOSE
                )
            {
                channel.stalled = true;
                break;
            }
            submitted.take(&head);
            if head.op == IOK_OP_CREDIT {
                // Its tag is a number of bytes: no message in the making is meant.
                self.credit_op(key, &head);
                continue;
            }
            match channel.assemble(head, payload) {
                Taken::Fragment => {}
                Taken::Nonsense => return self.corrupt_channel(key),
                Taken::TooLarge(head) => {
                    let message = format!("{} bytes: expected at most max_request", head.bytes_total);
                    self.core.refuse(key, &head, IOK_STATUS_TOO_LARGE, "TOOLARGE", &message);
                }
                Taken::NoMemory(head) => {
                    let message = "the system has no memory for this message";
                    self.core.refuse(key, &head, IOK_STATUS_NO_MEMORY, "NOMEMORY", message);
                }
                Taken::Message(head, message) => self.submission(key, &head, &message),
            }
        }
        let Some(channel) = self.core.channels.get_mut(key as usize) else { return false };
        channel.done_with(submitted.done_bytes());
        channel.has_submissions()
    }

    /// The program wrote nonsense into the ring: that channel is ended, the others live on.
    fn corrupt_channel(&mut self, key: u32) -> bool {
        if self.core.channels.get(key as usize).is_some_and(|channel| !channel.is_corrupt()) {
            self.end_channel(key, IOK_STATUS_CORRUPT);
        }
        false
    }

    #[inline]
    fn submission(&mut self, channel: u32, head: &Submission, message: &Message<'_>) {
        let payload = message.bytes();
        if head.flags & IOK_FLAG_TRACE != 0 {
            return self.traced(channel, head, payload);
        }
        match head.op {
            IOK_OP_REQUEST => self.request(channel, head, payload, None),
            IOK_OP_ECHO => self.core.answer(channel, head, IOK_STATUS_OK, Body::Bytes(payload)),
            IOK_OP_REPLY => self.reply(channel, head, payload),
            IOK_OP_SEND => self.send_op(channel, head, payload),
            IOK_OP_CANCEL => self.cancel(channel, head.tag),
            IOK_OP_STREAM => self.stream(channel, head, payload),
            IOK_OP_LEASE => self.lease(channel, head),
            IOK_OP_RELEASE => self.release(channel, head),
            IOK_OP_OPEN => self.open(channel, head, payload),
            IOK_OP_LISTEN => self.listen(channel, head, payload),
            IOK_OP_CLOSE => self.close_op(channel, head),
            IOK_OP_STATE => self.state_op(channel, head),
            IOK_OP_WATCH => self.watch_op(channel, head),
            IOK_OP_PEERS => self.peers_op(channel, head, payload),
            op => {
                let message = format!("op: {op}: expected one of IOK_OP_*");
                self.core.refuse(channel, head, IOK_STATUS_BAD_RECORD, "BADRECORD", &message);
            }
        }
    }

    pub(super) fn no_endpoint(&mut self, channel: u32, head: &Submission) {
        let message = format!("endpoint: {}: expected the number of an open service", head.endpoint);
        self.core.refuse(channel, head, IOK_STATUS_NO_ENDPOINT, "NOENDPOINT", &message);
    }

    #[inline]
    pub(super) fn request(&mut self, channel: u32, head: &Submission, payload: &[u8], trace: Option<Box<Context>>) {
        let Some(of) = self.endpoint(head.endpoint).filter(|of| of.listener.is_none()) else {
            return self.no_endpoint(channel, head);
        };
        let need = match of.driver.classify(payload, of.hashes()) {
            Ok(need) if is_stream(&need.class) => {
                let message = "this begins a stream: submit it as a stream (subscribe, exchange), not as a request";
                return self.core.refuse(channel, head, IOK_STATUS_BAD_REQUEST, "BADREQUEST", message);
            }
            Ok(need) => need,
            Err(refusal) => {
                return self.core.refuse(channel, head, IOK_STATUS_BAD_REQUEST, refusal.code, &refusal.message);
            }
        };
        let timeout_ms = match head.timeout_ms {
            // What may wait in the server says itself how long.
            0 if need.class == Class::Waiting => IOK_TIMEOUT_NONE,
            0 => of.options.timeout_ms,
            given => given,
        };
        let (command, arguments) = of.shown_of(payload);
        let head = &with_flags(head, &need);
        let id = self.core.begin(channel, head, What::Request, timeout_ms);
        if trace.is_some()
            && let Some(request) = self.core.requests.get_mut(id)
        {
            request.trace = trace;
        }
        self.core.describe(id, command, payload.len(), arguments);
        self.route(id, head, need, payload);
    }

    #[inline]
    pub(super) fn route(&mut self, id: RequestId, head: &Submission, mut need: Need, payload: &[u8]) {
        let lease = match head.flags & IOK_FLAG_ROUTE {
            0 => head.key,
            _ => {
                need.route.hash = Some(head.key);
                0
            }
        };
        let routed =
            self.with_router_and(Self::endpoint_key(head.endpoint), Some((id, payload)), |router, now, act| {
                router.handle_request(now, id, need, lease, act);
            });
        if routed.is_none() {
            let message = "the endpoint's router has failed; open it again";
            self.core.fail(id, Ending::not_sent(IOK_STATUS_PANIC), "PANIC", message);
        }
        self.keep_payload(id, payload);
    }

    fn stream(&mut self, channel: u32, head: &Submission, payload: &[u8]) {
        let Some(of) = self.endpoint(head.endpoint).filter(|of| of.listener.is_none()) else {
            return self.no_endpoint(channel, head);
        };
        match of.driver.classify(payload, of.hashes()) {
            Ok(need) if need.class == Class::Exchange || is_stream(&need.class) => {
                let exchange = matches!(need.class, Class::Exchange | Class::Flow);
                let timeout_ms = match head.timeout_ms {
                    0 if exchange => of.options.timeout_ms,
                    0 => IOK_TIMEOUT_NONE,
                    given => given,
                };
                let (command, arguments) = of.shown_of(payload);
                let what = if exchange { What::Exchange } else { What::Stream };
                let head = &with_flags(head, &need);
                let id = self.core.begin(channel, head, what, timeout_ms);
                self.core.describe(id, command, payload.len(), arguments);
                self.route(id, head, need, payload);
            }
            Ok(_) => {
                let message = "this begins no stream: submit it as a request";
                self.core.refuse(channel, head, IOK_STATUS_BAD_REQUEST, "BADREQUEST", message);
            }
            Err(refusal) => {
                self.core.refuse(channel, head, IOK_STATUS_BAD_REQUEST, refusal.code, &refusal.message);
            }
        }
    }

    pub(super) fn cancel(&mut self, channel: u32, tag: u64) {
        if let Some(id) = self.core.find(channel, tag) {
            self.end_early(id, IOK_STATUS_CANCELLED);
        }
    }

    fn lease(&mut self, channel: u32, head: &Submission) {
        let Some(of) = self.endpoint(head.endpoint).filter(|of| of.listener.is_none()) else {
            return self.no_endpoint(channel, head);
        };
        let timeout_ms = if head.timeout_ms == 0 { of.options.timeout_ms } else { head.timeout_ms };
        let id = self.core.begin(channel, head, What::Lease, timeout_ms);
        let hash = (head.flags & IOK_FLAG_ROUTE != 0).then_some(head.key);
        let route = Route { slot: None, hash };
        self.with_router(Self::endpoint_key(head.endpoint), |router, now, act| {
            router.handle_lease(now, id, route, act);
        });
    }

    fn release(&mut self, channel: u32, head: &Submission) {
        if self.endpoint(head.endpoint).is_none() {
            return self.no_endpoint(channel, head);
        }
        if self.release_lease(Self::endpoint_key(head.endpoint), head.key) {
            self.core.answer(channel, head, IOK_STATUS_OK, Body::None);
        } else {
            let message = format!("key: {}: expected a lease that is held", head.key);
            self.core.refuse(channel, head, IOK_STATUS_NO_LEASE, "NOLEASE", &message);
        }
    }

    /// Gives a lease back; what is still under way on it ends as cancelled.
    fn release_lease(&mut self, endpoint: u32, lease: u64) -> bool {
        self.leases.retain(|(of, held, _)| (*of, *held) != (endpoint, lease));
        let number = self.endpoints.get(endpoint as usize).map_or(0, |of| of.number);
        for id in self.core.requests.ids(|request| request.endpoint == number && request.lease == lease && lease != 0) {
            self.end_early(id, IOK_STATUS_CANCELLED);
        }
        self.with_router(endpoint, |router, now, act| router.handle_release(now, lease, act)).unwrap_or(false)
    }

    fn vacancy(&mut self, channel: u32, head: &Submission) -> bool {
        let room = self.endpoints.len() < ENDPOINTS_MAX;
        if !room {
            let message = format!("{ENDPOINTS_MAX} endpoints are open already");
            self.core.refuse(channel, head, IOK_STATUS_OVERLOADED, "OVERLOADED", &message);
        }
        room
    }

    /// Puts an endpoint in its place and gives it its number.
    pub(super) fn install(&mut self, mut opened: super::endpoint::Opened, internal: bool) -> u32 {
        self.generation = (self.generation + 1) & 0x7fff;
        let entry = self.endpoints.vacant_entry();
        let key = entry.key() as u32;
        self.core.own.open(key, &opened.shown);
        if let Some(tls) = &mut opened.tls {
            tls.meter = Some(self.core.own.tls(key));
        }
        entry.insert(Endpoint::new(opened, (self.generation << 16) | (key + 1), internal));
        key
    }

    fn open(&mut self, channel: u32, head: &Submission, payload: &[u8]) {
        if !self.vacancy(channel, head) {
            return;
        }
        let opened = match read_url(payload, false, fastrand::u64(..)) {
            Ok(opened) => opened,
            Err(error) => {
                let message = error.to_string();
                return self.core.refuse(channel, head, IOK_STATUS_BAD_CONFIG, "BADCONFIG", &message);
            }
        };
        let key = self.open_service(opened, false);
        self.tell_kernel_watchers();
        let head = Submission { endpoint: self.endpoints[key as usize].number, ..*head };
        self.core.answer(channel, &head, IOK_STATUS_OK, Body::None);
    }

    /// The program tells the peers of a service.
    fn peers_op(&mut self, channel: u32, head: &Submission, payload: &[u8]) {
        if self.endpoint(head.endpoint).is_none_or(|of| of.listener.is_some()) {
            return self.no_endpoint(channel, head);
        }
        match self.told_peers(Self::endpoint_key(head.endpoint), payload) {
            Ok(()) => self.core.answer(channel, head, IOK_STATUS_OK, Body::None),
            Err(why) => self.core.refuse(channel, head, IOK_STATUS_BAD_REQUEST, "BADPEERS", &why),
        }
    }

    fn listen(&mut self, channel: u32, head: &Submission, payload: &[u8]) {
        if !self.vacancy(channel, head) {
            return;
        }
        let opened = match read_url(payload, true, 0) {
            Ok(opened) => opened,
            Err(error) => {
                let message = error.to_string();
                return self.core.refuse(channel, head, IOK_STATUS_BAD_CONFIG, "BADCONFIG", &message);
            }
        };
        let log = match opened.options.access.as_ref().map(|options| AccessLog::open(options, self.core.now())) {
            Some(Err(error)) => {
                let message = format!("access_log: {error}");
                return self.core.refuse(channel, head, IOK_STATUS_BAD_CONFIG, "BADCONFIG", &message);
            }
            opened => opened.and_then(Result::ok),
        };
        let key = self.install(opened, false);
        let of = &mut self.endpoints[key as usize];
        let token = Token(LISTENER_TOKENS + key as usize);
        match Listener::bind(&of.address, &of.options.socket, channel, &self.registry, token) {
            Ok(mut listener) => {
                listener.meter = Some(self.core.own.peer(key, "clients"));
                let scheme = of.shown.split(':').next().unwrap_or_default();
                let url = format!("{scheme}:{}", listener.address());
                of.listener = Some(listener);
                self.core.access_logs.extend(log.map(|log| (of.number, log)));
                let head = Submission { endpoint: of.number, ..*head };
                self.core.answer(channel, &head, IOK_STATUS_OK, Body::Text(url.as_bytes()));
            }
            Err(error) => {
                let message = format!("listen on {}: {error}", of.address);
                self.core.own.close(key);
                self.endpoints.remove(key as usize);
                let status = match error.kind() {
                    std::io::ErrorKind::InvalidInput => IOK_STATUS_BAD_CONFIG,
                    _ if crate::sys::out_of_files(&error) => IOK_STATUS_NO_FILES,
                    _ => IOK_STATUS_SYSTEM,
                };
                self.core.refuse(channel, head, status, "LISTEN", &message);
            }
        }
    }

    fn close_op(&mut self, channel: u32, head: &Submission) {
        if self.endpoint(head.endpoint).is_none() {
            return self.no_endpoint(channel, head);
        }
        if head.timeout_ms != 0 && self.endpoint(head.endpoint).is_some_and(|of| of.listener.is_some()) {
            return self.leave(channel, head);
        }
        self.close_endpoint(Self::endpoint_key(head.endpoint), "the endpoint was closed");
        self.core.answer(channel, head, IOK_STATUS_OK, Body::None);
    }

    /// Ends an endpoint: its requests, its conns, its number.
    pub fn close_endpoint(&mut self, key: u32, why: &str) {
        self.close_source(key, why);
        let Some(of) = self.endpoints.get_mut(key as usize) else { return };
        let number = of.number;
        let timer = of.timer;
        if let Some(listener) = &mut of.listener {
            listener.close(&self.registry);
        }
        drop(of.router.take());
        self.core.wheel.clear(timer);
        let conns = self.conns_of(key);
        // What waits for the socket goes first, so that every fate below is the last word.
        for conn in &conns {
            self.drive(*conn, |conn, now, out| {
                conn.proto.close(now, out);
                Ok(())
            });
            self.flush(*conn);
        }
        for id in self.core.requests.ids(|request| request.endpoint == number) {
            let Some(request) = self.core.requests.get(id) else { continue };
            let sent = self.conns.get(request.conn as usize).is_some_and(|conn| conn.written > request.wire_start);
            let fate = if sent { IOK_FATE_MAYBE_EXECUTED } else { IOK_FATE_NOT_SENT };
            let ending = Ending { fate, ..Ending::not_sent(IOK_STATUS_CLOSED) };
            self.core.fail(id, ending, "CLOSED", why);
        }
        for conn in conns {
            self.remove_conn(conn, IOK_STATUS_CLOSED, why);
        }
        self.leases.retain(|(of, _, _)| *of != key);
        self.forget_endpoint(key);
        self.flush_access_logs();
        self.core.access_logs.retain(|(of, _)| *of != number);
        self.endpoints.try_remove(key as usize);
        self.core.own.close(key);
        self.tell_kernel_watchers();
    }

    /// A channel is closed by its program, or cannot live on: everything it began ends.
    pub fn end_channel(&mut self, key: u32, status: Status) {
        for id in self.core.requests.ids(|request| request.channel == key) {
            self.end_early(id, IOK_STATUS_CANCELLED);
        }
        let leases: Vec<(u32, u64)> =
            self.leases.iter().filter(|(_, _, channel)| *channel == key).map(|(of, lease, _)| (*of, *lease)).collect();
        for (endpoint, lease) in leases {
            self.release_lease(endpoint, lease);
        }
        let listeners: Vec<u32> = self
            .endpoints
            .iter()
            .filter(|(_, of)| of.listener.as_ref().is_some_and(|listener| listener.channel == key))
            .map(|(key, _)| key as u32)
            .collect();
        for endpoint in listeners {
            self.close_endpoint(endpoint, "the channel of the listener was closed");
        }
        if let Some(channel) = self.core.channels.get_mut(key as usize) {
            channel.end(status);
        }
    }
}

/// What may be repeated by its nature is marked so.
#[inline]
fn with_flags(head: &Submission, need: &Need) -> Submission {
    let idempotent = if need.idempotent { IOK_FLAG_IDEMPOTENT } else { 0 };
    Submission { flags: head.flags | idempotent, ..*head }
}
