//! The listener's side of one conn: requests in, replies out in the order of the requests.
//!
//! What concerns the conn itself (HELLO, AUTH, PING, CLIENT, ...) is answered here by [`own`](super::own); everything
//! else goes to the program.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::commands::{bad_request, text};
use super::inbound::{Inbound, Step};
use super::own::{self, Client};
use super::{Options, outbound};
use crate::proto::{
    Admit, Body, Command, Event, Fact, Fault, FaultKind, Limits, Out, Progress, Protocol, Refusal, RequestId, Tenancy,
    Then, Transport,
};
use crate::value::{Reader, Token};

/// One conn of a client.
pub struct ServerSession {
    limits: Limits,
    inbound: Inbound,
    client: Client,
    replies: Replies,
    fault: Option<Fault>,
    /// The client said QUIT, or will send nothing more.
    leaving: bool,
    drained: bool,
}

impl ServerSession {
    /// `id`: a number for CLIENT ID that no other conn of this listener has.
    pub fn new(options: Arc<Options>, limits: Limits, id: u64) -> Self {
        ServerSession {
            limits,
            inbound: Inbound::new(limits.message_bytes_max),
            client: Client::new(options, id),
            replies: Replies::default(),
            fault: None,
            leaving: false,
            drained: false,
        }
    }

    fn check(&self) -> Result<(), Fault> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Tells the client why it is being left, unless that would be read as the reply to an earlier request.
    fn fail(&mut self, fault: Fault, wire: &mut Vec<u8>) -> Fault {
        if self.replies.is_empty() {
            outbound::error(wire, b"ERR", fault.message.as_bytes());
        }
        self.fault = Some(fault.clone());
        fault
    }

    fn request(&mut self, out: &mut Out<'_>) {
        let body = self.inbound.request();
        let mut reader = Reader::new(body);
        let (Ok(Token::Array(count)), Some(name)) = (reader.token(), text(&mut reader)) else { return };
        let resp3 = self.client.resp3;
        let depth_max = self.limits.depth_max;
        let Some(own) = own::answer(&mut self.client, name, &mut reader, count - 1) else {
            let slot = self.replies.wait(resp3);
            out.events.emit(Event::Request { slot, body: Body::Msgpack(body) });
            return;
        };
        self.leaving |= own.leaves;
        // HELLO is answered in the version that it asked for.
        let resp3 = self.client.resp3;
        let written = |wire: &mut Vec<u8>| outbound::reply(&own.value, resp3, depth_max, wire);
        // Our own values are well formed.
        let _ = if self.replies.is_empty() { written(out.wire) } else { self.replies.done(written) };
        self.drain(out);
    }

    fn drain(&mut self, out: &mut Out<'_>) {
        if self.leaving && !self.drained && self.replies.is_empty() {
            self.drained = true;
            out.events.emit(Event::Fact(Fact::Draining));
        }
    }
}

impl Protocol for ServerSession {
    fn handle_open(&mut self, _now: Instant, _: &Transport, _out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()
    }

    fn handle_input(&mut self, _now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        self.check()?;
        if self.leaving {
            return Ok(if input.is_empty() { Progress::Need(1) } else { Progress::Consumed(input.len()) });
        }
        if self.paused() {
            let message = format!("more than {} requests are under way", self.limits.inflight_max);
            return Err(self.fail(Fault { kind: FaultKind::TooLarge, message }, out.wire));
        }
        match self.inbound.step(input, !self.client.authenticated) {
            Ok(Step::Need(bytes)) => Ok(Progress::Need(bytes)),
            Ok(Step::Part(bytes)) => Ok(Progress::Consumed(bytes)),
            Ok(Step::Request(bytes)) => {
                self.request(out);
                Ok(Progress::Consumed(bytes))
            }
            Err(fault) => Err(self.fail(fault, out.wire)),
        }
    }

    /// Clients that only shut down their sending side still get what they asked for.
    fn handle_eof(&mut self, _now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        if self.replies.is_empty() {
            let fault = Fault { kind: FaultKind::Closed, message: "the client closed the conn".into() };
            self.fault = Some(fault.clone());
            return Err(fault);
        }
        self.leaving = true;
        self.drain(out);
        Ok(())
    }

    fn handle_timeout(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn paused(&self) -> bool {
        self.replies.len() >= self.limits.inflight_max || self.replies.held_bytes > self.limits.message_bytes_max
    }

    fn admit(&self, _body: &[u8]) -> Admit {
        Admit::Never(bad_request("a listener's conn takes replies only"))
    }

    fn command(&mut self, _now: Instant, command: Command<'_>, out: &mut Out<'_>) -> Result<Then, Refusal> {
        let Command::Reply { slot, body } = command else {
            return Err(bad_request("a listener's conn takes replies only"));
        };
        if self.fault.is_some() {
            return Err(Refusal { code: "CLOSED", message: "the client's conn is gone".into() });
        }
        let depth_max = self.limits.depth_max;
        let mut refusal = None;
        let answered = self.replies.answer(slot, out.wire, |resp3, wire| {
            let start = wire.len();
            if let Err(why) = outbound::reply(body, resp3, depth_max, wire) {
                wire.truncate(start);
                outbound::error(wire, b"ERR", b"the program's reply cannot be sent");
                refusal = Some(bad_request(format!("the reply cannot be sent: {why}")));
            }
        });
        if !answered {
            return Err(bad_request(format!("slot {slot} waits for no reply")));
        }
        self.drain(out);
        refusal.map_or(Ok(Then::Done), Err)
    }

    fn inflight(&self) -> usize {
        self.replies.len()
    }

    fn tenancy(&self) -> Tenancy {
        Tenancy::Clean
    }

    fn reset(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()
    }

    fn close(&mut self, _now: Instant, _out: &mut Out<'_>) {}

    /// A listener's requests have slots, not numbers: there is nobody to name.
    fn abandon(&mut self, _each: &mut dyn FnMut(RequestId)) {
        self.replies = Replies::default();
    }
}

/// One reply that is due.
#[derive(Debug)]
struct Reply {
    /// The version that its client spoke when it asked.
    resp3: bool,
    /// Its wire form, once it is known; it waits for those before it.
    wire: Option<Vec<u8>>,
}

/// Replies due, in the order of their requests.
#[derive(Debug, Default)]
struct Replies {
    queue: VecDeque<Reply>,
    /// The slot of the first.
    first: u64,
    /// Bytes of replies that wait for those before them.
    held_bytes: usize,
}

impl Replies {
    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn len(&self) -> usize {
        self.queue.len()
    }

    /// A reply that the program will give; returns its slot.
    fn wait(&mut self, resp3: bool) -> u64 {
        self.queue.push_back(Reply { resp3, wire: None });
        self.first + (self.queue.len() as u64 - 1)
    }

    /// A reply of our own behind those of the program.
    fn done(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>) -> Result<(), String> {
        let mut wire = Vec::new();
        write(&mut wire)?;
        self.held_bytes += wire.len();
        self.queue.push_back(Reply { resp3: false, wire: Some(wire) });
        Ok(())
    }

    /// Writes a slot's reply, and those that waited for it. False: nobody waits for that slot.
    fn answer(&mut self, slot: u64, wire: &mut Vec<u8>, write: impl FnOnce(bool, &mut Vec<u8>)) -> bool {
        let Some(index) = slot.checked_sub(self.first).and_then(|index| usize::try_from(index).ok()) else {
            return false;
        };
        let Some(Reply { resp3, wire: held @ None }) = self.queue.get_mut(index) else { return false };
        if index == 0 {
            write(*resp3, wire);
            self.left();
            self.flush(wire);
            return true;
        }
        let mut bytes = Vec::new();
        write(*resp3, &mut bytes);
        self.held_bytes += bytes.len();
        *held = Some(bytes);
        true
    }

    fn flush(&mut self, wire: &mut Vec<u8>) {
        while let Some(Reply { wire: Some(held), .. }) = self.queue.front() {
            wire.extend_from_slice(held);
            self.held_bytes -= held.len();
            self.left();
        }
    }

    fn left(&mut self) {
        self.queue.pop_front();
        self.first += 1;
    }
}
