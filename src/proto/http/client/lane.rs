//! A conn after an upgrade or CONNECT: bytes both ways, or WebSocket messages.
use std::time::Instant;

use super::{closed, fault};
use crate::proto::http::value::{Piece, bad_request, malformed, piece, text};
use crate::proto::http::wire::PIECE_BYTES_MAX;
use crate::proto::websocket::{self, Codec, Config, Role, Step, TOO_BIG, Told, deflate};
use crate::proto::{Body, Event, Fault, FaultKind, Limits, Of, Out, Progress, Refusal, RequestId, Then};
use crate::value::{Reader, Token, write};

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
    WebSocket { codec: Box<Codec>, heard: Instant, pinged: bool },
}

impl Lane {
    pub fn raw(id: RequestId) -> Self {
        Lane { id, speech: Speech::Raw, peer_done: false, we_done: false, sent_all: false }
    }

    pub fn websocket(
        id: RequestId,
        now: Instant,
        deflate: Option<deflate::Params>,
        mask_seed: u64,
        limits: &Limits,
    ) -> Self {
        let config = Config { role: Role::Client, message_bytes_max: limits.message_bytes_max, deflate, mask_seed };
        let speech = Speech::WebSocket { codec: Box::new(Codec::new(config)), heard: now, pinged: false };
        Lane { id, speech, peer_done: false, we_done: false, sent_all: false }
    }

    pub fn is_over(&self) -> bool {
        self.peer_done && self.sent_all
    }

    /// A lane of bytes ends as its transport does, each way by itself; a WebSocket when both have said so.
    pub fn has_sent_all(&self) -> bool {
        match &self.speech {
            Speech::Raw => self.we_done,
            Speech::WebSocket { codec, .. } => self.peer_done && codec.is_over(),
        }
    }

    pub fn handle_sent_all(&mut self) {
        self.sent_all = true;
    }

    pub fn input(&mut self, now: Instant, input: &[u8], deaf: bool, out: &mut Out<'_>) -> Result<Progress, Fault> {
        let of = Of::Request(self.id);
        let (codec, heard, pinged) = match &mut self.speech {
            Speech::Raw => {
                let data = &input[..input.len().min(PIECE_BYTES_MAX)];
                if !deaf {
                    out.events.emit(Event::Chunk { of, body: Body::Bytes(data) });
                }
                return Ok(Progress::Consumed(data.len()));
            }
            Speech::WebSocket { codec, heard, pinged } => (codec, heard, pinged),
        };
        (*heard, *pinged) = (now, false);
        let step = codec.step(input, out.wire).map_err(|failure| {
            let kind = if failure.code == TOO_BIG { FaultKind::TooLarge } else { FaultKind::Protocol };
            fault(kind, format!("the server sent {}", failure.message))
        })?;
        let (consumed, told) = match step {
            Step::Need(bytes) => return Ok(Progress::Need(bytes)),
            Step::Done { consumed, told } => (consumed, told),
        };
        match told {
            Some(Told::Text(text)) if !deaf => out.events.emit(Event::Chunk { of, body: Body::Text(text) }),
            Some(Told::Binary(bytes)) if !deaf => out.events.emit(Event::Chunk { of, body: Body::Bytes(bytes) }),
            Some(Told::Close { code, reason }) => {
                self.peer_done = true;
                if !deaf {
                    end(of, code, reason, out);
                }
            }
            _ => {}
        }
        Ok(Progress::Consumed(consumed))
    }

    pub fn eof(&mut self, deaf: bool, out: &mut Out<'_>) -> Result<(), Fault> {
        if std::mem::replace(&mut self.peer_done, true) {
            return Ok(());
        }
        let of = Of::Request(self.id);
        match &self.speech {
            Speech::Raw if deaf => Ok(()),
            Speech::Raw => {
                out.events.emit(Event::End { of, body: Body::Msgpack(b"\xc0") });
                Ok(())
            }
            Speech::WebSocket { .. } => {
                if !deaf {
                    end(of, websocket::LOST, b"", out);
                }
                Err(fault(FaultKind::Closed, "the server closed the conn without closing the WebSocket"))
            }
        }
    }

    pub fn send(&mut self, body: &[u8], out: &mut Out<'_>) -> Result<Then, Refusal> {
        let piece = piece(body)?;
        if self.we_done {
            return Err(closed("the lane is closed"));
        }
        let Speech::WebSocket { codec, .. } = &mut self.speech else {
            match piece {
                Piece::Bytes(bytes) | Piece::Text(bytes) => out.wire.extend_from_slice(bytes),
                Piece::Span(span) if span.length > 0 => out.files.push((out.wire.len(), span)),
                Piece::Span(_) => {}
                Piece::End => self.we_done = true,
                Piece::Array(_) | Piece::Ping(_) => return Err(bad_request("a lane of bytes takes bytes")),
            }
            return Ok(if self.we_done { Then::Done } else { Then::Open });
        };
        let sent = match piece {
            Piece::Text(text) => codec.text(text, out.wire),
            Piece::Bytes(bytes) => codec.binary(bytes, out.wire),
            Piece::Ping(payload) => codec.ping(payload, out.wire),
            Piece::End => codec.close(websocket::NORMAL, b"", out.wire),
            Piece::Array(mut reader) => {
                let (code, reason) = goodbye(&mut reader)?;
                codec.close(code, reason, out.wire)
            }
            Piece::Span(_) => return Err(bad_request("a WebSocket takes no files")),
        };
        sent.map_err(|refused| bad_request(refused.0))?;
        self.we_done = codec.is_closing();
        Ok(if self.we_done { Then::Done } else { Then::Open })
    }

    /// We leave, whatever the program wants.
    pub fn leave(&mut self, out: &mut Out<'_>) {
        if let Speech::WebSocket { codec, .. } = &mut self.speech {
            // It may be closing already.
            let _ = codec.close(websocket::GOING_AWAY, b"", out.wire);
        }
    }

    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        match &self.speech {
            Speech::WebSocket { heard, pinged: false, .. } => Some(*heard + limits.heartbeat),
            Speech::WebSocket { heard, pinged: true, .. } => Some(*heard + limits.heartbeat + limits.silence_max),
            Speech::Raw => None,
        }
    }

    /// Pings a silent peer, once; then it has its time to say something.
    pub fn beat(&mut self, now: Instant, limits: &Limits, out: &mut Out<'_>) -> Result<(), Fault> {
        let due = self.deadline(limits).is_some_and(|at| at <= now);
        let Speech::WebSocket { codec, heard, pinged } = &mut self.speech else { return Ok(()) };
        match (due, *pinged) {
            (false, _) => {}
            (true, true) => return Err(fault(FaultKind::Silent, "the server did not answer a ping")),
            (true, false) => {
                (*heard, *pinged) = (now - limits.heartbeat, true);
                // One that is closing has had its last word, and its time to answer that.
                let _ = codec.ping(b"", out.wire);
            }
        }
        Ok(())
    }
}

fn end(of: Of, code: u16, reason: &[u8], out: &mut Out<'_>) {
    let mut payload = Vec::new();
    write::array(&mut payload, 2);
    write::uint(&mut payload, u64::from(code));
    write::str(&mut payload, reason);
    out.events.emit(Event::End { of, body: Body::Msgpack(&payload) });
}

/// `[code, reason]`; the reason may be missing or nil.
fn goodbye<'a>(reader: &mut Reader<'a>) -> Result<(u16, &'a [u8]), Refusal> {
    let Token::Array(count @ 1..=2) = reader.token().map_err(malformed)? else {
        return Err(bad_request("a WebSocket is closed with [code, reason]"));
    };
    let code = match reader.token().map_err(malformed)? {
        Token::Int(code) => u16::try_from(code).ok(),
        _ => None,
    };
    let code = code.ok_or_else(|| bad_request("a code of closing is a number of four digits"))?;
    let reason = match (count, reader.clone().token()) {
        (1, _) | (_, Ok(Token::Nil)) => &b""[..],
        _ => text(reader.token().map_err(malformed)?, "a reason of closing")?,
    };
    Ok((code, reason))
}
