//! A conn after an upgrade or CONNECT: bytes both ways, or WebSocket messages.
use std::time::Instant;

use super::{closed, fault};
use crate::proto::http::talk::Talk;
use crate::proto::http::value::{Piece, bad_request, piece};
use crate::proto::http::wire::PIECE_BYTES_MAX;
use crate::proto::websocket::{Config, TOO_BIG};
use crate::proto::{Body, Emit, Event, Fault, FaultKind, Limits, Of, Out, Progress, Refusal, RequestId, Then};

pub struct Lane {
    pub id: RequestId,
    speech: Speech,
    /// The peer sends nothing more.
    peer_done: bool,
    /// The program sends nothing more.
    we_done: bool,
    /// The system has all that was sent.
    sent_all: bool,
}

enum Speech {
    Raw,
    WebSocket(Box<Talk>),
}

/// Who is told of a lane that nobody waits for.
struct Nobody;

impl Emit for Nobody {
    fn emit(&mut self, _: Event<'_>) {}
}

impl Lane {
    pub fn raw(id: RequestId) -> Self {
        Lane { id, speech: Speech::Raw, peer_done: false, we_done: false, sent_all: false }
    }

    pub fn websocket(id: RequestId, now: Instant, config: Config) -> Self {
        Lane { speech: Speech::WebSocket(Box::new(Talk::new(config, now))), ..Lane::raw(id) }
    }

    pub fn is_over(&self) -> bool {
        let peer_done = match &self.speech {
            Speech::Raw => self.peer_done,
            Speech::WebSocket(talk) => talk.is_over(),
        };
        peer_done && self.sent_all
    }

    /// A lane of bytes ends as its transport does, each way by itself; a WebSocket when both have said so.
    pub fn has_sent_all(&self) -> bool {
        match &self.speech {
            Speech::Raw => self.we_done,
            Speech::WebSocket(talk) => talk.is_over(),
        }
    }

    pub fn handle_sent_all(&mut self) {
        self.sent_all = true;
    }

    pub fn input(&mut self, now: Instant, input: &[u8], deaf: bool, out: &mut Out<'_>) -> Result<Progress, Fault> {
        let of = Of::Request(self.id);
        let events: &mut dyn Emit = if deaf { &mut Nobody } else { &mut *out.events };
        match &mut self.speech {
            Speech::Raw => {
                let data = &input[..input.len().min(PIECE_BYTES_MAX)];
                events.emit(Event::Chunk { of, body: Body::Bytes(data) });
                Ok(Progress::Consumed(data.len()))
            }
            Speech::WebSocket(talk) => talk.input(now, input, of, out.wire, events).map_err(|failure| {
                let kind = if failure.code == TOO_BIG { FaultKind::TooLarge } else { FaultKind::Protocol };
                fault(kind, format!("the server sent {}", failure.message))
            }),
        }
    }

    pub fn eof(&mut self, deaf: bool, out: &mut Out<'_>) -> Result<(), Fault> {
        let of = Of::Request(self.id);
        let events: &mut dyn Emit = if deaf { &mut Nobody } else { &mut *out.events };
        match &mut self.speech {
            Speech::Raw => {
                if !std::mem::replace(&mut self.peer_done, true) {
                    events.emit(Event::End { of, body: Body::Msgpack(b"\xc0") });
                }
                Ok(())
            }
            // It has said all that it had to say.
            Speech::WebSocket(talk) if talk.is_over() => Ok(()),
            Speech::WebSocket(talk) => {
                talk.lose(of, events);
                Err(fault(FaultKind::Closed, "the server closed the conn without closing the WebSocket"))
            }
        }
    }

    pub fn send(&mut self, now: Instant, body: &[u8], out: &mut Out<'_>) -> Result<Then, Refusal> {
        let piece = piece(body)?;
        if self.we_done {
            return Err(closed("the lane is closed"));
        }
        let then = match (&mut self.speech, piece) {
            (Speech::WebSocket(talk), piece) => talk.send(now, piece, out.wire)?,
            (Speech::Raw, Piece::Bytes(bytes) | Piece::Text(bytes)) => {
                out.wire.extend_from_slice(bytes);
                Then::Open
            }
            (Speech::Raw, Piece::Span(span)) => {
                if span.length > 0 {
                    out.files.push((out.wire.len(), span));
                }
                Then::Open
            }
            (Speech::Raw, Piece::End) => Then::Done,
            (Speech::Raw, Piece::Array(_) | Piece::Ping(_)) => {
                return Err(bad_request("a lane of bytes takes bytes"));
            }
        };
        self.we_done = then == Then::Done;
        Ok(then)
    }

    /// We leave, whatever the program wants.
    pub fn leave(&mut self, now: Instant, out: &mut Out<'_>) {
        if let Speech::WebSocket(talk) = &mut self.speech {
            talk.leave(now, out.wire);
        }
    }

    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        match &self.speech {
            Speech::WebSocket(talk) => Some(talk.deadline(limits)),
            Speech::Raw => None,
        }
    }

    pub fn beat(&mut self, now: Instant, limits: &Limits, out: &mut Out<'_>) -> Result<(), Fault> {
        let Speech::WebSocket(talk) = &mut self.speech else { return Ok(()) };
        talk.beat(now, limits, out.wire).map_err(|why| fault(FaultKind::Silent, format!("the server {why}")))
    }
}
