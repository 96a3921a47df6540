//! One client of the admin endpoint: its socket, what it asked, what it has still to read.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::Registry;

use super::Ticket;
use crate::kernel::dial::Stream;
use crate::kernel::wheel::TimerKey;
use crate::observe::http::{Event, HEAD_BYTES_MAX, Hosts, Session};

/// The longest answer, without its head.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes written to one client in a turn.
const WRITE_BUDGET: usize = 256 << 10;
/// What is read and thrown away from a client that has had its last answer.
const LINGER_BYTES_MAX: usize = 256 << 10;

/// What a client is waited for, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// For its next question.
    Idle,
    /// For the rest of a head.
    Head,
    /// For an answer of ours that comes later.
    Later,
    /// For it to read an answer.
    Writing,
    /// For it to close, so that its last answer is not lost with what it has sent in vain: RFC 9112, section 9.6.
    Linger,
}

impl Phase {
    pub fn limit_ms(self) -> u64 {
        match self {
            Phase::Idle => 60_000,
            Phase::Head | Phase::Later => 5_000,
            Phase::Writing => 10_000,
            Phase::Linger => 1_000,
        }
    }
}

/// How a look at the socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Done, or as far as the budget goes: there may be more.
    Go,
    /// An event comes when there is more.
    Wait,
    Gone,
}

pub struct Conn {
    stream: Stream,
    pub session: Session,
    out: Vec<u8>,
    written: usize,
    /// The answer that is not there yet.
    pub ticket: Option<Ticket>,
    readable: bool,
    writable: bool,
    at_eof: bool,
    lingered: Option<usize>,
    pub timer: TimerKey,
    /// What the timer is for, and after how many answers.
    pub timed: Option<(Phase, u64)>,
    pub answers: u64,
    /// Since when it owes us a question.
    pub idle_since_ns: u64,
}

impl Conn {
    pub fn new(stream: Stream, hosts: Hosts, now_ns: u64) -> Self {
        Conn {
            stream,
            session: Session::new(hosts),
            out: Vec::new(),
            written: 0,
            ticket: None,
            readable: true,
            writable: true,
            at_eof: false,
            lingered: None,
            timer: TimerKey::NONE,
            timed: None,
            answers: 0,
            idle_since_ns: now_ns,
        }
    }

    pub fn phase(&self) -> Phase {
        if self.lingered.is_some() {
            Phase::Linger
        } else if self.has_unread() {
            Phase::Writing
        } else if self.ticket.is_some() {
            Phase::Later
        } else if self.session.is_in_head() {
            Phase::Head
        } else {
            Phase::Idle
        }
    }

    /// It may be closed for the sake of another client.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase(), Phase::Idle | Phase::Head | Phase::Linger)
    }

    pub fn note(&mut self, event: &crate::sys::epoll::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_error();
    }

    fn has_unread(&self) -> bool {
        self.unread_bytes() > 0
    }

    pub fn unread_bytes(&self) -> usize {
        self.out.len() - self.written
    }

    pub fn answer(&mut self, status: u16, content_type: &str, body: &[u8], now_ns: u64) {
        self.ticket = None;
        self.answers += 1;
        self.idle_since_ns = now_ns;
        if body.len() > ANSWER_BYTES_MAX {
            let text = format!("the answer has {} bytes, more than {ANSWER_BYTES_MAX}\n", body.len());
            return self.session.answer(&mut self.out, 500, "text/plain; charset=utf-8", text.as_bytes());
        }
        self.session.answer(&mut self.out, status, content_type, body);
    }

    /// The next question, or why there is none for now.
    pub fn next(&mut self) -> Result<Event, Socket> {
        loop {
            match self.write() {
                Socket::Go if self.has_unread() => return Err(Socket::Go),
                Socket::Go => {}
                other => return Err(other),
            }
            if self.ticket.is_some() {
                return Err(Socket::Wait);
            }
            if self.session.is_closing() {
                return Err(self.linger());
            }
            if let Some(event) = self.session.poll() {
                return Ok(event);
            }
            match self.read() {
                Socket::Go => {}
                other => return Err(other),
            }
        }
    }

    fn write(&mut self) -> Socket {
        let mut budget = WRITE_BUDGET;
        while self.has_unread() && budget > 0 {
            if !self.writable {
                return Socket::Wait;
            }
            let end = self.out.len().min(self.written + budget);
            match self.stream.write(&self.out[self.written..end]) {
                Ok(0) => return Socket::Gone,
                Ok(count) => {
                    self.written += count;
                    budget -= count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Socket::Gone,
            }
        }
        if !self.has_unread() && self.written > 0 {
            // Large answers are rare: their memory is not kept.
            (self.out, self.written) = (Vec::new(), 0);
        }
        Socket::Go
    }

    /// Reads no more than the session takes.
    fn read(&mut self) -> Socket {
        let mut bytes = [0; HEAD_BYTES_MAX];
        let room = self.session.room();
        match self.read_once(&mut bytes[..room]) {
            Ok(count) => {
                self.session.handle_input(&bytes[..count]);
                Socket::Go
            }
            Err(other) => other,
        }
    }

    fn read_once(&mut self, bytes: &mut [u8]) -> Result<usize, Socket> {
        loop {
            if self.at_eof {
                return Err(Socket::Gone);
            }
            if !self.readable {
                return Err(Socket::Wait);
            }
            match self.stream.read(bytes) {
                Ok(0) => self.at_eof = true,
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Socket::Gone),
            }
        }
    }

    fn linger(&mut self) -> Socket {
        if self.lingered.is_none() {
            let _ = self.stream.shutdown(Shutdown::Write);
            self.lingered = Some(0);
        }
        let mut bytes = [0; HEAD_BYTES_MAX];
        loop {
            match self.read_once(&mut bytes) {
                Ok(count) => {
                    let total = self.lingered.unwrap_or_default() + count;
                    self.lingered = Some(total);
                    if total > LINGER_BYTES_MAX {
                        return Socket::Gone;
                    }
                }
                Err(other) => return other,
            }
        }
    }

    pub fn close(mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.stream);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
