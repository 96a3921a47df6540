//! Requests, timers and channels together: what begins and ends a request.

use slab::Slab;

use super::channel::Channel;
use super::observing::Part;
use super::observing::access::AccessLog;
use super::observing::names::Names;
use super::observing::own::Own;
use super::observing::slow::Slow;
use super::observing::trace::Trace;
use super::request::{NO_CONN, Name, OWN_CHANNEL, Request, Requests, What};
use super::wheel::{TimerKey, Wheel};
use crate::proto::{Access, Body, RequestId};
use crate::ring::layout::*;
use crate::status::{IOK_STATUS_OK, IOK_STATUS_REMOTE, Status};
use crate::sys::clock::{Clock, UnixClock, monotonic_ns};
use crate::value::write;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Request(RequestId),
    Conn(u32),
    Endpoint(u32),
    /// An endpoint's source of peers.
    Source(u32),
    /// Whether the program lives.
    Silence,
    Listener(u32),
    /// A listener (by its number) that leaves closes its door, or has no time left.
    Leaving(u32),
    /// A part's own, by its key there.
    Part(Part, u32),
}

/// News of a request that the kernel itself made.
pub struct OwnNews {
    pub tag: u64,
    pub kind: u16,
    pub status: Status,
    /// One MessagePack value.
    pub body: Vec<u8>,
}

/// How a request ended, beside its payload.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub status: Status,
    pub fate: u8,
    pub peer: u32,
    pub first_byte_ns: u64,
}

impl Ending {
    pub fn not_sent(status: Status) -> Self {
        Ending { status, fate: IOK_FATE_NOT_SENT, peer: 0, first_byte_ns: 0 }
    }
}

/// What every part of the kernel shares.
pub struct Core {
    pub clock: Clock,
    /// CLOCK_MONOTONIC at the last look.
    pub now_ns: u64,
    pub requests: Requests,
    pub wheel: Wheel<Target>,
    pub channels: Slab<Channel>,
    /// Of requests of our own, in the order in which it came.
    pub own_news: Vec<OwnNews>,
    /// By the key of their endpoint: ordinary requests in flight, and all that are under way.
    credits: Vec<usize>,
    live: Vec<usize>,
    /// Built errors, to save allocations.
    scratch: Vec<u8>,
    /// What shows of a request's end calls its endpoint and its peer.
    pub names: Names,
    pub unix: UnixClock,
    pub slow: Slow,
    pub trace: Trace,
    /// By the number of their listener.
    pub access_logs: Vec<(u32, AccessLog)>,
    /// What is counted.
    pub own: Own,
}

impl Core {
    pub fn new(own: Own) -> Self {
        let clock = Clock::start();
        let now_ns = monotonic_ns();
        Core {
            clock,
            now_ns,
            requests: Requests::default(),
            wheel: Wheel::new(now_ns / 1_000_000),
            channels: Slab::new(),
            own_news: Vec::new(),
            credits: Vec::new(),
            live: Vec::new(),
            scratch: Vec::new(),
            names: Names::default(),
            unix: UnixClock::default(),
            slow: Slow::default(),
            trace: Trace::default(),
            access_logs: Vec::new(),
            own,
        }
    }

    /// Looks at the clock.
    pub fn tick(&mut self) {
        self.now_ns = monotonic_ns();
    }

    pub fn now(&self) -> std::time::Instant {
        self.clock.instant(self.now_ns)
    }

    /// This moment, and the time since the Unix epoch.
    pub fn wall(&mut self) -> (std::time::Instant, std::time::Duration) {
        let unix_ns = self.now_ns.wrapping_add(self.unix.offset_ns(self.now_ns));
        (self.now(), std::time::Duration::from_nanos(unix_ns))
    }

    /// A timer `after_ms` from now: up to a millisecond late, never early.
    pub fn timer(&mut self, after_ms: u64, target: Target) -> TimerKey {
        self.wheel.set(self.now_ns.div_ceil(1_000_000).saturating_add(after_ms.max(1)), target)
    }

    /// A timer at a moment, rounded up.
    pub fn timer_at(&mut self, at: std::time::Instant, target: Target) -> TimerKey {
        self.wheel.set(self.clock.ns(at).div_ceil(1_000_000), target)
    }

    /// A request begins: it has an entry, a place among its channel's, and a deadline unless `timeout_ms` says none.
    pub fn begin(&mut self, channel: u32, head: &Submission, what: What, timeout_ms: u32) -> RequestId {
        let id = self.requests.insert(Request {
            channel,
            endpoint: head.endpoint,
            tag: head.tag,
            what,
            flags: head.flags,
            timer: TimerKey::NONE,
            lease: if head.flags & IOK_FLAG_ROUTE == 0 { head.key } else { 0 },
            route: (head.flags & IOK_FLAG_ROUTE != 0).then_some(head.key),
            conn: NO_CONN,
            retries: 0,
            rejections: 0,
            counted: false,
            wire_start: 0,
            queued_ns: self.now_ns,
            sent_ns: 0,
            doubtful: false,
            loss: None,
            payload: None,
            exchange: None,
            lost: 0,
            trace: None,
            command: Name::default(),
            bytes: 0,
            arguments: None,
            marker: head.marker,
        });
        self.lives(head.endpoint, true);
        if timeout_ms != IOK_TIMEOUT_NONE {
            let timer = self.timer(u64::from(timeout_ms), Target::Request(id));
            if let Some(request) = self.requests.get_mut(id) {
                request.timer = timer;
            }
        }
        if let Some(channel) = self.channels.get_mut(channel as usize) {
            channel.begin(head.tag, id);
        }
        id
    }

    /// Says what a request is, for those who look on.
    #[inline]
    pub fn describe(&mut self, id: RequestId, command: Name, bytes: usize, arguments: Option<Box<[u8]>>) {
        if let Some(request) = self.requests.get_mut(id) {
            (request.command, request.bytes, request.arguments) = (command, bytes as u32, arguments);
        }
    }

    /// The request that a channel knows by a tag.
    pub fn find(&self, channel: u32, tag: u64) -> Option<RequestId> {
        let matches = |request: &Request| {
            request.channel == channel && request.tag == tag && !matches!(request.what, What::Incoming { .. })
        };
        let hint = self.channels.get(channel as usize)?.hint(tag);
        if self.requests.get(hint).is_some_and(matches) {
            return Some(hint);
        }
        self.requests.ids(matches).first().copied()
    }

    /// Ordinary requests of an endpoint that were sent and have not ended.
    #[inline]
    pub fn inflight(&self, endpoint: u32) -> usize {
        self.credits.get(endpoint as usize).copied().unwrap_or(0)
    }

    /// Counts a request as in flight, or not.
    #[inline]
    pub fn count(&mut self, id: RequestId, counted: bool) {
        let Some(request) = self.requests.get_mut(id) else { return };
        if request.counted != counted {
            request.counted = counted;
            let key = super::io::Io::endpoint_key(request.endpoint) as usize;
            self.credit(key, counted);
        }
    }

    #[inline]
    fn credit(&mut self, key: usize, counted: bool) {
        count_at(&mut self.credits, key, counted);
    }

    /// Requests of an endpoint that have not ended, streams and those of a listener's clients included.
    pub fn under_way(&self, key: u32) -> usize {
        self.live.get(key as usize).copied().unwrap_or(0)
    }

    /// One more request of an endpoint is under way, or one less.
    #[inline]
    fn lives(&mut self, endpoint: u32, lives: bool) {
        if endpoint != 0 {
            count_at(&mut self.live, super::io::Io::endpoint_key(endpoint) as usize, lives);
        }
    }

    fn tell_own(&mut self, tag: u64, kind: u16, status: Status, body: Body<'_>) {
        let mut bytes = Vec::new();
        match body {
            Body::None => write::nil(&mut bytes),
            Body::Msgpack(value) => bytes.extend_from_slice(value),
            Body::Bytes(value) | Body::Raw(value) => write::bin(&mut bytes, value),
            Body::Text(value) => write::str(&mut bytes, value),
        }
        self.own_news.push(OwnNews { tag, kind, status, body: bytes });
    }

    /// Ends a request with its one final completion. What it was is handed back, or None if it had ended before.
    pub fn end(&mut self, id: RequestId, ending: Ending, body: Body<'_>) -> Option<Request> {
        let mut request = self.requests.remove(id)?;
        self.wheel.clear(request.timer);
        self.lives(request.endpoint, false);
        self.drop_held(request.exchange.take());
        if request.counted {
            self.credit(super::io::Io::endpoint_key(request.endpoint) as usize, false);
        }
        if request.channel == OWN_CHANNEL {
            self.tell_own(request.tag, IOK_KIND_DONE, ending.status, body);
            return Some(request);
        }
        if matches!(request.what, What::Request | What::Exchange) {
            if self.now_ns - request.queued_ns >= self.slow.least_ns {
                self.log_slow(&request, &ending);
            }
            if request.trace.is_some() {
                self.end_span(&request, &ending, body);
            }
            self.own.ended(&request, &ending, self.now_ns);
        }
        let Some(channel) = self.channels.get_mut(request.channel as usize) else { return Some(request) };
        if matches!(request.what, What::Incoming { .. }) {
            return Some(request);
        }
        channel.live = channel.live.saturating_sub(1);
        if request.flags & IOK_FLAG_QUIET != 0 && ending.status == IOK_STATUS_OK {
            return Some(request);
        }
        if request.lost > 0 {
            report_lost(channel, &request, self.now_ns);
        }
        let (encoding, payload) = encoded(body);
        let head = Completion {
            kind: IOK_KIND_DONE,
            endpoint: request.endpoint,
            status: ending.status,
            tag: request.tag,
            peer: ending.peer,
            fate: request.fate(&ending),
            encoding,
            queued_ns: request.queued_ns,
            sent_ns: request.sent_ns,
            first_byte_ns: ending.first_byte_ns,
            done_ns: self.now_ns,
            ..Completion::default()
        };
        channel.put(head, payload);
        Some(request)
    }

    /// Ends a request with an error of our own.
    pub fn fail(&mut self, id: RequestId, ending: Ending, code: &str, message: &str) -> Option<Request> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        write::error(&mut scratch, code.as_bytes(), message.as_bytes());
        let request = self.end(id, ending, Body::Msgpack(&scratch));
        self.scratch = scratch;
        request
    }

    /// Answers a submission that never became a request.
    pub fn answer(&mut self, channel: u32, head: &Submission, status: Status, body: Body<'_>) {
        let Some(channel) = self.channels.get_mut(channel as usize) else { return };
        if head.flags & IOK_FLAG_QUIET != 0 && status == IOK_STATUS_OK {
            return;
        }
        let (encoding, payload) = encoded(body);
        let completion = Completion {
            kind: IOK_KIND_DONE,
            endpoint: head.endpoint,
            status,
            tag: head.tag,
            fate: IOK_FATE_NOT_SENT,
            encoding,
            queued_ns: self.now_ns,
            done_ns: self.now_ns,
            ..Completion::default()
        };
        channel.put(completion, payload);
    }

    /// Refuses a submission that never became a request.
    pub fn refuse(&mut self, channel: u32, head: &Submission, status: Status, code: &str, message: &str) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        write::error(&mut scratch, code.as_bytes(), message.as_bytes());
        self.answer(channel, head, status, Body::Msgpack(&scratch));
        self.scratch = scratch;
    }

    /// The reply of a request. What it was is handed back, or None if nobody waits for it.
    pub fn reply(
        &mut self,
        id: RequestId,
        error: bool,
        body: Body<'_>,
        peer: u32,
        first_byte_ns: u64,
    ) -> Option<Request> {
        let status = if error { IOK_STATUS_REMOTE } else { IOK_STATUS_OK };
        self.end(id, Ending { status, fate: IOK_FATE_REPLIED, peer, first_byte_ns }, body)
    }

    /// One more message of a stream, or the news that it stands.
    pub fn push(&mut self, id: RequestId, kind: u16, body: Body<'_>, peer: u32) {
        let now_ns = self.now_ns;
        let Some(request) = self.requests.get_mut(id) else { return };
        if request.channel == OWN_CHANNEL {
            let tag = request.tag;
            return self.tell_own(tag, kind, IOK_STATUS_OK, body);
        }
        let Some(channel) = self.channels.get_mut(request.channel as usize) else { return };
        let (encoding, payload) = encoded(body);
        let head = Completion {
            kind,
            endpoint: request.endpoint,
            status: IOK_STATUS_OK,
            tag: request.tag,
            peer,
            fate: IOK_FATE_REPLIED,
            encoding,
            first_byte_ns: now_ns,
            done_ns: now_ns,
            ..Completion::default()
        };
        if kind != IOK_KIND_PUSH {
            return channel.put(head, payload);
        }
        if request.lost > 0 && channel.backlog() == 0 {
            report_lost(channel, request, now_ns);
            request.lost = 0;
        }
        if request.lost > 0 || !channel.put_push(head, payload) {
            request.lost += 1;
            channel.has_losses = true;
        }
    }

    /// Reports what was dropped to a program that has read all that waited.
    pub fn report_losses(&mut self, channel: u32) {
        match self.channels.get_mut(channel as usize) {
            Some(channel) if channel.has_losses && channel.backlog() == 0 => channel.has_losses = false,
            _ => return,
        }
        for id in self.requests.ids(|request| request.channel == channel && request.lost > 0) {
            let (Some(request), Some(channel)) = (self.requests.get_mut(id), self.channels.get_mut(channel as usize))
            else {
                continue;
            };
            report_lost(channel, request, self.now_ns);
            request.lost = 0;
        }
    }

    /// A listener's client asks: gives it to the listener's channel.
    pub fn incoming(
        &mut self,
        channel: u32,
        endpoint: u32,
        conn: u32,
        slot: u64,
        peer: u32,
        body: Body<'_>,
    ) -> RequestId {
        let id = self.requests.insert(Request {
            channel,
            endpoint,
            tag: 0,
            what: What::Incoming { slot },
            flags: 0,
            timer: TimerKey::NONE,
            lease: 0,
            route: None,
            conn,
            retries: 0,
            rejections: 0,
            counted: false,
            wire_start: 0,
            queued_ns: self.now_ns,
            sent_ns: 0,
            doubtful: false,
            loss: None,
            payload: None,
            exchange: None,
            lost: 0,
            trace: None,
            command: Name::default(),
            bytes: 0,
            arguments: None,
            marker: 0,
        });
        self.lives(endpoint, true);
        self.tell(channel, IOK_KIND_REQUEST, endpoint, id, peer, body);
        id
    }

    /// A completion about a listener's request.
    pub fn tell(&mut self, channel: u32, kind: u16, endpoint: u32, id: RequestId, peer: u32, body: Body<'_>) {
        let Some(channel) = self.channels.get_mut(channel as usize) else { return };
        let (encoding, payload) = encoded(body);
        let head = Completion {
            kind,
            endpoint,
            status: IOK_STATUS_OK,
            tag: id.0,
            peer,
            encoding,
            queued_ns: self.now_ns,
            done_ns: self.now_ns,
            ..Completion::default()
        };
        channel.put(head, payload);
    }

    /// An exchange of a listener is over.
    pub fn log_access(&mut self, endpoint: u32, access: &Access<'_>) {
        if let Some((_, log)) = self.access_logs.iter_mut().find(|(of, _)| *of == endpoint) {
            let unix_ns = self.now_ns.wrapping_add(self.unix.offset_ns(self.now_ns));
            log.note(access, self.clock.instant(self.now_ns), unix_ns);
        }
    }

    /// Shows every channel what was put for it.
    pub fn publish(&mut self) {
        for (_, channel) in &mut self.channels {
            channel.publish();
        }
    }
}

#[inline]
fn count_at(counts: &mut Vec<usize>, key: usize, more: bool) {
    if counts.len() <= key {
        counts.resize(key + 1, 0);
    }
    counts[key] = if more { counts[key] + 1 } else { counts[key].saturating_sub(1) };
}

pub(super) fn encoded(body: Body<'_>) -> (u8, &[u8]) {
    match body {
        Body::None => (IOK_ENCODING_NONE, &[]),
        Body::Msgpack(bytes) => (IOK_ENCODING_MSGPACK, bytes),
        Body::Bytes(bytes) => (IOK_ENCODING_BYTES, bytes),
        Body::Text(bytes) => (IOK_ENCODING_TEXT, bytes),
        Body::Raw(bytes) => (IOK_ENCODING_RAW, bytes),
    }
}

fn report_lost(channel: &mut Channel, request: &Request, now_ns: u64) {
    let mut count = Vec::with_capacity(9);
    write::uint(&mut count, request.lost);
    let head = Completion {
        kind: IOK_KIND_LOST,
        endpoint: request.endpoint,
        status: IOK_STATUS_OK,
        tag: request.tag,
        encoding: IOK_ENCODING_MSGPACK,
        done_ns: now_ns,
        ..Completion::default()
    };
    channel.put(head, &count);
}
