//! permessage-deflate (RFC 7692): messages through it. What the handshake says of it is in [`super::extensions`].

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Failure, INVALID_DATA, TOO_BIG};

/// What both sides agreed on. Windows are of 32 KiB always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// The server compresses each message by itself.
    pub server_no_context_takeover: bool,
    /// The client compresses each message by itself.
    pub client_no_context_takeover: bool,
    /// The offer limited the server's window to 15 bits, which the answer has to repeat.
    pub server_max_window_bits: bool,
}

/// What ends the bytes of a flush: taken off before sending (RFC 7692, 7.2.1), put back on arrival (7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// Bytes below which a message is sent as it is: with what was sent before as context, even a short one shrinks.
const WORTHWHILE: usize = 64;
const WORTHWHILE_ALONE: usize = 256;
/// Room that is made for decompressed bytes at a time.
const PIECE: usize = 16 << 10;

/// Compresses what we send. Its state (some 300 KiB) is made with the first message that needs it.
pub struct Deflater {
    state: Option<Box<Compress>>,
    takeover: bool,
}

impl Deflater {
    pub fn new(takeover: bool) -> Self {
        Deflater { state: None, takeover }
    }

    /// Appends the compressed payload to `wire`, or nothing and says no, where that would gain nothing.
    pub fn message(&mut self, payload: &[u8], wire: &mut Vec<u8>) -> bool {
        if payload.len() < if self.takeover { WORTHWHILE } else { WORTHWHILE_ALONE } {
            return false;
        }
        // The fastest level: the one thread that serves every conn must not be held up.
        let state = self.state.get_or_insert_with(|| Box::new(Compress::new(Compression::fast(), false)));
        let begin = wire.len();
        let is_smaller = flush(state, payload, wire) && wire.len() - begin - TAIL.len() < payload.len();
        if is_smaller {
            wire.truncate(wire.len() - TAIL.len());
        } else {
            wire.truncate(begin);
        }
        // What is sent without compression is not in the peer's window, so it must not be in ours.
        if !is_smaller || !self.takeover {
            state.reset();
        }
        is_smaller
    }
}

/// Compresses to the end of a block. False: it does not end as it should.
fn flush(state: &mut Compress, payload: &[u8], wire: &mut Vec<u8>) -> bool {
    let begin = wire.len();
    let mut rest = payload;
    loop {
        wire.reserve(rest.len() / 2 + 1024);
        let (before_in, before_out) = (state.total_in(), state.total_out());
        if state.compress_vec(rest, wire, FlushCompress::Sync).is_err() {
            return false;
        }
        rest = &rest[(state.total_in() - before_in) as usize..];
        let is_moved = state.total_in() != before_in || state.total_out() != before_out;
        // Where room was left, nothing waits inside.
        if !is_moved || rest.is_empty() && wire.len() < wire.capacity() {
            return rest.is_empty() && wire[begin..].ends_with(&TAIL);
        }
    }
}

/// Decompresses what the peer sends. Its state (some 45 KiB) is made with the first compressed message.
pub struct Inflater {
    state: Option<Box<Decompress>>,
    takeover: bool,
    /// A block with BFINAL ended exactly here, so no flush follows (RFC 7692, 7.2.3.4).
    is_ended: bool,
}

impl Inflater {
    pub fn new(takeover: bool) -> Self {
        Inflater { state: None, takeover, is_ended: false }
    }

    /// Appends what a piece of a message decompresses to, but never more than `message` may hold.
    pub fn piece(&mut self, mut piece: &[u8], message: &mut Vec<u8>, bytes_max: usize) -> Result<(), Failure> {
        let state = self.state.get_or_insert_with(|| Box::new(Decompress::new(false)));
        loop {
            // One byte above the limit shows that there is more, so no more room is ever made.
            let room = PIECE.min((bytes_max - message.len()).saturating_add(1));
            message.reserve(room);
            let (before_in, before_out) = (state.total_in(), state.total_out());
            let status = state.decompress_vec(piece, message, FlushDecompress::Sync);
            piece = &piece[(state.total_in() - before_in) as usize..];
            let is_moved = state.total_in() != before_in || state.total_out() != before_out;
            let has_room = message.len() < message.capacity();
            if message.len() > bytes_max {
                return Err(Failure { code: TOO_BIG, message: "a message beyond the limit when decompressed" });
            }
            self.is_ended = matches!(status, Ok(Status::StreamEnd)) || self.is_ended && !is_moved;
            match status {
                Ok(Status::StreamEnd) => state.reset(false),
                Ok(_) if piece.is_empty() && has_room => return Ok(()),
                Ok(_) if is_moved => {}
                _ => return Err(Failure { code: INVALID_DATA, message: "compressed bytes that are not DEFLATE" }),
            }
        }
    }

    /// The message is over: appends the rest of it.
    pub fn end(&mut self, message: &mut Vec<u8>, bytes_max: usize) -> Result<(), Failure> {
        if !self.is_ended {
            self.piece(&TAIL, message, bytes_max)?;
        }
        self.is_ended = false;
        if let Some(state) = self.state.as_mut().filter(|_| !self.takeover) {
            state.reset(false);
        }
        Ok(())
    }
}
