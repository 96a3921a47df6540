//! The client's side of one conn.
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::Options;
use super::answer::Answer;
use super::binding;
use super::interrupt::Interrupt;
use super::request::bad_request;
use super::sending::{Gather, Waiting};
use super::startup::{Server, Startup};
use super::statements::{Prepared, Recent, Shared, Text};
use super::units::{Kind, Units};
use super::wire::{self, Step};
use crate::proto::liveness::{Due, Liveness};
use crate::proto::{
    Admit, Command, Fault, FaultKind, Follow, Limits, Out, Progress, Protocol, Refusal, RequestId, Tenancy, Then,
    Transport,
};

/// ReadyForQuery: no transaction is open.
pub const IDLE: u8 = b'I';

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Until the first ReadyForQuery.
    Startup,
    /// The role is asked before the first request.
    Asking,
    Ready,
}

/// One conn to a server.
pub struct Session {
    pub options: Arc<Options>,
    pub limits: Limits,
    pub shared: Shared,
    pub startup: Startup,
    pub server: Server,
    /// The server knows what its timeline is, as far as is known.
    pub asks_timeline: bool,
    pub phase: Phase,
    /// None until the transport is up.
    liveness: Option<Liveness>,
    fault: Option<Fault>,
    pub closing: bool,
    pub units: Units,
    /// Requests whose turn to be sent has not come, or whose statement is being learnt.
    pub waiting: VecDeque<Waiting>,
    /// Statements that this conn has names for.
    pub prepared: Recent<Text, Prepared>,
    /// The number of the statement named last; the high half is the conn's own, so that no other conn names any the same.
    pub last_number: u64,
    /// The statement learnt last, where it is kept nowhere else.
    pub learnt: Option<Prepared>,
    /// Those that `prepared` follows; see `Known`.
    pub definitions: u64,
    /// Batches under way, by their sequence.
    pub batches: HashMap<u64, Gather>,
    /// Requests under way that nobody waits for.
    pub cancelled: HashSet<RequestId>,
    pub interrupt: Interrupt,
    pub requests: usize,
    pub sequence: u64,
    /// The highest that was seen.
    pub last_id: u64,
    pub state: State,
    pub topics: HashSet<Box<[u8]>>,
    pub answer: Answer,
    pub scratch: Vec<u8>,
    /// What a COPY gave that was not told yet.
    pub copied: Vec<u8>,
    /// Bytes still to come of a message that is not kept.
    skip: usize,
}

/// What tenants left on the conn, as of what was written.
#[derive(Debug)]
pub struct State {
    /// As the last ReadyForQuery said.
    pub status: u8,
    /// A tenant may have a transaction open: what was written says so.
    pub tenant: bool,
    /// A tenant changed the session.
    pub session: bool,
    pub spoiled: bool,
    /// The open transaction has defined something.
    pub defines: bool,
    /// Units that will show the conn clean.
    pub cleanups: u32,
}

impl Session {
    pub fn new(options: Arc<Options>, limits: Limits, statements_max: usize, shared: Shared) -> Self {
        Session {
            options,
            limits,
            shared,
            startup: Startup::new(),
            server: Server::default(),
            asks_timeline: true,
            phase: Phase::Startup,
            liveness: None,
            fault: None,
            closing: false,
            units: Units::default(),
            waiting: VecDeque::new(),
            prepared: Recent::new(statements_max),
            last_number: 0,
            learnt: None,
            definitions: 0,
            batches: HashMap::new(),
            cancelled: HashSet::new(),
            interrupt: Interrupt::default(),
            requests: 0,
            sequence: 0,
            last_id: 0,
            state: State { status: IDLE, tenant: false, session: false, spoiled: false, defines: false, cleanups: 0 },
            topics: HashSet::new(),
            answer: Answer::new(limits.message_bytes_max),
            scratch: Vec::new(),
            copied: Vec::new(),
            skip: 0,
        }
    }

    fn check(&self) -> Result<(), Fault> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.fault = Some(fault.clone());
        fault
    }

    /// No heartbeat would be answered at this moment, or it would keep a tenant's transaction from its time limit.
    fn is_quiet(&self) -> bool {
        self.units.is_busy() || !self.waiting.is_empty() || self.state.status != IDLE || self.closing
    }

    pub fn may_ask(&self) -> bool {
        self.phase == Phase::Ready && !self.closing && self.fault.is_none() && self.state.status == IDLE
    }

    /// Notes that something was written.
    fn wrote(&mut self, now: Instant, was_idle: bool) {
        if let Some(liveness) = &mut self.liveness {
            liveness.wrote(now, was_idle);
        }
    }

    pub fn heartbeat_answered(&mut self) {
        if let Some(liveness) = &mut self.liveness {
            liveness.heartbeat_answered();
        }
    }

    fn beat(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        let (idle, quiet) = (self.units.is_empty(), self.is_quiet());
        let Some(liveness) = self.liveness.as_mut().filter(|_| self.phase == Phase::Ready) else { return Ok(()) };
        match liveness.due(now, !idle, quiet) {
            Due::Nothing => {}
            Due::Heartbeat => {
                liveness.heartbeat_sent(now, idle);
                if self.limits.follow == Follow::Roles && !self.state.tenant {
                    self.ask_role(out.wire);
                } else {
                    self.heartbeat(out.wire);
                }
            }
            Due::Silent(span) => {
                let message = format!("the server did not answer a heartbeat and sent nothing for {span:.1?}");
                return Err(Fault { kind: FaultKind::Silent, message });
            }
        }
        Ok(())
    }

    /// A question that nobody asked, and its answer.
    pub fn heartbeat(&mut self, wire: &mut Vec<u8>) {
        wire::sync(wire);
        self.units.push(Kind::Heartbeat);
    }

    fn step(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        if self.skip > 0 {
            let bytes = self.skip.min(input.len());
            self.skip -= bytes;
            return Ok(if bytes > 0 { Progress::Consumed(bytes) } else { Progress::Need(1) });
        }
        let stranger = self.phase == Phase::Startup && self.startup.is_stranger();
        match wire::step(input, self.limits.message_bytes_max, stranger)? {
            Step::Need(bytes) => Ok(Progress::Need(bytes)),
            Step::Large { bytes } => {
                self.too_large(bytes)?;
                let here = bytes.min(input.len());
                self.skip = bytes - here;
                Ok(Progress::Consumed(here))
            }
            Step::Message { bytes, kind, body } => {
                let was_idle = self.units.is_empty();
                let start = out.wire.len();
                self.message(kind, body, out)?;
                if !self.cancelled.is_empty() {
                    self.judge_head(now, out);
                }
                if out.wire.len() > start && self.phase != Phase::Startup {
                    self.wrote(now, was_idle);
                }
                Ok(Progress::Consumed(bytes))
            }
        }
    }
}

impl Protocol for Session {
    fn handle_open(&mut self, now: Instant, transport: &Transport, out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        let Limits { heartbeat, silence_max, .. } = self.limits;
        self.liveness = Some(Liveness::new(now, heartbeat, silence_max));
        // Nobody listens on the way to a unix socket.
        self.startup.secure = transport.secure || transport.peer.is_none();
        self.startup.end_point = transport.certificate.as_deref().and_then(binding::end_point);
        self.startup.open(&self.options, out.wire);
        Ok(())
    }

    #[inline]
    fn handle_input(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        self.check()?;
        if let Some(liveness) = &mut self.liveness {
            liveness.heard(now);
        }
        self.step(now, input, out).map_err(|fault| self.fail(fault))
    }

    fn handle_eof(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        let message = match (self.phase, self.closing) {
            (_, true) => return Ok(()),
            (Phase::Ready, _) => "the server closed the conn",
            _ => "the server closed the conn before it had let us in; does it want TLS?",
        };
        Err(self.fail(Fault { kind: FaultKind::Closed, message: message.into() }))
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        self.interrupt_if_due(now, out);
        self.beat(now, out).map_err(|fault| self.fail(fault))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.phase != Phase::Ready || self.fault.is_some() {
            return None;
        }
        let deadline = self.liveness.as_ref()?.deadline(!self.units.is_empty(), self.is_quiet());
        [deadline, self.interrupt.poll_timeout()].into_iter().flatten().min()
    }

    #[inline]
    fn admit(&self, _body: &[u8]) -> Admit {
        let free = self.phase == Phase::Ready
            && self.fault.is_none()
            && !self.closing
            && self.requests < self.limits.inflight_max;
        if free { Admit::Now } else { Admit::Later }
    }

    #[inline]
    fn command(&mut self, now: Instant, command: Command<'_>, out: &mut Out<'_>) -> Result<Then, Refusal> {
        match command {
            Command::Cancel { id } => {
                self.cancel(id, out.wire);
                self.judge_head(now, out);
                return Ok(Then::Done);
            }
            Command::AsideOver => {
                self.interrupted(now, out);
                return Ok(Then::Done);
            }
            _ => {}
        }
        let was_idle = self.units.is_empty();
        let start = out.wire.len();
        let mut then = Then::Done;
        if let Command::Probe = command {
            self.probe(out.wire);
        } else if self.phase != Phase::Ready || self.fault.is_some() || self.closing {
            return Err(Refusal { code: "CLOSED", message: "the conn is not ready for requests".into() });
        } else {
            then = match command {
                Command::Request { id, body, streams, .. } => self.request(id, body, streams, out.wire),
                Command::Subscribe { topic } => {
                    self.listen(topic, true, out.wire);
                    Ok(Then::Done)
                }
                Command::Unsubscribe { topic } => {
                    self.listen(topic, false, out.wire);
                    Ok(Then::Done)
                }
                Command::Cancel { .. } | Command::AsideOver | Command::Probe => Ok(Then::Done),
                Command::Send { id, body } => self.send_copy(id, body, out.wire),
                Command::Reply { .. } | Command::SendTo { .. } => {
                    Err(bad_request("a service has no requests to reply to"))
                }
            }?;
        }
        if out.wire.len() > start {
            self.wrote(now, was_idle);
        }
        Ok(then)
    }

    fn inflight(&self) -> usize {
        self.requests
    }

    fn tenancy(&self) -> Tenancy {
        let State { status, session, spoiled, cleanups, .. } = self.state;
        match () {
            () if spoiled => Tenancy::Spoiled,
            () if session || cleanups > 0 || status != IDLE => Tenancy::Dirty,
            () => Tenancy::Clean,
        }
    }

    fn reset(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        if self.phase == Phase::Ready && !self.closing {
            let (was_idle, start) = (self.units.is_empty(), out.wire.len());
            self.clean(out.wire);
            if out.wire.len() > start {
                self.wrote(now, was_idle);
            }
        }
        Ok(())
    }

    fn close(&mut self, _now: Instant, out: &mut Out<'_>) {
        if self.phase == Phase::Ready && self.fault.is_none() && !self.closing {
            wire::terminate(out.wire);
        }
        self.closing = true;
    }

    fn abandon(&mut self, each: &mut dyn FnMut(RequestId)) {
        let sent = self.units.iter().filter_map(Kind::owner);
        let mut open: Vec<(u64, RequestId)> = sent
            .chain(self.waiting.iter().map(|waiting| waiting.owner))
            .filter(|owner| !self.cancelled.contains(&owner.id))
            .map(|owner| (owner.sequence, owner.id))
            .collect();
        // Parts of a batch are one request; what is sent once more has lost its place.
        open.sort_unstable();
        open.dedup();
        open.into_iter().for_each(|(_, id)| each(id));
        self.units.clear();
        self.copied.clear();
        self.waiting.clear();
        self.batches.clear();
        self.cancelled.clear();
        self.requests = 0;
    }
}
