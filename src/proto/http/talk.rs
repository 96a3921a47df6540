//! A conn that speaks WebSocket, on either side: messages both ways, heartbeats, and the two closes.
//!
//! The program sends `str`, `bin`, `{"ping": bytes}`, and, to close, `[code, reason]` or nil. It is told messages as pieces
//! and the peer's close as an end: `[code, reason]`.
use std::time::Instant;

use super::value::{Piece, bad_request, malformed, text};
use crate::proto::websocket::{Codec, Config, Failure, GOING_AWAY, LOST, NO_CODE, NORMAL, Step, Told};
use crate::proto::{Body, Emit, Event, Limits, Of, Progress, Refusal, Then};
use crate::value::{Reader, Token, write};

pub struct Talk {
    codec: Codec,
    /// When the peer said something last, as far as heartbeats are concerned.
    heard: Instant,
    /// It has been pinged since, and may take its time to answer.
    pinged: bool,
    /// When our close was written.
    closed: Option<Instant>,
    /// Its end was told.
    ended: bool,
}

impl Talk {
    pub fn new(config: Config, now: Instant) -> Self {
        Talk { codec: Codec::new(config), heard: now, pinged: false, closed: None, ended: false }
    }

    /// Both closes are done, or the peer broke the protocol: nothing more will be told or can be sent.
    pub fn is_over(&self) -> bool {
        self.codec.is_over()
    }

    /// Takes at most one frame. What has to be answered at once goes to `wire`; a failure leaves our close there.
    pub fn input(
        &mut self,
        now: Instant,
        input: &[u8],
        of: Of,
        wire: &mut Vec<u8>,
        events: &mut dyn Emit,
    ) -> Result<Progress, Failure> {
        (self.heard, self.pinged) = (now, false);
        let (consumed, told) = match self.codec.step(input, wire)? {
            Step::Need(bytes) => return Ok(Progress::Need(bytes)),
            Step::Done { consumed, told } => (consumed, told),
        };
        match told {
            Some(Told::Text(text)) => events.emit(Event::Chunk { of, body: Body::Text(text) }),
            Some(Told::Binary(bytes)) => events.emit(Event::Chunk { of, body: Body::Bytes(bytes) }),
            Some(Told::Close { code, reason }) => {
                self.ended = true;
                end(of, code, reason, events);
            }
            Some(Told::Ping(_) | Told::Pong(_)) | None => {}
        }
        Ok(Progress::Consumed(consumed))
    }

    /// The peer is gone without a close, or broke the protocol: `code` says which. Told once.
    pub fn end(&mut self, of: Of, code: u16, reason: &[u8], events: &mut dyn Emit) {
        if !std::mem::replace(&mut self.ended, true) {
            end(of, code, reason, events);
        }
    }

    /// As [`Talk::end`], for a peer that is gone.
    pub fn lose(&mut self, of: Of, events: &mut dyn Emit) {
        self.end(of, LOST, b"", events);
    }

    /// Sends what the program says. `Done`: it was a close.
    pub fn send(&mut self, now: Instant, piece: Piece<'_>, wire: &mut Vec<u8>) -> Result<Then, Refusal> {
        let sent = match piece {
            Piece::Text(text) => self.codec.text(text, wire),
            Piece::Bytes(bytes) => self.codec.binary(bytes, wire),
            Piece::Ping(payload) => self.codec.ping(payload, wire),
            Piece::End => self.codec.close(NORMAL, b"", wire),
            Piece::Array(mut reader) => {
                let (code, reason) = goodbye(&mut reader)?;
                self.codec.close(code, reason, wire)
            }
            Piece::Span(_) => return Err(bad_request("a WebSocket takes no files")),
        };
        sent.map_err(|refused| bad_request(refused.0))?;
        if !self.codec.is_closing() {
            return Ok(Then::Open);
        }
        self.closed.get_or_insert(now);
        Ok(Then::Done)
    }

    /// We leave, whatever the program wants (RFC 6455, 7.4.1: 1001).
    pub fn leave(&mut self, now: Instant, wire: &mut Vec<u8>) {
        // It may be closing already.
        let _ = self.codec.close(GOING_AWAY, b"", wire);
        self.closed.get_or_insert(now);
    }

    /// When to call [`Talk::beat`].
    pub fn deadline(&self, limits: &Limits) -> Instant {
        match self.closed {
            // RFC 6455, 7.1.1: who has closed waits for the peer's close only so long.
            Some(closed) => closed + limits.silence_max,
            None if self.pinged => self.heard + limits.heartbeat + limits.silence_max,
            None => self.heard + limits.heartbeat,
        }
    }

    /// Pings a silent peer, once; then it has its time to say something. An error: it did not.
    pub fn beat(&mut self, now: Instant, limits: &Limits, wire: &mut Vec<u8>) -> Result<(), &'static str> {
        if self.deadline(limits) > now {
            return Ok(());
        }
        match (self.closed, self.pinged) {
            (Some(_), _) => Err("did not answer a close"),
            (None, true) => Err("did not answer a ping"),
            (None, false) => {
                self.pinged = true;
                self.heard = now.checked_sub(limits.heartbeat).unwrap_or(now);
                // Refused only where we have closed.
                let _ = self.codec.ping(b"", wire);
                Ok(())
            }
        }
    }
}

fn end(of: Of, code: u16, reason: &[u8], events: &mut dyn Emit) {
    let mut payload = Vec::new();
    write::array(&mut payload, 2);
    write::uint(&mut payload, code.into());
    write::str(&mut payload, reason);
    events.emit(Event::End { of, body: Body::Msgpack(&payload) });
}

/// `[code, reason]`; nil, or nothing in the reason's place, where there is none.
fn goodbye<'a>(reader: &mut Reader<'a>) -> Result<(u16, &'a [u8]), Refusal> {
    let Token::Array(count @ 1..=2) = reader.token().map_err(malformed)? else {
        return Err(bad_request("a WebSocket is closed with [code, reason]"));
    };
    let code = match reader.token().map_err(malformed)? {
        Token::Nil => Some(NO_CODE),
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
