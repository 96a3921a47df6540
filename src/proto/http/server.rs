//! The listener's side of one conn: requests in, responses out in the order of the requests.
//!
//! [`head`] judges heads and [`forms`] tells them; [`reply`] checks and writes what the program answers; [`inbound`] and
//! [`outbound`] are the two directions of the session; [`exchange`] is one request with its response.
//!
//! # The rules of the protocol
//! - What two servers could read in two ways is refused, with a status and the end of the conn (RFC 9112, 2.2, 3, 5, 6).
//! - Responses go out in the order of their requests (9.3.2); after one that says `Connection: close`, nothing (9.6).
//! - A body that nobody waits for is read and dropped, within bounds, so that the conn can be kept.
//! - A request that would rather speak another protocol is decided before anything behind it is read (RFC 9110, 7.8).

mod date;
mod exchange;
mod forms;
mod head;
mod inbound;
mod options;
mod outbound;
mod proxied;
mod reply;
mod sink;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use date::Clock;
use exchange::{Exchange, Stage};
use forms::About;
pub use options::Options;

use super::talk::Talk;
use super::value::bad_request;
use super::wire::{Chunked, Malformed, Scan};
use crate::proto::{
    Admit, Body, Command, Event, Fact, Fault, FaultKind, Limits, Of, Out, Progress, Protocol, Refusal, RequestId,
    Tenancy, Then, Transport,
};

/// Bytes of a body that are read and dropped after its request was answered, so that the conn can be kept.
const DROPPED_BYTES_MAX: u64 = 256 << 10;
/// Buffers of exchanges that are kept for later ones.
const SPARE_MAX: usize = 16;
/// How long after its last response a conn is kept for a request that may be on its way while we leave.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// Empty lines before a request (RFC 9112, 2.2: at least one).
const EMPTY_LINES_MAX: u8 = 4;

/// One conn of a client.
pub struct Server {
    options: Arc<Options>,
    limits: Limits,
    about: About,
    clock: Clock,
    fault: Option<Fault>,
    state: State,
    /// When this state began, or last moved.
    since: Option<Instant>,
    scan: Scan,
    /// The first byte of a head was seen.
    began: bool,
    /// Its method is HEAD.
    is_head: bool,
    empty_lines: u8,
    /// Bytes of the body under way so far.
    body_bytes: u64,
    /// What a body that is told as a whole was asked with, and its bytes so far.
    scratch: Vec<u8>,
    /// Where that body stands in it.
    body_at: usize,
    queue: VecDeque<Exchange>,
    /// The slot of the first.
    first: u64,
    /// Bytes of responses that wait for those before them.
    held_bytes: usize,
    spare: Vec<Vec<u8>>,
    closing: bool,
    drained: bool,
}

/// What the next byte of the client is.
enum State {
    /// Of the header of a proxy.
    Proxied,
    /// Of a request's head, or of an empty line before it.
    Head,
    /// Of a body that is told with its request, in `scratch`.
    Whole(Incoming),
    /// Of a body whose pieces are told as they come.
    Streamed(Incoming),
    /// Of a body that nobody wants; so many bytes are still taken.
    Dropped(Incoming, u64),
    /// Unknown, until the program has accepted an upgrade or not.
    Undecided,
    /// Of another protocol, which is the program's.
    Lane,
    WebSocket(Box<Talk>),
    /// Nobody's: it is swallowed.
    Deaf,
}

/// The rest of a body.
enum Incoming {
    Known(u64),
    Chunked(Box<Chunked>),
}

impl Server {
    pub fn new(options: Arc<Options>, limits: Limits) -> Self {
        let state = if options.proxied == options::Proxied::No { State::Head } else { State::Proxied };
        Server {
            options,
            limits,
            about: About::default(),
            clock: Clock::default(),
            fault: None,
            state,
            since: None,
            scan: Scan::default(),
            began: false,
            is_head: false,
            empty_lines: 0,
            body_bytes: 0,
            scratch: Vec::new(),
            body_at: 0,
            queue: VecDeque::new(),
            first: 0,
            held_bytes: 0,
            spare: Vec::new(),
            closing: false,
            drained: false,
        }
    }

    fn check(&self) -> Result<(), Fault> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, kind: FaultKind, message: impl Into<String>) -> Fault {
        let fault = Fault { kind, message: message.into() };
        self.fault = Some(fault.clone());
        fault
    }

    /// The slot of the last request that was read.
    fn last_slot(&self) -> u64 {
        self.first + (self.queue.len() as u64).saturating_sub(1)
    }

    fn index(&self, slot: u64) -> Option<usize> {
        let index = usize::try_from(slot.checked_sub(self.first)?).ok()?;
        (index < self.queue.len()).then_some(index)
    }

    /// Nothing more is read as a request; the last response, if there is one to come, says so.
    fn deafen(&mut self, out: &mut Out<'_>) {
        self.state = State::Deaf;
        if let Some(last) = self.queue.back_mut() {
            last.asked.keeps = false;
        }
        self.drain(out);
    }

    fn drain(&mut self, out: &mut Out<'_>) {
        if matches!(self.state, State::Deaf) && self.queue.is_empty() && !self.drained {
            self.drained = true;
            out.events.emit(Event::Fact(Fact::Draining));
        }
    }

    /// Takes off the responses that are whole, and writes what waited for them.
    fn advance(&mut self, now: Instant, out: &mut Out<'_>) {
        let was_paused = self.paused();
        while let Some(first) = self.queue.front_mut() {
            if !first.held.is_empty() {
                self.held_bytes -= first.held.wire.len();
                first.held.flush(&mut sink::Sink { wire: out.wire, files: out.files });
            }
            if first.stage != Stage::Over {
                break;
            }
            if self.limits.access {
                out.events.emit(Event::Access(first.access(self.about.client)));
            }
            let keeps = first.asked.keeps;
            self.leave_first();
            if !keeps {
                self.end(out);
            }
        }
        if matches!(self.state, State::Head) && (!self.began || was_paused) {
            self.since = Some(now);
        }
        self.drain(out);
    }

    fn leave_first(&mut self) {
        self.first += 1;
        if let Some(notes) = self.queue.pop_front().map(Exchange::into_notes)
            && self.spare.len() < SPARE_MAX
            && notes.capacity() <= 4096
        {
            self.spare.push(notes);
        }
    }

    /// Most clients that send nothing more are gone: the program may want to know while it works for them.
    fn tell_left(&mut self, out: &mut Out<'_>) {
        let lane = matches!(self.state, State::Lane).then(|| self.last_slot());
        let waiting =
            |(slot, exchange): &(u64, &Exchange)| exchange.told && exchange.stage != Stage::Over && Some(*slot) != lane;
        for (slot, _) in (self.first..).zip(&self.queue).filter(waiting) {
            out.events.emit(Event::End { of: Of::Slot(slot), body: Body::None });
        }
    }

    /// Nothing has happened for a while.
    fn is_idle(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now >= since + LAST_REQUEST)
    }

    /// The last response of this conn is written: those behind it are nobody's any more (RFC 9112, 9.6).
    fn end(&mut self, out: &mut Out<'_>) {
        while let Some(next) = self.queue.front() {
            if next.told && next.stage != Stage::Over {
                out.events.emit(Event::Settled { slot: self.first });
            }
            self.leave_first();
        }
        self.held_bytes = 0;
        self.state = State::Deaf;
    }
}

impl Protocol for Server {
    fn handle_open(&mut self, now: Instant, transport: &Transport, _out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        self.about = About::new(transport);
        self.clock = Clock::new(transport.wall);
        self.since = Some(now);
        Ok(())
    }

    fn handle_input(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        self.check()?;
        if self.paused() {
            return Err(self.fail(FaultKind::TooLarge, "more requests are under way than allowed"));
        }
        if input.is_empty() {
            return Ok(Progress::Need(1));
        }
        self.input(now, input, out)
    }

    /// Clients that only shut down their sending side still get what they asked for.
    fn handle_eof(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        let of = Of::Slot(self.last_slot());
        match &self.state {
            State::Streamed(_) => return Err(self.fail(FaultKind::Closed, "the client left within a request")),
            State::WebSocket(_) => {
                self.talk(out, |talk, of, _, events| talk.lose(of, events));
                return Err(self.fail(FaultKind::Closed, "the client left without a close frame"));
            }
            // Its request is never told: nobody would know its end.
            State::Whole(_) => {
                let dropped = self.queue.pop_back();
                self.held_bytes -= dropped.map_or(0, |exchange| exchange.held.wire.len());
            }
            State::Lane => out.events.emit(Event::End { of, body: Body::None }),
            _ => {}
        }
        if self.queue.is_empty() {
            return Err(self.fail(FaultKind::Closed, "the client closed the conn"));
        }
        self.tell_left(out);
        self.deafen(out);
        self.advance(now, out);
        Ok(())
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Ok(());
        }
        let refused = Malformed { status: 408, what: "a request that did not come in time" };
        match self.state {
            State::Head if self.began => self.refuse(now, refused, out),
            State::Whole(_) | State::Streamed(_) => self.refuse(now, refused, out),
            State::WebSocket(_) => {
                let limits = self.limits;
                if let Some(Err(_)) = self.talk(out, |talk, _, wire, _| talk.beat(now, &limits, wire)) {
                    self.leave_websocket(now, out);
                }
            }
            _ => self.deafen(out),
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.fault.is_some() || self.drained || self.paused() {
            return None;
        }
        let span = match &self.state {
            State::Proxied => self.options.head_timeout,
            State::Head if self.began => self.options.head_timeout,
            State::Head if self.queue.is_empty() && self.closing => LAST_REQUEST,
            State::Head if self.queue.is_empty() => self.options.idle_timeout,
            State::Whole(_) | State::Streamed(_) | State::Dropped(..) => self.options.body_timeout,
            State::WebSocket(talk) => return Some(talk.deadline(&self.limits)),
            _ => return None,
        };
        Some(self.since? + span)
    }

    fn paused(&self) -> bool {
        match self.state {
            State::Deaf => false,
            State::Undecided => true,
            // A lane may be behind responses, too, and its client may have us answer pings.
            _ if self.held_bytes > self.limits.message_bytes_max => true,
            State::Head => self.queue.len() >= self.limits.inflight_max,
            _ => false,
        }
    }

    fn admit(&self, _body: &[u8]) -> Admit {
        Admit::Never(bad_request("a listener's conn takes replies only"))
    }

    fn command(&mut self, now: Instant, command: Command<'_>, out: &mut Out<'_>) -> Result<Then, Refusal> {
        if self.fault.is_some() {
            return Err(Refusal { code: "CLOSED", message: "the client's conn is gone".into() });
        }
        match command {
            Command::Reply { slot, body } => self.reply(now, slot, body, out),
            Command::SendTo { slot, body } => self.send(now, slot, body, out),
            _ => Err(bad_request("a listener's conn takes replies only")),
        }
    }

    fn inflight(&self) -> usize {
        self.queue.len()
    }

    fn tenancy(&self) -> Tenancy {
        Tenancy::Clean
    }

    fn reset(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()
    }

    /// What is under way is finished, and a request that the client has sent meanwhile is the last one (RFC 9112, 9.6).
    fn close(&mut self, now: Instant, out: &mut Out<'_>) {
        if self.fault.is_some() {
            return;
        }
        self.closing = true;
        match &self.state {
            State::Proxied => self.deafen(out),
            // A client that waits for nothing may have sent its next request already.
            State::Head if !self.began && (!self.queue.is_empty() || self.is_idle(now)) => self.deafen(out),
            State::Whole(_) | State::Streamed(_) | State::Dropped(..) | State::Undecided => {
                match self.queue.back_mut() {
                    Some(last) => last.asked.keeps = false,
                    None => self.deafen(out),
                }
            }
            State::WebSocket(_) => drop(self.talk(out, |talk, _, wire, _| talk.leave(now, wire))),
            State::Head | State::Lane | State::Deaf => {}
        }
    }

    /// A listener's requests have slots, not numbers: there is nobody to name.
    fn abandon(&mut self, _each: &mut dyn FnMut(RequestId)) {
        self.queue.clear();
        self.held_bytes = 0;
    }
}
