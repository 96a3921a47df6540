//! One conn under a fake clock, which checks the laws of `proto` at every step. Shared with the fuzz targets.
#![allow(dead_code)] // Each test uses its part.
pub mod http;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use iokernel::config::Url;
use iokernel::proto::{
    Admit, Body, Class, Command, Driver, Emit, Event, Fact, Follow, Limits, Of, Out, Progress, Protocol, RequestId,
    Sample, Scheme, Then, Transport,
};

/// Small limits, so that short inputs reach them.
pub const LIMITS: Limits = Limits {
    access: false,
    listener: false,
    message_bytes_max: 4096,
    depth_max: 6,
    inflight_max: 16,
    heartbeat: Duration::from_secs(5),
    silence_max: Duration::from_secs(5),
    raw: false,
    follow: Follow::Nothing,
    reads_replicas: false,
};

pub const FOLLOWS: [Follow; 3] = [Follow::Nothing, Follow::Roles, Follow::Topology];

pub fn driver(scheme: &Scheme, url: &str, limits: &Limits) -> Box<dyn Driver> {
    try_driver(scheme, url, limits).expect("the options of a sample")
}

/// None: the URL's options do not go with the limits.
pub fn try_driver(scheme: &Scheme, url: &str, limits: &Limits) -> Option<Box<dyn Driver>> {
    let mut url = Url::parse(url, |_| Some(scheme.default_port)).expect("the URL of a sample");
    (scheme.open)(&mut url, limits).ok()
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Cancelled,
    Replied,
}

const PIECE_END: &str = " end of piece";

/// Events as they came.
#[derive(Default)]
pub struct Log {
    pub lines: Vec<String>,
    ready: bool,
    requests: BTreeMap<RequestId, End>,
    /// Requests of clients that wait for their replies.
    slots: VecDeque<u64>,
    /// Those whose replies take more messages.
    open_slots: VecDeque<u64>,
    topics: Vec<Vec<u8>>,
    /// Whose bytes the last line is a piece of.
    piece: Option<Of>,
    /// Requests that take more messages.
    open: Vec<RequestId>,
    drains: bool,
}

impl Log {
    /// Pieces that follow each other are one line: where they are cut is nobody's affair.
    fn note(&mut self, event: &Event<'_>) {
        let piece = match event {
            Event::Chunk { of, body: Body::Bytes(bytes) } => Some((*of, *bytes)),
            _ => None,
        };
        match (piece, self.piece, self.lines.last_mut()) {
            (Some((of, bytes)), Some(last), Some(line)) if of == last => {
                line.truncate(line.len() - PIECE_END.len());
                bytes.iter().for_each(|byte| line.push_str(&format!(" {byte}")));
                line.push_str(PIECE_END);
            }
            (Some((of, bytes)), ..) => {
                let bytes: String = bytes.iter().map(|byte| format!(" {byte}")).collect();
                self.lines.push(format!("Chunk {of:?}{bytes}{PIECE_END}"));
            }
            (None, ..) => self.lines.push(match event {
                // When it began is another moment each time.
                Event::Access(access) => format!("Access {} {}", access.status, access.sent_bytes),
                event => format!("{event:?}"),
            }),
        }
        self.piece = piece.map(|(of, _)| of);
    }

    fn is_open(&self, slot: u64) -> bool {
        self.slots.contains(&slot) || self.open_slots.contains(&slot)
    }

    fn end(&mut self, id: RequestId, error: bool, body: Body<'_>) {
        let end = self.requests.insert(id, End::Replied);
        assert_eq!(end, Some(End::Open), "law 3: {id:?} was replied to once more, or never asked");
        assert!(!error || matches!(body, Body::Msgpack(_)), "an error is [code, message]");
    }
}

impl Emit for Log {
    fn emit(&mut self, event: Event<'_>) {
        self.note(&event);
        match event {
            Event::Reply { id, error, body } => self.end(id, error, body),
            Event::Rejected { id, body, .. } => self.end(id, true, body),
            Event::Refused { id, .. } => self.end(id, false, Body::None),
            Event::Request { slot, .. } | Event::Health { slot } => {
                assert!(!self.is_open(slot), "slot {slot} is told twice");
                self.slots.push_back(slot);
            }
            Event::Settled { slot } => {
                assert!(self.is_open(slot), "slot {slot} is settled, but nobody had it open");
                self.slots.retain(|other| *other != slot);
                self.open_slots.retain(|other| *other != slot);
            }
            Event::Chunk { of: Of::Request(id), .. } | Event::Accepted { id, .. } => {
                assert_eq!(self.requests.get(&id), Some(&End::Open), "{id:?} is told of, but nobody waits");
            }
            Event::Fact(Fact::Ready { .. }) => {
                assert!(!self.ready, "ready twice");
                self.ready = true;
            }
            Event::Fact(Fact::Draining) => self.drains = true,
            _ => {}
        }
    }
}

pub struct Rig {
    pub conn: Box<dyn Protocol>,
    pub driver: Box<dyn Driver>,
    pub limits: Limits,
    pub client: bool,
    pub now: Instant,
    pub wire: Vec<u8>,
    pub log: Log,
    pub faulted: bool,
    input: Vec<u8>,
    need: usize,
    next_id: u64,
    /// Requests to send once the conn is ready.
    pub backlog: Vec<Vec<u8>>,
    /// Ask for the topology before them.
    pub probes: bool,
    /// Send requests as ones that the peer does not own yet.
    pub asking: bool,
    /// Ask for replies as they come.
    pub streams: bool,
    /// The peer was told that nothing more comes.
    half_closed: bool,
    /// How many requests of a client wait for their replies before those are given, last first. The most there is: they are
    /// given by [`Rig::reply_to`] alone.
    pub replies_held: usize,
}

impl Rig {
    pub fn new(scheme: &Scheme, url: &str, client: bool, limits: Limits) -> Self {
        let limits = Limits { listener: !client, ..limits };
        let driver = driver(scheme, url, &limits);
        let mut rig = Rig {
            conn: if client { driver.client() } else { driver.server() },
            driver,
            limits,
            client,
            now: Instant::now(),
            wire: Vec::new(),
            log: Log::default(),
            faulted: false,
            input: Vec::new(),
            need: 0,
            next_id: 0,
            backlog: Vec::new(),
            probes: false,
            asking: false,
            streams: false,
            half_closed: false,
            replies_held: 0,
        };
        let opened = rig.conn.handle_open(
            rig.now,
            &Transport::default(),
            &mut Out { wire: &mut rig.wire, files: &mut Vec::new(), events: &mut rig.log },
        );
        opened.expect("a fresh conn opens");
        rig
    }

    pub fn of_sample(scheme: &Scheme, sample: &Sample, limits: Limits) -> Self {
        let mut rig = Rig::new(scheme, sample.url, sample.from_server, limits);
        rig.probes = sample.follow == Follow::Topology;
        rig.backlog = sample.requests.iter().map(|request| request.to_vec()).collect();
        rig.streams = sample.name.starts_with("streamed");
        rig.react();
        rig
    }

    /// Gives bytes to the conn, and sends or answers what its events call for.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while !self.input.is_empty() && !self.faulted && !self.conn.paused() {
            let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
            match self.conn.handle_input(self.now, &self.input, &mut out) {
                Ok(Progress::Consumed(used)) => {
                    assert!(used > 0 && used <= self.input.len(), "{used} bytes consumed of {}", self.input.len());
                    self.input.drain(..used);
                    self.need = 0;
                }
                Ok(Progress::Need(need)) => {
                    assert!(need > self.input.len(), "law 4: {need} bytes needed, {} are there", self.input.len());
                    assert!(need >= self.need, "law 4: {need} bytes needed, {} before", self.need);
                    let max = self.limits.message_bytes_max.max(64);
                    assert!(need <= max, "law 4: {need} bytes needed, {max} are the limit");
                    self.need = need;
                    break;
                }
                Err(fault) => self.fault(&fault.kind),
            }
            self.react();
        }
    }

    fn fault(&mut self, kind: &dyn std::fmt::Debug) {
        self.log.lines.push(format!("fault {kind:?}"));
        self.faulted = true;
        self.assert_silence();
    }

    /// Law 7.
    fn assert_silence(&mut self) {
        let (events, wire) = (self.log.lines.len(), self.wire.len());
        let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
        assert!(self.conn.handle_input(self.now, b"+x\r\n", &mut out).is_err(), "law 7: input after a fault");
        assert!(self.conn.handle_timeout(self.now, &mut out).is_err(), "law 7: a timeout after a fault");
        assert!(self.conn.handle_eof(self.now, &mut out).is_err(), "law 7: an end after a fault");
        assert!(self.conn.reset(self.now, &mut out).is_err(), "law 7: a reset after a fault");
        let request =
            Command::Request { id: RequestId(u64::MAX), body: b"\x91\xa4PING", asking: false, streams: false };
        assert!(self.conn.command(self.now, request, &mut out).is_err(), "law 7: a request after a fault");
        assert!(self.conn.command(self.now, Command::Reply { slot: 0, body: b"\xc0" }, &mut out).is_err());
        let _ = self.conn.command(self.now, Command::Probe, &mut out);
        assert_ne!(self.conn.admit(b"\x91\xa4PING"), Admit::Now, "law 7: admission after a fault");
        assert_eq!(self.conn.poll_timeout(), None, "law 7: a timer after a fault");
        assert_eq!((self.log.lines.len(), self.wire.len()), (events, wire), "law 7: events or bytes after a fault");
    }

    /// What a kernel would do after each event.
    fn react(&mut self) {
        if !self.faulted && !self.half_closed && self.conn.has_sent_all() {
            self.half_closed = true;
            let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
            self.conn.handle_sent_all(&mut out);
        }
        if self.log.ready {
            if std::mem::take(&mut self.probes) {
                self.probe();
            }
            while let Some(body) = self.backlog.first().cloned() {
                let class = self.driver.classify(&body, false).map(|need| need.class);
                if class == Ok(Class::Exchange) && self.conn.admit(&body) != Admit::Now {
                    break;
                }
                self.backlog.remove(0);
                self.request(&body);
            }
        }
        let replies = self.replies_held < usize::MAX;
        if replies && self.log.slots.len() > self.replies_held.min(self.limits.inflight_max - 1) {
            self.reply_all(b"\x93\xa2OK\xc4\x01x\xd4\x04\x90");
        }
    }

    /// Sends a request, or subscribes to its topics. False: it was refused or not admitted.
    pub fn request(&mut self, body: &[u8]) -> bool {
        let _ = self.driver.classify(body, true);
        let class = self.driver.classify(body, false).map(|need| need.class);
        // Where it goes is the router's affair: a conn takes it nonetheless.
        let class = class.or_else(|refusal| match refusal.code {
            "FANOUT" | "CROSSSLOT" => Ok(Class::Shared),
            _ => Err(refusal),
        });
        if let Ok(Class::Topics(topics)) = class {
            return topics.iter().map(|topic| self.subscribe(topic)).fold(true, |all, one| all & one);
        }
        if class.is_err() || !self.log.ready || self.conn.admit(body) != Admit::Now {
            return false;
        }
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let start = self.wire.len();
        self.log.requests.insert(id, End::Open);
        let asking = self.asking;
        let streams = self.streams;
        let then = self.try_command(Command::Request { id, body, asking, streams });
        let sent = then.is_some();
        if then == Some(Then::Open) {
            self.log.open.push(id);
        }
        if !sent {
            assert_eq!(self.wire.len(), start, "a refusal left bytes");
            self.log.requests.remove(&id);
        }
        sent
    }

    pub fn probe(&mut self) {
        self.command(Command::Probe);
    }

    pub fn subscribe(&mut self, topic: &[u8]) -> bool {
        if !self.log.ready || self.log.topics.iter().any(|known| known == topic) {
            return false;
        }
        self.log.topics.push(topic.to_vec());
        self.command(Command::Subscribe { topic })
    }

    pub fn unsubscribe(&mut self, index: usize) {
        if !self.log.topics.is_empty() {
            let topic = self.log.topics.swap_remove(index % self.log.topics.len());
            self.command(Command::Unsubscribe { topic: &topic });
        }
    }

    pub fn cancel(&mut self, number: u64) {
        let id = RequestId(number % (self.next_id + 2));
        self.command(Command::Cancel { id });
        if let Some(end @ End::Open) = self.log.requests.get_mut(&id) {
            *end = End::Cancelled;
        }
    }

    pub fn reply(&mut self, body: &[u8]) {
        if let Some(slot) = self.log.slots.pop_front() {
            self.command(Command::Reply { slot, body });
        }
    }

    pub fn reply_all(&mut self, body: &[u8]) {
        while let Some(slot) = self.log.slots.pop_back() {
            self.command(Command::Reply { slot, body });
        }
    }

    /// Replies to one of the slots that wait, or, where none do, to one that does not.
    pub fn reply_to(&mut self, which: usize, body: &[u8]) {
        let slot = self.log.slots.get(which % self.log.slots.len().max(1)).copied();
        let known = slot.is_some();
        let slot = slot.unwrap_or(which as u64);
        match self.try_command(Command::Reply { slot, body }) {
            Some(then) => {
                assert!(known, "slot {slot} was replied to, but nobody asked");
                // Another reply follows an interim one.
                let waits = then == Then::Open && self.is_interim(body);
                if !waits {
                    self.log.slots.retain(|other| *other != slot);
                }
                if then == Then::Open && !waits && !self.faulted {
                    self.log.open_slots.push_back(slot);
                }
            }
            // The client has its answer nonetheless.
            None => self.log.slots.retain(|other| *other != slot),
        }
        self.feed(b"");
    }

    /// `[1xx, ...]`, but not 101.
    fn is_interim(&self, body: &[u8]) -> bool {
        matches!(body, [0x91..=0x94, status, ..] if (100..=127).contains(status) && *status != 101)
    }

    /// One more message of a reply that takes some, or of one that does not.
    pub fn send_to(&mut self, which: usize, body: &[u8]) {
        let slot = self.log.open_slots.get(which % self.log.open_slots.len().max(1)).copied();
        let known = slot.is_some();
        let slot = slot.unwrap_or(which as u64);
        let then = self.try_command(Command::SendTo { slot, body });
        assert!(known || then.is_none(), "slot {slot} took a message, but was not open");
        if then == Some(Then::Done) {
            self.log.open_slots.retain(|other| *other != slot);
        }
        self.feed(b"");
    }

    /// Nothing more can come of it.
    pub fn is_over(&self) -> bool {
        self.faulted || self.log.drains && self.conn.inflight() == 0
    }

    /// We leave.
    pub fn close(&mut self) {
        let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
        self.conn.close(self.now, &mut out);
        self.feed(b"");
    }

    /// One more message of the last request that takes some.
    pub fn send(&mut self, body: &[u8]) {
        if let Some(id) = self.log.open.last().copied() {
            let start = self.wire.len();
            match self.try_command(Command::Send { id, body }) {
                Some(Then::Open) => {}
                Some(Then::Done) => drop(self.log.open.pop()),
                None => assert_eq!(self.wire.len(), start, "a refusal left bytes"),
            }
            self.react();
        }
    }

    fn command(&mut self, command: Command<'_>) -> bool {
        self.try_command(command).is_some()
    }

    fn try_command(&mut self, command: Command<'_>) -> Option<Then> {
        self.conn
            .command(
                self.now,
                command,
                &mut Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log },
            )
            .ok()
    }

    pub fn reset(&mut self) {
        let reset =
            self.conn.reset(self.now, &mut Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log });
        assert_eq!(reset.is_err(), self.faulted);
        self.conn.tenancy();
    }

    pub fn eof(&mut self) {
        let ended = self
            .conn
            .handle_eof(self.now, &mut Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log });
        if let (Err(fault), false) = (ended, self.faulted) {
            self.fault(&fault.kind);
        }
    }

    /// Lets time pass, calling for timeouts on the way. Law 5.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.conn.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
            if let Err(fault) = self.conn.handle_timeout(self.now, &mut out) {
                return self.fault(&fault.kind);
            }
            let next = self.conn.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "law 5: the next timeout is not later");
        }
        self.now = end;
    }

    /// Law 3: who has had no reply is named once, in the order of sending.
    pub fn finish(mut self) -> (Vec<String>, Vec<u8>) {
        let open = self.log.requests.values().filter(|end| **end == End::Open).count();
        assert!(!self.client || self.conn.inflight() >= open, "{open} requests have no reply");
        let mut named = Vec::new();
        self.conn.abandon(&mut |id| named.push(id));
        let open = self.log.requests.iter().filter(|(_, end)| **end == End::Open).map(|(id, _)| *id);
        assert_eq!(named, open.collect::<Vec<_>>(), "law 3: the requests without a reply");
        self.conn.abandon(&mut |id| panic!("law 3: {id:?} was named twice"));
        assert_eq!(self.conn.inflight(), 0, "nothing is under way on a conn that is gone");
        (self.log.lines, self.wire)
    }
}

/// Messages that follow a request: a piece as bytes and as text, the end, trailers, a span of a file, a WebSocket's close
/// and ping, and something else.
const PIECES: [&[u8]; 8] = [
    b"\xc4\x02hi",
    b"\xa2hi",
    b"\xc0",
    b"\x91\x92\xa1T\xa1v",
    b"\x82\xa2fd\x03\xa6length\x09",
    b"\x92\xcd\x03\xe8\xa3bye",
    b"\x81\xa4ping\xc4\x01x",
    b"\xc3",
];

/// A sequence of operations, chosen by bytes: for generated tests and for fuzzing.
pub fn script(scheme: &Scheme, data: &[u8]) {
    let mut data = data.iter().copied();
    let mut byte = || data.next();
    let (Some(choice), Some(flags)) = (byte(), byte()) else { return };
    if scheme.samples.is_empty() {
        return;
    }
    let sample = &scheme.samples[usize::from(choice) % scheme.samples.len()];
    let follow = FOLLOWS.get(usize::from(flags >> 3 & 3)).copied().unwrap_or(sample.follow);
    let limits = Limits { raw: flags & 1 == 1, follow, reads_replicas: flags >> 5 & 1 == 1, ..LIMITS };
    if try_driver(scheme, sample.url, &limits).is_none() {
        return;
    }
    let mut rig = Rig::of_sample(scheme, sample, limits);
    rig.asking = flags >> 6 & 1 == 1;
    rig.replies_held = usize::from(flags >> 1 & 3);
    rig.streams |= flags >> 7 == 1;
    let requests: Vec<&[u8]> = scheme.samples.iter().flat_map(|sample| sample.requests.iter().copied()).collect();
    let mut at = 0;
    while let (Some(op), Some(number)) = (byte(), byte()) {
        let count = usize::from(number);
        match op % 16 {
            0..=5 => {
                let mut part: Vec<u8> = sample.bytes.iter().skip(at).take(count).copied().collect();
                at = if at + count >= sample.bytes.len() { 0 } else { at + count };
                if op % 16 == 5 && !part.is_empty() {
                    let index = usize::from(op >> 4) % part.len();
                    part[index] ^= 1 << (op >> 5);
                }
                rig.feed(&part);
            }
            6 => {
                let literal: Vec<u8> = (0..count).map_while(|_| byte()).collect();
                rig.feed(&literal);
            }
            7 | 8 if !requests.is_empty() => {
                rig.request(requests[count % requests.len()]);
            }
            9 => {
                let literal: Vec<u8> = (0..count % 32).map_while(|_| byte()).collect();
                rig.request(&literal);
            }
            10 => rig.cancel(u64::from(number)),
            11 => rig.unsubscribe(count),
            12 => rig.pass(Duration::from_millis(100 * u64::from(number))),
            13 if number < 16 => rig.eof(),
            13 => rig.send(PIECES[count % PIECES.len()]),
            14 => rig.reset(),
            _ if rig.client && number & 1 == 1 => rig.probe(),
            _ => {
                let literal: Vec<u8> = (0..count % 32).map_while(|_| byte()).collect();
                rig.reply(&literal);
            }
        }
    }
    rig.finish();
}
