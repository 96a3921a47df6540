//! Framing (RFC 9112): heads, and where a message ends.
//!
//! Both sides read strictly: whatever two readers could take for messages of different lengths is an error.

mod chunked;
mod head;
mod length;
mod syntax;
#[cfg(test)]
mod tests;
mod write;

pub use chunked::{Chunked, Part, is_trailer};
pub use head::{Bounds, Headers, Pairs, RequestLine, Response, Room, Scan, fields, request_line, status_line};
pub use length::{Framing, Length, number};
pub use syntax::{is_target, is_token, is_token_byte, is_value, lists, members};
pub use write::{chunk, chunk_head, decimal, field, last_chunk};

/// The most bytes of a body that one event carries.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// What is wrong with a message, and the status that tells a client so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub status: u16,
    pub what: &'static str,
}

impl Malformed {
    /// 400: nobody should have sent this.
    pub(super) const fn bad(what: &'static str) -> Self {
        Malformed { status: 400, what }
    }

    /// More than a limit allows.
    pub fn is_too_large(&self) -> bool {
        matches!(self.status, 413 | 414 | 431)
    }
}
