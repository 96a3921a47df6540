//! The client's side of one conn.
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::commands::{self, INVALIDATIONS, Mark, bad_request};
use super::encode::{self, Written};
use super::follow::{self, AsksRole};
use super::handshake::{self, Server, Step};
use super::rejected::{Verdict, rejection, shows_replica};
use super::slots::{Kind, Slot, Slots};
use super::wire::{self, Decoder, Frame, Settings, Shape, Want, split_error};
use super::{Options, Tracking, number};
use crate::proto::liveness::{Due, Liveness};
use crate::proto::{
    Admit, Body, Command, Event, Fault, FaultKind, Follow, Limits, Out, Progress, Protocol, Refusal, Rejection,
    RequestId, Tenancy, Then, Transport,
};
use crate::ring::layout::IOK_EXT_ERROR;
use crate::value::{Reader, Token, write};

/// A batch buffer that grew beyond this is given back.
const BATCH_BYTES_KEPT: usize = 1 << 20;

/// One conn to a server.
pub struct Session {
    decoder: Decoder,
    conn: Conn,
}

/// Everything but the decoder, so that a frame may borrow from the decoder while it is handled.
pub struct Conn {
    pub options: Arc<Options>,
    pub limits: Limits,
    pub slots: Slots,
    pub server: Server,
    /// Replies that the handshake still waits for.
    pub steps_left: u32,
    pub ready: bool,
    /// None until the transport is up.
    pub liveness: Option<Liveness>,
    pub fault: Option<Fault>,
    pub closing: bool,
    pub state: State,
    pub asks_role: AsksRole,
    /// The replies of the batch at the head, as far as they came.
    batch: Vec<u8>,
    /// What they show together.
    verdict: Verdict,
    /// A topic key or an error's payload, in the making.
    scratch: Vec<u8>,
}

/// What tenants left on the conn, as of what was written.
#[derive(Debug, Default)]
pub struct State {
    multi: bool,
    watching: bool,
    /// Another database is selected.
    moved: bool,
    spoiled: bool,
    monitoring: bool,
    /// Topics whose pushes flow or are asked for.
    pub topics: HashSet<Box<[u8]>>,
    /// Replies that will show the conn clean.
    cleanups: u32,
}

impl Session {
    pub fn new(options: Arc<Options>, limits: Limits) -> Self {
        let settings = Settings {
            message_bytes_max: limits.message_bytes_max,
            depth_max: limits.depth_max,
            attributes: options.attributes,
        };
        let conn = Conn {
            options,
            limits,
            slots: Slots::default(),
            server: Server::default(),
            steps_left: 0,
            ready: false,
            liveness: None,
            fault: None,
            closing: false,
            state: State::default(),
            asks_role: AsksRole::default(),
            batch: Vec::new(),
            verdict: Verdict::default(),
            scratch: Vec::new(),
        };
        Session { decoder: Decoder::new(settings), conn }
    }
}

impl Protocol for Session {
    fn handle_open(&mut self, now: Instant, _: &Transport, out: &mut Out<'_>) -> Result<(), Fault> {
        self.conn.check()?;
        let Limits { heartbeat, silence_max, .. } = self.conn.limits;
        self.conn.liveness = Some(Liveness::new(now, heartbeat, silence_max));
        handshake::open(&mut self.conn, out.wire);
        Ok(())
    }

    #[inline]
    fn handle_input(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        self.conn.check()?;
        if let Some(liveness) = &mut self.conn.liveness {
            liveness.heard(now);
        }
        let handled = match self.decoder.step(input, self.conn.want()) {
            Ok(wire::Step::Need(bytes)) => return Ok(Progress::Need(bytes)),
            Ok(wire::Step::Part(bytes)) => return Ok(Progress::Consumed(bytes)),
            Ok(wire::Step::Frame(bytes, frame)) => self.conn.frame(frame, out).map(|()| Progress::Consumed(bytes)),
            Err(fault) => Err(fault),
        };
        handled.map_err(|fault| self.conn.fail(fault))
    }

    fn handle_eof(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        self.conn.check()?;
        let message = match (self.conn.ready, self.conn.closing) {
            (_, true) => return Ok(()),
            (true, _) => "the server closed the conn",
            (false, _) => "the server closed the conn during the handshake; does it want TLS, or protocol=2?",
        };
        Err(self.conn.fail(Fault { kind: FaultKind::Closed, message: message.into() }))
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        self.conn.check()?;
        self.conn.beat(now, out.wire).map_err(|fault| self.conn.fail(fault))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let conn = &self.conn;
        if !conn.ready || conn.fault.is_some() {
            return None;
        }
        conn.liveness.as_ref()?.deadline(!conn.slots.is_empty(), conn.is_quiet())
    }

    #[inline]
    fn admit(&self, _body: &[u8]) -> Admit {
        let conn = &self.conn;
        let free = conn.ready
            && conn.fault.is_none()
            && !conn.closing
            && !conn.state.monitoring
            && conn.slots.len() < conn.limits.inflight_max
            && (conn.state.topics.is_empty() || conn.resp3());
        if free { Admit::Now } else { Admit::Later }
    }

    #[inline]
    fn command(&mut self, now: Instant, command: Command<'_>, out: &mut Out<'_>) -> Result<Then, Refusal> {
        let conn = &mut self.conn;
        if let Command::Cancel { id } = command {
            conn.slots.cancel(id);
            return Ok(Then::Done);
        }
        if let Command::Probe = command {
            conn.probe(now, out);
            return Ok(Then::Done);
        }
        if conn.fault.is_some() || !conn.ready {
            return Err(Refusal { code: "CLOSED", message: "the conn is not ready for requests".into() });
        }
        let was_idle = conn.slots.is_empty();
        let start = out.wire.len();
        match command {
            Command::Request { id, body, asking, .. } => {
                let sent =
                    if asking { conn.request_asking(id, body, out.wire) } else { conn.request(id, body, out.wire) };
                sent.inspect_err(|_| out.wire.truncate(start))
            }
            Command::Subscribe { topic } => conn.subscribe(topic, out),
            Command::Unsubscribe { topic } => conn.unsubscribe(topic, out.wire),
            Command::Cancel { .. } | Command::AsideOver | Command::Probe => Ok(()),
            Command::Send { .. } => Err(bad_request("requests of this protocol are whole: nothing is sent after them")),
            Command::Reply { .. } | Command::SendTo { .. } => Err(bad_request("a service has no requests to reply to")),
        }?;
        if let (true, Some(liveness)) = (out.wire.len() > start, &mut conn.liveness) {
            liveness.wrote(now, was_idle);
        }
        Ok(Then::Done)
    }

    fn inflight(&self) -> usize {
        self.conn.slots.requests()
    }

    fn tenancy(&self) -> Tenancy {
        let Conn { state, slots, .. } = &self.conn;
        if state.spoiled || state.monitoring || slots.waiting_deaf() > 0 {
            return Tenancy::Spoiled;
        }
        let alone = !state.topics.is_empty() && !self.conn.resp3();
        let dirty = state.multi || state.watching || state.moved || state.cleanups > 0 || slots.waiting() > 0 || alone;
        if dirty { Tenancy::Dirty } else { Tenancy::Clean }
    }

    fn reset(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        self.conn.check()?;
        self.conn.clean(now, out.wire);
        Ok(())
    }

    fn close(&mut self, _now: Instant, _out: &mut Out<'_>) {
        // QUIT is deprecated since 7.2: closing the socket is the goodbye.
        self.conn.closing = true;
    }

    fn abandon(&mut self, each: &mut dyn FnMut(RequestId)) {
        self.conn.slots.abandon(each);
    }
}

impl Conn {
    fn check(&self) -> Result<(), Fault> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.fault = Some(fault.clone());
        fault
    }

    pub fn resp3(&self) -> bool {
        self.server.protocol == 3
    }

    pub fn expect(&mut self, step: Step) {
        self.steps_left += 1;
        self.slots.own(Kind::Handshake(step));
    }

    /// How the frame that begins is wanted.
    #[inline]
    fn want(&self) -> Want {
        let raw = self.limits.raw;
        // What was asked before a subscription is answered before its first push.
        let arrays_push = (!self.state.topics.is_empty() || self.slots.has_topics())
            && !self.resp3()
            && !matches!(self.slots.front(), Some(Slot { kind: Kind::Ask(_), .. }));
        let unconverted = raw && self.slots.front().is_some_and(|slot| slot.live);
        Want { raw, unconverted, arrays_push }
    }

    /// No heartbeat would be answered at this moment, or it would become part of a tenant's transaction.
    pub fn is_quiet(&self) -> bool {
        self.state.monitoring || self.state.multi || self.slots.waiting() > 0
    }

    fn beat(&mut self, now: Instant, wire: &mut Vec<u8>) -> Result<(), Fault> {
        let (idle, quiet) = (self.slots.is_empty(), self.is_quiet());
        let Some(liveness) = self.liveness.as_mut().filter(|_| self.ready) else { return Ok(()) };
        match liveness.due(now, !idle, quiet) {
            Due::Nothing => Ok(()),
            Due::Heartbeat => {
                liveness.heartbeat_sent(now, idle);
                self.heartbeat(wire);
                Ok(())
            }
            Due::Silent(span) => {
                let asked = self.heartbeat_question().map_or("PING", |question| question.name());
                let message = format!("the server did not answer {asked} and sent nothing for {span:.1?}");
                Err(Fault { kind: FaultKind::Silent, message })
            }
        }
    }

    fn heartbeat(&mut self, wire: &mut Vec<u8>) {
        match self.heartbeat_question() {
            Some(question) => self.ask(question, wire),
            None => {
                wire.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
                self.slots.own(Kind::Ping);
            }
        }
    }

    #[inline(always)]
    fn request(&mut self, id: RequestId, body: &[u8], wire: &mut Vec<u8>) -> Result<(), Refusal> {
        let written = encode::request(body, wire)?;
        let kind = match written.batch {
            None => Kind::Request,
            Some(left) => Kind::Batch { left },
        };
        let bound = self.written(&written);
        self.slots.request(id, kind, &written, bound);
        Ok(())
    }

    /// The replies to ASKING stand between those of the request.
    #[cold]
    fn request_asking(&mut self, id: RequestId, body: &[u8], wire: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut asked = Vec::new();
        let written = encode::request_asking(body, wire, &mut asked)?;
        let bound = self.written(&written);
        let mut left = asked.len() as u32;
        for asking in asked {
            left -= 1;
            let kind = if written.batch.is_some() { Kind::Part { left } } else { Kind::Request };
            if asking {
                self.slots.own_before(id);
            }
            self.slots.request(id, kind, &written, bound);
        }
        Ok(())
    }

    /// Notes what a request does to the conn. True: it belongs to what a tenant does here.
    #[inline(always)]
    fn written(&mut self, written: &Written) -> bool {
        let bound = self.state.multi | written.monitors | written.mark.is_some();
        if let Some(mark) = written.mark {
            self.state.apply(mark);
        }
        self.state.monitoring |= written.monitors;
        bound
    }

    fn subscribe(&mut self, topic: &[u8], out: &mut Out<'_>) -> Result<(), Refusal> {
        let (command, channel) = topic_command(topic, [&b"SUBSCRIBE"[..], b"PSUBSCRIBE", b"SSUBSCRIBE"])?;
        if self.is_invalidations(topic) {
            out.events.emit(Event::Subscribed { topic });
            return Ok(());
        }
        self.state.topics.insert(topic.into());
        self.slots.topic(Kind::Subscribe, topic);
        write_pair(out.wire, command, channel);
        Ok(())
    }

    fn unsubscribe(&mut self, topic: &[u8], wire: &mut Vec<u8>) -> Result<(), Refusal> {
        let (command, channel) = topic_command(topic, [&b"UNSUBSCRIBE"[..], b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"])?;
        if !self.is_invalidations(topic) {
            self.slots.topic(Kind::Unsubscribe, topic);
            write_pair(wire, command, channel);
        }
        Ok(())
    }

    /// In RESP3, invalidations are pushed without a subscription.
    fn is_invalidations(&self, topic: &[u8]) -> bool {
        self.resp3() && self.options.tracking != Tracking::Off && topic.strip_prefix(b"s:") == Some(INVALIDATIONS)
    }

    /// One frame from the server.
    #[inline]
    fn frame(&mut self, frame: Frame<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        if let Shape::Push(push) = frame.shape {
            return self.push(push, frame.raw, out);
        }
        let Some((slot, id)) = self.slots.answered() else { return self.unasked(frame, out) };
        match slot.kind {
            Kind::Request => self.reply(slot, id, frame, out),
            Kind::Batch { left } | Kind::Part { left } => return self.gather(slot, id, left, frame, out),
            Kind::Handshake(step) => return handshake::answer(self, step, frame.shape, out),
            Kind::Ignored => {}
            Kind::Ping => self.pong(),
            Kind::Ask(question) => return self.told(question, frame.shape, out),
            Kind::Cleanup => self.cleaned(frame.shape),
            Kind::Subscribe | Kind::Unsubscribe => return self.topic_refused(slot.kind, frame.shape, out),
        }
        Ok(())
    }

    #[inline]
    fn reply(&mut self, slot: Slot, id: RequestId, frame: Frame<'_>, out: &mut Out<'_>) {
        let body = match frame.shape {
            Shape::Error(text) => return self.failed(slot, id, text, out),
            _ if !slot.live => return,
            _ if self.limits.raw => Body::Raw(frame.raw),
            Shape::Bytes(bytes) => Body::Bytes(bytes),
            Shape::Text(text) => Body::Text(text),
            Shape::Value(value) | Shape::Push(value) => Body::Msgpack(value),
        };
        out.events.emit(Event::Reply { id, error: false, body });
    }

    #[cold]
    fn failed(&mut self, slot: Slot, id: RequestId, text: &[u8], out: &mut Out<'_>) {
        self.unmark(slot, text);
        if slot.live {
            let follows = self.limits.follow != Follow::Nothing && !slot.bound;
            let body = error_body(&mut self.scratch, text);
            out.events.emit(match rejection(text, slot.scripts).filter(|_| follows) {
                Some(why) => Event::Rejected { id, why, body },
                None => Event::Reply { id, error: true, body },
            });
        }
        if shows_replica(text) {
            follow::emit_replica(out);
        }
    }

    /// A request was answered with an error, so it may not have done what its mark says.
    fn unmark(&mut self, slot: Slot, text: &[u8]) {
        if slot.monitors {
            self.state.monitoring = false;
        }
        // Refused by its arguments it changed nothing that mattered; refused for another reason it left the state on.
        if matches!(slot.mark, Some(Mark::Discard | Mark::Unwatch)) && split_error(text).0 != b"ERR" {
            self.state.spoiled = true;
        }
    }

    /// One of a batch's replies; the last one delivers them all.
    fn gather(
        &mut self,
        slot: Slot,
        id: RequestId,
        left: u32,
        frame: Frame<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Fault> {
        self.verdict.note(&slot, frame.shape);
        if slot.live {
            if self.batch.is_empty() && !self.limits.raw {
                // The one just answered and those to come.
                write::array(&mut self.batch, left + 1);
            }
            match (self.limits.raw, frame.shape) {
                (true, _) => self.batch.extend_from_slice(frame.raw),
                (_, Shape::Error(text)) => {
                    let (code, message) = split_error(text);
                    write::error_ext(&mut self.batch, IOK_EXT_ERROR, code, message);
                }
                (_, Shape::Bytes(bytes)) => write::bin(&mut self.batch, bytes),
                (_, Shape::Text(text)) => write::str(&mut self.batch, text),
                (_, Shape::Value(value) | Shape::Push(value)) => self.batch.extend_from_slice(value),
            }
        }
        if self.batch.len() > self.limits.message_bytes_max {
            let max = self.limits.message_bytes_max;
            return Err(wire::too_large(format!(
                "a batch's replies exceed {max} bytes: raise max_reply, or ask for less"
            )));
        }
        if left == 0 {
            self.gathered(slot, id, out);
        }
        Ok(())
    }

    /// Every reply of a batch is there.
    fn gathered(&mut self, slot: Slot, id: RequestId, out: &mut Out<'_>) {
        let verdict = std::mem::take(&mut self.verdict);
        let follows = self.limits.follow != Follow::Nothing && !slot.bound;
        let rejected = verdict.rejected().filter(|_| follows);
        let rejected = rejected.and_then(|text| Some((text, rejection(text, slot.scripts)?)));
        if slot.live {
            out.events.emit(match rejected {
                Some((text, why)) => Event::Rejected { id, why, body: error_body(&mut self.scratch, text) },
                None if self.limits.raw => Event::Reply { id, error: false, body: Body::Raw(&self.batch) },
                None => Event::Reply { id, error: false, body: Body::Msgpack(&self.batch) },
            });
        }
        if verdict.shows_replica {
            follow::emit_replica(out);
        }
        self.batch.clear();
        if self.batch.capacity() > BATCH_BYTES_KEPT {
            self.batch = Vec::new();
        }
    }

    pub fn pong(&mut self) {
        if let Some(liveness) = &mut self.liveness {
            liveness.heartbeat_answered();
        }
    }

    /// A frame that answers nothing.
    #[cold]
    fn unasked(&mut self, frame: Frame<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        match frame.shape {
            Shape::Text(line) if self.state.monitoring => {
                let body = if self.limits.raw { Body::Raw(frame.raw) } else { Body::Text(line) };
                out.events.emit(Event::Push { topic: None, body });
                Ok(())
            }
            Shape::Error(text) => {
                let message = format!("the server ended the conn: {}", String::from_utf8_lossy(text));
                Err(Fault { kind: FaultKind::Closed, message })
            }
            _ => Err(wire::broken("a reply that nobody asked for")),
        }
    }

    fn push(&mut self, push: &[u8], raw: &[u8], out: &mut Out<'_>) -> Result<(), Fault> {
        let mut reader = Reader::new(push);
        let (Ok(Token::Array(_)), Some(kind)) = (reader.token(), commands::text(&mut reader)) else {
            return Err(wire::broken("a push without a kind"));
        };
        let channel = commands::text(&mut reader).unwrap_or_default();
        let (prefix, subscribed) = match kind {
            b"message" => (commands::SUBSCRIBE, None),
            b"pmessage" => (commands::PSUBSCRIBE, None),
            b"smessage" => (commands::SSUBSCRIBE, None),
            b"subscribe" => (commands::SUBSCRIBE, Some(true)),
            b"psubscribe" => (commands::PSUBSCRIBE, Some(true)),
            b"ssubscribe" => (commands::SSUBSCRIBE, Some(true)),
            b"unsubscribe" => (commands::SUBSCRIBE, Some(false)),
            b"punsubscribe" => (commands::PSUBSCRIBE, Some(false)),
            b"sunsubscribe" => (commands::SSUBSCRIBE, Some(false)),
            b"pong" if !self.resp3() => return self.subscribed_pong(),
            _ => return self.other_push(kind, push, raw, out),
        };
        self.scratch.clear();
        self.scratch.extend_from_slice(&[prefix, b':']);
        self.scratch.extend_from_slice(channel);
        match subscribed {
            Some(subscribed) => self.topic_moved(subscribed, out),
            None => {
                let body = if self.limits.raw { Body::Raw(raw) } else { Body::Msgpack(push) };
                out.events.emit(Event::Push { topic: Some(&self.scratch), body });
            }
        }
        Ok(())
    }

    fn other_push(&mut self, kind: &[u8], push: &[u8], raw: &[u8], out: &mut Out<'_>) -> Result<(), Fault> {
        self.scratch.clear();
        self.scratch.extend_from_slice(b"s:");
        self.scratch.extend_from_slice(INVALIDATIONS);
        let topic = (kind == b"invalidate").then_some(&self.scratch[..]);
        let body = if self.limits.raw { Body::Raw(raw) } else { Body::Msgpack(push) };
        out.events.emit(Event::Push { topic, body });
        Ok(())
    }

    /// RESP2 with subscriptions answers PING with an array.
    fn subscribed_pong(&mut self) -> Result<(), Fault> {
        match self.slots.front().map(|slot| slot.kind) {
            Some(Kind::Ping) => {
                self.slots.answered();
                self.pong();
                Ok(())
            }
            _ => Err(wire::broken("a PONG that nobody asked for")),
        }
    }

    /// The server confirms or ends a subscription; its key is in the scratch.
    fn topic_moved(&mut self, subscribed: bool, out: &mut Out<'_>) {
        let topic = &self.scratch[..];
        if subscribed {
            if self.slots.topic_answered(Kind::Subscribe, topic) {
                // Once more: an end of the same topic may have been confirmed in between.
                self.state.topics.insert(topic.into());
                out.events.emit(Event::Subscribed { topic });
            }
            return;
        }
        self.state.topics.remove(topic);
        if !self.slots.topic_answered(Kind::Unsubscribe, topic) {
            out.events.emit(Event::Unsubscribed { topic, error: None });
        }
    }

    /// A plain reply where a confirmation was due: an error, as of an ACL.
    fn topic_refused(&mut self, kind: Kind, shape: Shape<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        let (Some(topic), Shape::Error(text)) = (self.slots.next_topic(), shape) else {
            return Err(wire::broken("a subscription answered with neither a confirmation nor an error"));
        };
        self.state.topics.remove(&topic);
        if kind == Kind::Subscribe {
            // A shard channel whose slot is elsewhere is as good as withdrawn.
            let moved = matches!(rejection(text, false), Some(Rejection::Moved { .. }));
            let withdrawn = moved && self.limits.follow == Follow::Topology;
            let error = (!withdrawn).then(|| error_body(&mut self.scratch, text));
            out.events.emit(Event::Unsubscribed { topic: &topic, error });
        }
        Ok(())
    }

    /// Writes what takes a tenant's state off.
    fn clean(&mut self, now: Instant, wire: &mut Vec<u8>) {
        self.state.spoiled |= self.slots.waiting() > 0 || !self.state.topics.is_empty();
        if self.state.spoiled || self.state.monitoring || !self.ready {
            return;
        }
        let was_idle = self.slots.is_empty();
        let start = wire.len();
        if std::mem::take(&mut self.state.multi) {
            wire.extend_from_slice(b"*1\r\n$7\r\nDISCARD\r\n");
            self.expect_cleanup();
        }
        if std::mem::take(&mut self.state.watching) {
            wire.extend_from_slice(b"*1\r\n$7\r\nUNWATCH\r\n");
            self.expect_cleanup();
        }
        if std::mem::take(&mut self.state.moved) {
            let database = number::Decimal::unsigned(u64::from(self.options.database));
            write_pair(wire, b"SELECT", database.as_bytes());
            self.expect_cleanup();
        }
        if let (true, Some(liveness)) = (wire.len() > start, &mut self.liveness) {
            liveness.wrote(now, was_idle);
        }
    }

    fn expect_cleanup(&mut self) {
        self.state.cleanups += 1;
        self.slots.own(Kind::Cleanup);
    }

    fn cleaned(&mut self, shape: Shape<'_>) {
        self.state.cleanups -= 1;
        // A transaction that was gone already is as good as one discarded.
        self.state.spoiled |= matches!(shape, Shape::Error(text) if text != b"ERR DISCARD without MULTI");
    }
}

impl State {
    fn apply(&mut self, mark: Mark) {
        match mark {
            Mark::Multi => self.multi = true,
            Mark::Exec | Mark::Discard => (self.multi, self.watching) = (false, false),
            Mark::Watch => self.watching = true,
            Mark::Unwatch => self.watching &= self.multi,
            Mark::Select => self.moved = true,
            Mark::Spoils => self.spoiled = true,
        }
    }
}

fn error_body<'a>(scratch: &'a mut Vec<u8>, text: &[u8]) -> Body<'a> {
    let (code, message) = split_error(text);
    scratch.clear();
    write::error(scratch, code, message);
    Body::Msgpack(scratch)
}

fn topic_command<'a>(topic: &'a [u8], commands: [&'static [u8]; 3]) -> Result<(&'static [u8], &'a [u8]), Refusal> {
    match topic {
        [commands::SUBSCRIBE, b':', channel @ ..] => Ok((commands[0], channel)),
        [commands::PSUBSCRIBE, b':', channel @ ..] => Ok((commands[1], channel)),
        [commands::SSUBSCRIBE, b':', channel @ ..] => Ok((commands[2], channel)),
        _ => Err(bad_request("a topic begins with s:, p: or S:")),
    }
}

fn write_pair(wire: &mut Vec<u8>, command: &[u8], argument: &[u8]) {
    number::head(wire, b'*', 2);
    number::bulk(wire, command);
    number::bulk(wire, argument);
}
