//! The life of a conn: dialled, driven, read, written, timed.

use std::collections::VecDeque;
use std::time::Instant;

use iokernel::peer::{Peer, Place};
use iokernel::proto::{
    Body, Emit, Event as Told, Fact, Fault, FaultKind, Out, Progress, Protocol, RequestId, Transport,
};
use iokernel::ring::layout::IOK_FATE_REPLIED;
use iokernel::router::ConnId;
use iokernel::status::*;

use crate::kernel::{Note, REJECTIONS_MAX, Unheard, What, Why};
use crate::world::{Event, MS, World};

/// Bytes that may wait for a slow peer before it is given no more requests.
const OUT_BYTES_SOFT: usize = 1 << 20;
/// Between the beginnings of two attempts (RFC 8305).
const ATTEMPT_EVERY_MS: u64 = 250;

pub enum State {
    Resolving,
    Dialling { places: Vec<Place>, refused: usize },
    Up(usize),
}

pub struct Conn {
    pub serial: u64,
    pub peer: String,
    pub state: State,
    pub proto: Box<dyn Protocol>,
    pub ready: bool,
    pub out: Vec<u8>,
    pub written: u64,
    /// Where each request that is not written to its end ends, and which it is.
    pub unsent: VecDeque<(u64, u64)>,
    input: Vec<u8>,
    pub connect_by: Option<Instant>,
    timer_at: Option<u64>,
    first_byte_ns: u64,
    pub latency_ns: u64,
    pub begun_ns: u64,
    pub replied_ns: u64,
    pub place: Option<Place>,
    blocked: bool,
    queued: bool,
}

impl Conn {
    pub fn wire_position(&self) -> u64 {
        self.written + self.out.len() as u64
    }

    pub fn takes_requests(&self) -> bool {
        self.ready && self.out.len() < OUT_BYTES_SOFT
    }
}

/// What a protocol told in one call, in order.
enum Got {
    Reply { id: RequestId, error: bool, body: Vec<u8> },
    Rejected { id: RequestId, why: Why, body: Vec<u8> },
    Push { topic: Option<Vec<u8>>, body: Vec<u8> },
    Note(Note),
}

#[derive(Default)]
struct Sink(Vec<Got>);

fn bytes(body: Body<'_>) -> Vec<u8> {
    match body {
        Body::None => Vec::new(),
        Body::Msgpack(bytes) | Body::Bytes(bytes) | Body::Text(bytes) | Body::Raw(bytes) => bytes.to_vec(),
    }
}

impl Emit for Sink {
    fn emit(&mut self, event: Told<'_>) {
        self.0.push(match event {
            Told::Reply { id, error, body } => Got::Reply { id, error, body: bytes(body) },
            Told::Rejected { id, why, body } => Got::Rejected { id, why: Why::of(why), body: bytes(body) },
            Told::Push { topic, body } => Got::Push { topic: topic.map(<[u8]>::to_vec), body: bytes(body) },
            Told::Subscribed { topic } => Got::Note(Note::Topic { topic: topic.to_vec(), end: None }),
            Told::Unsubscribed { topic, error } => {
                let words = error.map(|error| String::from_utf8_lossy(&bytes(error)).into_owned());
                let end = ("ENDED".to_string(), words.unwrap_or_default());
                Got::Note(Note::Topic { topic: topic.to_vec(), end: Some(end) })
            }
            Told::Fact(Fact::Ready { topics_beside_requests, description }) => {
                Got::Note(Note::Ready { topics_beside_requests, description: description.into() })
            }
            Told::Fact(Fact::Role { role, follows }) => {
                Got::Note(Note::Role { role, follows: follows.map(str::to_string) })
            }
            Told::Fact(Fact::Reign(number)) => panic!("a Redis server told its timeline: {number}"),
            Told::Fact(Fact::Topology(shards)) => Got::Note(Note::Topology(shards.to_vec())),
            Told::Fact(Fact::Draining) => Got::Note(Note::Draining),
            other => panic!("a conn of a service that is not asked so told {other:?}"),
        });
    }
}

impl World {
    pub fn dial(&mut self, peer: &Peer) -> u32 {
        let key = self.vacant_key();
        self.conn_serials += 1;
        let serial = self.conn_serials;
        self.note(&format!("  dial {key} {}", peer.name));
        let state = match &peer.places[..] {
            [] => State::Resolving,
            places => State::Dialling { places: places.to_vec(), refused: 0 },
        };
        let resolving = matches!(state, State::Resolving);
        let connect_by = Some(self.now() + self.options.connect_timeout);
        let conn = Conn {
            serial,
            peer: peer.name.clone(),
            state,
            proto: self.driver.client(),
            ready: false,
            out: Vec::new(),
            written: 0,
            unsent: VecDeque::new(),
            input: Vec::new(),
            connect_by,
            timer_at: None,
            first_byte_ns: 0,
            latency_ns: 0,
            begun_ns: 0,
            replied_ns: 0,
            place: None,
            blocked: false,
            queued: false,
        };
        self.conns.insert(key, conn);
        if resolving {
            let wait = self.rng.u64(0..20);
            self.in_ms(wait, Event::Resolved { key, serial });
        } else {
            self.in_ms(0, Event::Attempt { key, serial, index: 0 });
        }
        self.rearm(key);
        key
    }

    /// Keys are used again at once, as those of a slab are, unless the router is still to hear of one.
    fn vacant_key(&mut self) -> u32 {
        let unheard = |key: &u32| {
            self.unheard.iter().any(|news| match news {
                Unheard::Down { conn, .. } | Unheard::Note { conn, .. } => conn == key,
                Unheard::SendAgain(..) => false,
            })
        };
        match self.free_keys.iter().rposition(|key| !unheard(key)) {
            Some(at) => self.free_keys.remove(at),
            None => (self.conns.len() + self.free_keys.len()) as u32,
        }
    }

    /// The conn, if it is still the one that was meant.
    pub fn conn(&mut self, key: u32, serial: u64) -> Option<&mut Conn> {
        self.conns.get_mut(&key).filter(|conn| conn.serial == serial)
    }

    pub fn conn_resolved(&mut self, key: u32, serial: u64) {
        let Some(name) = self.conn(key, serial).map(|conn| conn.peer.clone()) else { return };
        match self.addresses_of(&name) {
            Err(message) => self.conn_failed(key, IOK_STATUS_UNAVAILABLE, false, &message),
            Ok(places) => {
                if let Some(conn) = self.conn(key, serial) {
                    conn.state = State::Dialling { places, refused: 0 };
                }
                self.attempt(key, serial, 0);
            }
        }
    }

    pub fn attempt(&mut self, key: u32, serial: u64, index: usize) {
        let Some(conn) = self.conn(key, serial) else { return };
        let State::Dialling { places, .. } = &conn.state else { return };
        let Some(place) = places.get(index).cloned() else { return };
        if index + 1 < places.len() {
            self.in_ms(ATTEMPT_EVERY_MS, Event::Attempt { key, serial, index: index + 1 });
        }
        let latency = self.latency();
        match self.answer_of(&place) {
            Some(true) => self.at(self.now_ns + latency, Event::Connected { key, serial, index }),
            Some(false) => self.at(self.now_ns + latency, Event::Refused { key, serial, index }),
            None => {}
        }
    }

    pub fn attempt_refused(&mut self, key: u32, serial: u64, index: usize) {
        let Some(conn) = self.conn(key, serial) else { return };
        let State::Dialling { places, refused } = &mut conn.state else { return };
        *refused += 1;
        let all = *refused >= places.len();
        if all {
            let message = format!("{}: connection refused", conn.peer);
            return self.conn_failed(key, IOK_STATUS_UNAVAILABLE, false, &message);
        }
        // The next one need not wait any longer.
        let _ = index;
    }

    pub fn connected(&mut self, key: u32, serial: u64, index: usize) {
        let Some(conn) = self.conn(key, serial) else { return };
        let State::Dialling { places, .. } = &conn.state else { return };
        let place = places[index].clone();
        if self.answer_of(&place) != Some(true) {
            return self.attempt_refused(key, serial, index);
        }
        let link = self.new_link(key, serial, &place);
        let Some(conn) = self.conn(key, serial) else { return };
        conn.state = State::Up(link);
        conn.place = Some(place);
        self.drive(key, |conn, now, out| conn.proto.handle_open(now, &Transport::default(), out));
    }

    /// Lets the protocol of a conn do something, and sees to what came of it. False if the conn is gone.
    pub fn drive(&mut self, key: u32, act: impl FnOnce(&mut Conn, Instant, &mut Out<'_>) -> Result<(), Fault>) -> bool {
        let now = self.now();
        let Some(conn) = self.conns.get_mut(&key) else { return false };
        let mut wire = std::mem::take(&mut conn.out);
        let mut sink = Sink::default();
        let outcome = act(conn, now, &mut Out { wire: &mut wire, files: &mut Vec::new(), events: &mut sink });
        conn.out = wire;
        let serial = conn.serial;
        let notes = self.take_events(key, sink.0);
        self.after_protocol(key, serial, notes);
        self.conn(key, serial).is_some() && self.judge(key, outcome)
    }

    fn judge(&mut self, key: u32, outcome: Result<(), Fault>) -> bool {
        let Err(fault) = outcome else {
            self.rearm(key);
            self.queue_flush(key);
            return self.conns.contains_key(&key);
        };
        let status = match fault.kind {
            FaultKind::Protocol | FaultKind::TooLarge => IOK_STATUS_PROTOCOL,
            FaultKind::Refused => IOK_STATUS_REFUSED,
            FaultKind::Silent | FaultKind::Closed => IOK_STATUS_LOST,
        };
        if status == IOK_STATUS_PROTOCOL {
            self.fail(&format!("conn {key}: the protocol was broken: {}", fault.message));
        }
        self.conn_failed(key, status, fault.kind == FaultKind::Refused, &fault.message);
        false
    }

    /// Replies and pushes go to the program at once; what is for the router is handed back.
    fn take_events(&mut self, key: u32, events: Vec<Got>) -> Vec<Note> {
        let mut notes = Vec::new();
        for event in events {
            match event {
                Got::Note(note) => notes.push(note),
                Got::Reply { id, error, body } => {
                    let now_ns = self.now_ns;
                    self.conns.entry(key).and_modify(|conn| conn.replied_ns = now_ns);
                    self.reply(key, id.0, error, &body);
                }
                Got::Push { topic, body } => self.push(key, topic.as_deref(), &body),
                Got::Rejected { id, why, body } => {
                    let Some(req) = self.live(id.0) else { continue };
                    if req.has_payload && req.lease == 0 && req.rejections < REJECTIONS_MAX {
                        notes.push(Note::Rejected { id, why });
                    } else {
                        self.reply(key, id.0, true, &body);
                    }
                }
            }
        }
        notes
    }

    fn reply(&mut self, key: u32, id: u64, error: bool, body: &[u8]) {
        let Some(req) = self.live(id) else { return };
        if req.what == What::Stream && !error {
            return;
        }
        let sent_ns = req.sent_ns;
        if req.conn != Some(key) {
            self.fail(&format!("request {id} on conn {:?} was answered by conn {key}", req.conn));
        }
        let status = if error { IOK_STATUS_REMOTE } else { IOK_STATUS_OK };
        self.end(id, status, IOK_FATE_REPLIED, body);
        if let Some(conn) = self.conns.get_mut(&key) {
            let took = conn.first_byte_ns.saturating_sub(sent_ns);
            if sent_ns != 0 && took != 0 {
                let before = if conn.latency_ns == 0 { took } else { conn.latency_ns };
                conn.latency_ns = before - before / 8 + took / 8;
            }
        }
    }

    fn push(&mut self, key: u32, topic: Option<&[u8]>, body: &[u8]) {
        let Some(router) = &self.router else { return };
        let streams = match topic {
            Some(topic) => router.listeners(ConnId(key), topic).to_vec(),
            None => router.owner(ConnId(key)).into_iter().collect(),
        };
        for stream in streams {
            if let Some(req) = self.live_mut(stream.0) {
                req.pushes.push(body.to_vec());
            }
        }
    }

    /// Bytes have come from the peer.
    pub fn client_bytes(&mut self, link: usize, bytes: &[u8]) {
        let Some(key) = self.client_of(link) else { return };
        let (now, now_ns) = (self.now(), self.now_ns);
        let Some(conn) = self.conns.get_mut(&key) else { return };
        conn.first_byte_ns = now_ns;
        let mut input = std::mem::take(&mut conn.input);
        input.extend_from_slice(bytes);
        let mut wire = std::mem::take(&mut conn.out);
        let (mut sink, mut at, mut outcome) = (Sink::default(), 0, Ok(()));
        while at < input.len() {
            let mut out = Out { wire: &mut wire, files: &mut Vec::new(), events: &mut sink };
            match conn.proto.handle_input(now, &input[at..], &mut out) {
                Ok(Progress::Consumed(count)) => at += count,
                Ok(Progress::Need(_)) => break,
                Err(fault) => {
                    outcome = Err(fault);
                    break;
                }
            }
        }
        input.drain(..at);
        (conn.out, conn.input) = (wire, input);
        let serial = conn.serial;
        let notes = self.take_events(key, sink.0);
        self.after_protocol(key, serial, notes);
        if self.conn(key, serial).is_none() {
            return;
        }
        self.progress(key);
        if self.conn(key, serial).is_some() {
            self.judge(key, outcome);
        }
    }

    /// The peer sends nothing more.
    pub fn client_end(&mut self, link: usize, reset: bool) {
        let Some(key) = self.client_of(link) else { return };
        let message = if reset { "connection reset" } else { "closed the connection" };
        if reset || self.drive(key, |conn, now, out| conn.proto.handle_eof(now, out)) {
            self.conn_failed(key, IOK_STATUS_LOST, false, message);
        }
    }

    pub fn rearm(&mut self, key: u32) {
        let Some(conn) = self.conns.get(&key) else { return };
        let proto = if matches!(conn.state, State::Up(_)) { conn.proto.poll_timeout() } else { None };
        let Some(next) = [proto, conn.connect_by].into_iter().flatten().min() else { return };
        let at = self.tick_of(next).max(self.now_ns);
        let Some(conn) = self.conns.get_mut(&key).filter(|conn| conn.timer_at.is_none_or(|set| at < set)) else {
            return;
        };
        conn.timer_at = Some(at);
        let serial = conn.serial;
        self.at(at, Event::ConnTimer { key, serial, at });
    }

    pub fn conn_timer(&mut self, key: u32, serial: u64, at: u64) {
        let now = self.now();
        let Some(conn) = self.conn(key, serial).filter(|conn| conn.timer_at == Some(at)) else { return };
        conn.timer_at = None;
        if conn.connect_by.is_some_and(|by| by <= now) {
            let message = format!("no connection to {} in time", conn.peer);
            return self.conn_failed(key, IOK_STATUS_UNAVAILABLE, false, &message);
        }
        if matches!(conn.state, State::Up(_)) && conn.proto.poll_timeout().is_some_and(|at| at <= now) {
            self.drive(key, |conn, now, out| conn.proto.handle_timeout(now, out));
        }
        if self.conn(key, serial).is_some() {
            self.rearm(key);
        }
    }

    pub fn queue_flush(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if !conn.out.is_empty() && !conn.blocked && !conn.queued {
            conn.queued = true;
            self.to_flush.push(key);
        }
    }

    pub fn flush_all(&mut self) {
        for key in std::mem::take(&mut self.to_flush) {
            self.flush(key);
        }
    }

    /// Writes what the socket takes: all of it as a rule, some or nothing when it is full.
    fn flush(&mut self, key: u32) {
        let now_ns = self.now_ns;
        let full = self.rng.usize(..if self.calm { 1000 } else { 60 }) == 0;
        let part = self.rng.f64();
        let wait = self.rng.u64(MS / 10..20 * MS);
        let Some(conn) = self.conns.get_mut(&key) else { return };
        conn.queued = false;
        let State::Up(link) = conn.state else { return };
        let count = if full { (conn.out.len() as f64 * part) as usize } else { conn.out.len() };
        let bytes: Vec<u8> = conn.out.drain(..count).collect();
        conn.written += count as u64;
        conn.blocked = !conn.out.is_empty();
        let (blocked, serial, written) = (conn.blocked, conn.serial, conn.written);
        let mut gone = Vec::new();
        while conn.unsent.front().is_some_and(|(end, _)| *end <= written) {
            gone.extend(conn.unsent.pop_front().map(|(_, id)| id));
        }
        for id in gone {
            if let Some(req) = self.live_mut(id) {
                req.sent_ns = now_ns;
            }
        }
        if blocked {
            self.at(now_ns + wait, Event::Writable { key, serial });
        }
        self.carry(link, true, bytes);
    }

    pub fn writable(&mut self, key: u32, serial: u64) {
        if let Some(conn) = self.conn(key, serial) {
            conn.blocked = false;
            self.queue_flush(key);
        }
    }

    /// Our side of a conn closes.
    pub fn hang_up(&mut self, conn: &mut Conn) {
        if let State::Up(link) = conn.state {
            self.close_client(link);
        }
    }
}
