//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692): what an HTTP conn speaks after its upgrade, either side.
//!
//! [`handshake`] reads and writes the heads of the upgrade; [`Codec`] is one conn after it. Both are bytes in, bytes out:
//! the HTTP sessions own them, and this folder knows nothing of those.
//!
//! ```text
//! loop {
//!     match codec.step(input, wire)? {          // an error: flush `wire`, close the conn
//!         Step::Need(count) => wait until the input has so many bytes,
//!         Step::Done { consumed, told } => input = &input[consumed..], and tell `told`,
//!     }
//!     if codec.is_over() { flush `wire`; a server closes the conn, a client waits for that a while (RFC 6455, 7.1.1) }
//! }
//! ```
//!
//! # The rules of the protocol
//! - A client masks every frame, a server none; the other way is an error (5.1).
//! - A message is one frame or several; control frames come between those, whole, and of 125 bytes at most (5.4, 5.5).
//! - Text is UTF-8, judged byte by byte as it arrives, across frames (8.1).
//! - Each side sends one close frame and nothing after it but pongs; what comes after the peer's is not looked at (5.5).

pub mod deflate;
mod extensions;
mod frame;
pub mod handshake;
mod inbound;
mod outbound;
#[cfg(test)]
mod tests;
mod utf8;

use frame::{PING, PONG, TEXT};
use inbound::{Came, Inbound};
use outbound::Outbound;

/// Which side we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// What a [`Codec`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub role: Role,
    /// Bytes of one message of the peer, as it is told: decompressed, and all its frames together.
    pub message_bytes_max: usize,
    /// What the handshake agreed on. None: nothing is compressed.
    pub deflate: Option<deflate::Params>,
    /// Randomness that nobody else knows, another for every conn: a client's masks are made of it (RFC 6455, 5.3).
    pub mask_seed: u64,
}

/// What came from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// A whole text message: valid UTF-8.
    Text(&'a [u8]),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// The pong to it is written.
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The peer sends nothing more. `code` is [`NO_CODE`] if it gave none. Our answer is written, unless we closed first.
    Close {
        code: u16,
        reason: &'a [u8],
    },
}

/// What one call of [`Codec::step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing yet: call again when the input has at least so many bytes, from the same start.
    Need(usize),
    /// So many bytes (more than 0) are done with; at most one frame was handled. A frame of a message may be taken in
    /// pieces, as they arrive.
    Done { consumed: usize, told: Option<Told<'a>> },
}

/// The peer broke the protocol or a limit. The close frame that says so is written: flush the wire, close the conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// [`PROTOCOL_ERROR`], [`INVALID_DATA`] or [`TOO_BIG`].
    pub code: u16,
    pub message: &'static str,
}

/// Why something was not sent. Nothing was written; the conn is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// The purpose is fulfilled (RFC 6455, 7.4.1).
pub const NORMAL: u16 = 1000;
/// We are leaving: a server that stops, a page that was left.
pub const GOING_AWAY: u16 = 1001;
pub const PROTOCOL_ERROR: u16 = 1002;
/// Never on the wire: a close frame without a code.
pub const NO_CODE: u16 = 1005;
/// Never on the wire: the conn was lost without a close frame.
pub const LOST: u16 = 1006;
/// Text that is no UTF-8, or compressed bytes that are none.
pub const INVALID_DATA: u16 = 1007;
pub const TOO_BIG: u16 = 1009;

/// One conn after the handshake, either side.
pub struct Codec {
    config: Config,
    inbound: Inbound,
    outbound: Outbound,
}

impl Codec {
    pub fn new(config: Config) -> Self {
        Codec { config, inbound: Inbound::new(&config), outbound: Outbound::new(&config) }
    }

    /// Handles at most one frame of `input`. Pongs, the answer to a close and the close of a failure are appended to
    /// `wire`. After a failure or the peer's close, everything is swallowed. The memory of what was told is given back
    /// by the next call, which may be one with an empty input.
    pub fn step<'a>(&'a mut self, input: &'a [u8], wire: &mut Vec<u8>) -> Result<Step<'a>, Failure> {
        let came = match self.inbound.step(input) {
            Ok(came) => came,
            Err(failure) => {
                self.inbound.silence();
                self.outbound.finish(failure.code, failure.message.as_bytes(), wire);
                return Err(failure);
            }
        };
        let (consumed, told) = match came {
            Came::Need(count) => return Ok(Step::Need(count)),
            Came::Nothing { consumed } => (consumed, None),
            Came::Message { consumed, opcode, within } => {
                let payload = within.map_or(self.inbound.message(), |within| &input[within]);
                (consumed, Some(if opcode == TEXT { Told::Text(payload) } else { Told::Binary(payload) }))
            }
            Came::Control { consumed, opcode, length } => {
                let payload = self.inbound.control(length);
                match opcode {
                    PING => {
                        // Also after our close, as long as the peer's has not come (5.5.2).
                        self.outbound.frame(PONG, payload, wire);
                        (consumed, Some(Told::Ping(payload)))
                    }
                    PONG => (consumed, Some(Told::Pong(payload))),
                    _ => {
                        let (code, reason) = read_close(payload);
                        self.outbound.finish(code, b"", wire);
                        (consumed, Some(Told::Close { code, reason }))
                    }
                }
            }
        };
        Ok(Step::Done { consumed, told })
    }

    /// Sends a text message, which must be UTF-8.
    pub fn text(&mut self, payload: &[u8], wire: &mut Vec<u8>) -> Result<(), Refused> {
        self.check_open()?;
        if std::str::from_utf8(payload).is_err() {
            return Err(Refused("a text message that is not UTF-8"));
        }
        self.outbound.message(TEXT, payload, wire);
        Ok(())
    }

    /// Sends a binary message.
    pub fn binary(&mut self, payload: &[u8], wire: &mut Vec<u8>) -> Result<(), Refused> {
        self.check_open()?;
        self.outbound.message(frame::BINARY, payload, wire);
        Ok(())
    }

    /// Sends a ping of 125 bytes at most.
    pub fn ping(&mut self, payload: &[u8], wire: &mut Vec<u8>) -> Result<(), Refused> {
        self.check_open()?;
        if payload.len() > frame::CONTROL_MAX {
            return Err(Refused("a ping of more than 125 bytes"));
        }
        self.outbound.frame(PING, payload, wire);
        Ok(())
    }

    /// Sends our close: nothing can be sent after it. The code is one that may be sent (1000 to 1003, 1007 to 1014, 3000
    /// to 4999), or [`NO_CODE`] with an empty reason; the reason is UTF-8 of 123 bytes at most.
    pub fn close(&mut self, code: u16, reason: &[u8], wire: &mut Vec<u8>) -> Result<(), Refused> {
        self.check_open()?;
        if code == NO_CODE && !reason.is_empty() {
            return Err(Refused("a reason of closing without a code"));
        }
        if code != NO_CODE && !is_sendable(code) {
            return Err(Refused("a code of closing that may not be sent"));
        }
        if reason.len() > frame::CONTROL_MAX - 2 {
            return Err(Refused("a reason of closing of more than 123 bytes"));
        }
        if std::str::from_utf8(reason).is_err() {
            return Err(Refused("a reason of closing that is not UTF-8"));
        }
        self.outbound.finish(code, reason, wire);
        Ok(())
    }

    fn check_open(&self) -> Result<(), Refused> {
        if self.outbound.is_closed { Err(Refused("the WebSocket is closing")) } else { Ok(()) }
    }

    /// Our close was sent.
    pub fn is_closing(&self) -> bool {
        self.outbound.is_closed
    }

    /// Both closes are done, or the conn failed: nothing more will be told or can be sent.
    pub fn is_over(&self) -> bool {
        self.outbound.is_closed && self.inbound.is_deaf
    }

    /// What it was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Codes that may stand in a close frame (7.4.2; the registry of IANA for 1012 to 1014).
fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The code and the reason of a close frame that was found valid.
fn read_close(payload: &[u8]) -> (u16, &[u8]) {
    match payload {
        [first, second, reason @ ..] => (u16::from_be_bytes([*first, *second]), reason),
        _ => (NO_CODE, b""),
    }
}
