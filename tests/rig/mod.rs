//! One conn under a fake clock, which checks the laws of `proto` at every step. Shared with the fuzz targets.
#![allow(dead_code)] // Each test uses its part.
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use iokernel::config::Url;
use iokernel::proto::{
    Admit, Body, Class, Command, Driver, Emit, Event, Fact, Follow, Limits, Out, Progress, Protocol, RequestId, Sample,
    Scheme, Transport,
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

/// Events as they came.
#[derive(Default)]
pub struct Log {
    pub lines: Vec<String>,
    ready: bool,
    requests: BTreeMap<RequestId, End>,
    slots: VecDeque<u64>,
    topics: Vec<Vec<u8>>,
}

impl Log {
    fn end(&mut self, id: RequestId, error: bool, body: Body<'_>) {
        let end = self.requests.insert(id, End::Replied);
        assert_eq!(end, Some(End::Open), "law 3: {id:?} was replied to once more, or never asked");
        assert!(!error || matches!(body, Body::Msgpack(_)), "an error is [code, message]");
    }
}

impl Emit for Log {
    fn emit(&mut self, event: Event<'_>) {
        self.lines.push(format!("{event:?}"));
        match event {
            Event::Reply { id, error, body } => self.end(id, error, body),
            Event::Rejected { id, body, .. } => self.end(id, true, body),
            Event::Request { slot, .. } => self.slots.push_back(slot),
            Event::Fact(Fact::Ready { .. }) => {
                assert!(!self.ready, "ready twice");
                self.ready = true;
            }
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
    /// How many requests of a client wait for their replies before those are given, last first.
    pub replies_held: usize,
}

impl Rig {
    pub fn new(scheme: &Scheme, url: &str, client: bool, limits: Limits) -> Self {
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
        if self.log.ready {
            if std::mem::take(&mut self.probes) {
                self.probe();
            }
            for body in std::mem::take(&mut self.backlog) {
                self.request(&body);
            }
        }
        if self.log.slots.len() > self.replies_held.min(self.limits.inflight_max - 1) {
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
        let sent = self.command(Command::Request { id, body, asking, streams: false });
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

    fn command(&mut self, command: Command<'_>) -> bool {
        self.conn
            .command(
                self.now,
                command,
                &mut Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log },
            )
            .is_ok()
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

/// A sequence of operations, chosen by bytes: for generated tests and for fuzzing.
pub fn script(scheme: &Scheme, data: &[u8]) {
    let mut data = data.iter().copied();
    let mut byte = || data.next();
    let (Some(choice), Some(flags)) = (byte(), byte()) else { return };
    let sample = &scheme.samples[usize::from(choice) % scheme.samples.len()];
    let follow = FOLLOWS.get(usize::from(flags >> 3 & 3)).copied().unwrap_or(sample.follow);
    let limits = Limits { raw: flags & 1 == 1, follow, reads_replicas: flags >> 5 & 1 == 1, ..LIMITS };
    if try_driver(scheme, sample.url, &limits).is_none() {
        return;
    }
    let mut rig = Rig::of_sample(scheme, sample, limits);
    rig.asking = flags >> 6 & 1 == 1;
    rig.replies_held = usize::from(flags >> 1 & 3);
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
            13 | 14 => rig.reset(),
            _ if rig.client && number & 1 == 1 => rig.probe(),
            _ => {
                let literal: Vec<u8> = (0..count % 32).map_while(|_| byte()).collect();
                rig.reply(&literal);
            }
        }
    }
    rig.finish();
}
