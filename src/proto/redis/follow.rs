//! What a conn asks of its peer for the router: its role, or who serves which slots.
use std::time::Instant;

use super::handshake::is_transient;
use super::session::Conn;
use super::slots::Kind;
use super::topology::{self, Told};
use super::wire::{Shape, split_error};
use crate::peer::Role;
use crate::proto::{Event, Fact, Fault, FaultKind, Follow, Out};
use crate::ring::layout::IOK_EXT_VERBATIM;
use crate::value::{Reader, Token};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Role,
    /// Where ROLE is refused, by an ACL or because the server is none of Redis' own.
    Info,
    Slots,
}

impl Question {
    pub fn wire(self) -> &'static [u8] {
        match self {
            Question::Role => b"*1\r\n$4\r\nROLE\r\n",
            Question::Info => b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n",
            Question::Slots => b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Question::Role => "ROLE",
            Question::Info => "INFO",
            Question::Slots => "CLUSTER SLOTS",
        }
    }
}

/// The question that tells a role here. None: the server answers neither.
#[derive(Debug)]
pub struct AsksRole(pub Option<Question>);

impl Default for AsksRole {
    fn default() -> Self {
        AsksRole(Some(Question::Role))
    }
}

impl Conn {
    /// The question that stands in for PING.
    pub fn heartbeat_question(&self) -> Option<Question> {
        let asks = self.limits.follow == Follow::Roles && !self.is_subscriber();
        if asks { self.asks_role.0 } else { None }
    }

    /// The conn takes nothing but SUBSCRIBE and PING: RESP2 with subscriptions.
    fn is_subscriber(&self) -> bool {
        !self.state.topics.is_empty() && !self.resp3()
    }

    /// Asks at once, unless the question would become part of a tenant's transaction or would find no answer.
    #[cold]
    pub fn probe(&mut self, now: Instant, out: &mut Out<'_>) {
        let question = match self.limits.follow {
            Follow::Nothing => return,
            Follow::Roles => self.asks_role.0,
            Follow::Topology => Some(Question::Slots),
        };
        if !self.may_ask() {
            return;
        }
        let Some(question) = question else { return emit_role(&Told::default(), out) };
        let was_idle = self.slots.is_empty();
        self.ask(question, out.wire);
        if let Some(liveness) = &mut self.liveness {
            liveness.wrote(now, was_idle);
        }
    }

    fn may_ask(&self) -> bool {
        self.ready && !self.closing && self.fault.is_none() && !self.is_quiet() && !self.is_subscriber()
    }

    pub fn ask(&mut self, question: Question, wire: &mut Vec<u8>) {
        wire.extend_from_slice(question.wire());
        self.slots.own(Kind::Ask(question));
    }

    /// The answer to a question of a ready conn.
    pub fn told(&mut self, question: Question, shape: Shape<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        self.pong();
        if question == Question::Slots {
            return told_slots(shape, out);
        }
        if let Shape::Error(text) = shape
            && is_transient(text)
        {
            return Ok(());
        }
        if let Some(next) = self.learn(question, shape, out)
            && self.may_ask()
        {
            self.ask(next, out.wire);
        }
        Ok(())
    }

    /// Takes the answer about a role, and returns what is to be asked next where this question was refused.
    pub fn learn(&mut self, question: Question, shape: Shape<'_>, out: &mut Out<'_>) -> Option<Question> {
        if let Shape::Error(_) = shape {
            let next = if question == Question::Role { Some(Question::Info) } else { None };
            self.asks_role.0 = next;
            if next.is_none() {
                emit_role(&Told::default(), out);
            }
            return next;
        }
        let told = match (question, shape) {
            (Question::Info, shape) => topology::info(&String::from_utf8_lossy(info_text(shape))),
            (_, Shape::Value(reply)) => topology::role(reply),
            _ => Told::default(),
        };
        emit_role(&told, out);
        None
    }
}

/// RESP3 sends INFO as a verbatim string, whose first four bytes are its format.
fn info_text(shape: Shape<'_>) -> &[u8] {
    match shape {
        Shape::Bytes(text) | Shape::Text(text) => text,
        Shape::Value(value) => match Reader::new(value).token() {
            Ok(Token::Ext(IOK_EXT_VERBATIM, text)) => text.get(4..).unwrap_or_default(),
            _ => b"",
        },
        _ => b"",
    }
}

fn emit_role(told: &Told, out: &mut Out<'_>) {
    out.events.emit(Event::Fact(Fact::Role { role: told.role, follows: told.follows.as_deref() }));
}

/// An error showed that the peer is a replica; of whom, it did not say.
#[cold]
pub fn emit_replica(out: &mut Out<'_>) {
    emit_role(&Told { role: Role::Replica, follows: None }, out);
}

fn told_slots(shape: Shape<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
    match shape {
        Shape::Value(reply) => {
            if let Some(shards) = topology::shards(reply) {
                out.events.emit(Event::Fact(Fact::Topology(&shards)));
            }
        }
        Shape::Error(text) if split_error(text).1.starts_with(b"This instance has cluster support disabled") => {
            let message =
                "the server is no node of a cluster: open it as redis://, or start it with cluster-enabled yes";
            return Err(Fault { kind: FaultKind::Refused, message: message.into() });
        }
        _ => {}
    }
    Ok(())
}
