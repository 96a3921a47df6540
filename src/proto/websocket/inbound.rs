//! What the peer sends.

use std::ops::Range;

use super::deflate::Inflater;
use super::frame::{BINARY, CLOSE, CONTINUATION, CONTROL_MAX, Head, Mask, TEXT, broken, mask};
use super::utf8::Utf8;
use super::{Config, Failure, INVALID_DATA, Role, TOO_BIG, is_sendable};

/// Memory that an idle conn keeps for its next message.
const KEPT_MAX: usize = 64 << 10;
/// Bytes that are unmasked at a time before they are decompressed.
const PIECE: usize = 4 << 10;

/// What came of one step.
pub enum Came {
    Need(usize),
    /// A part of a message, or bytes that nobody looks at.
    Nothing {
        consumed: usize,
    },
    /// A whole message: `within` the input, or else in [`Inbound::message`].
    Message {
        consumed: usize,
        opcode: u8,
        within: Option<Range<usize>>,
    },
    /// The payload is in [`Inbound::control`].
    Control {
        consumed: usize,
        opcode: u8,
        length: usize,
    },
}

/// The reading half of a conn.
pub struct Inbound {
    role: Role,
    bytes_max: usize,
    inflater: Option<Inflater>,
    /// A data frame of which some bytes are missing.
    frame: Option<Frame>,
    /// A message of which frames are missing.
    message: Option<Message>,
    bytes: Vec<u8>,
    /// `bytes` were told: they can go.
    is_told: bool,
    control: [u8; CONTROL_MAX],
    /// The peer has closed or failed: nothing more is looked at.
    pub is_deaf: bool,
}

struct Frame {
    fin: bool,
    mask: Option<Mask>,
    taken: u64,
    left: u64,
}

struct Message {
    opcode: u8,
    compressed: bool,
    utf8: Utf8,
    /// Of the frames so far, as they are on the wire.
    wire_bytes: u64,
}

impl Inbound {
    pub fn new(config: &Config) -> Self {
        let inflater = config.deflate.map(|params| {
            Inflater::new(match config.role {
                Role::Client => !params.server_no_context_takeover,
                Role::Server => !params.client_no_context_takeover,
            })
        });
        Inbound {
            role: config.role,
            bytes_max: config.message_bytes_max,
            inflater,
            frame: None,
            message: None,
            bytes: Vec::new(),
            is_told: false,
            control: [0; CONTROL_MAX],
            is_deaf: false,
        }
    }

    /// The message that came.
    pub fn message(&self) -> &[u8] {
        &self.bytes
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The control frame's payload that came.
    pub fn control(&self, length: usize) -> &[u8] {
        &self.control[..length]
    }

    /// Nothing else will be looked at: an unfinished message is nobody's.
    pub fn silence(&mut self) {
        self.is_deaf = true;
        (self.message, self.inflater, self.bytes) = (None, None, Vec::new());
    }

    pub fn step(&mut self, input: &[u8]) -> Result<Came, Failure> {
        if std::mem::take(&mut self.is_told) {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_MAX);
        }
        if self.is_deaf {
            return Ok(if input.is_empty() { Came::Need(1) } else { Came::Nothing { consumed: input.len() } });
        }
        if self.frame.is_some() {
            return if input.is_empty() { Ok(Came::Need(1)) } else { self.payload(input, 0) };
        }
        match Head::read(input, self.role)? {
            Err(needed) => Ok(Came::Need(needed)),
            Ok((head, size)) if head.is_control() => self.control_frame(&head, input, size),
            Ok((head, size)) => self.data_frame(&head, input, size),
        }
    }

    /// A control frame is taken whole.
    fn control_frame(&mut self, head: &Head, input: &[u8], size: usize) -> Result<Came, Failure> {
        let length = head.length as usize;
        let consumed = size + length;
        let Some(payload) = input.get(size..consumed) else { return Ok(Came::Need(consumed)) };
        let control = &mut self.control[..length];
        control.copy_from_slice(payload);
        if let Some(key) = head.mask {
            mask(control, key, 0);
        }
        if head.opcode == CLOSE {
            check_close(control)?;
            self.silence();
        }
        Ok(Came::Control { consumed, opcode: head.opcode, length })
    }

    fn data_frame(&mut self, head: &Head, input: &[u8], size: usize) -> Result<Came, Failure> {
        let is_first = self.begin(head)?;
        let within = size..size.saturating_add(usize::try_from(head.length).unwrap_or(usize::MAX));
        if let Some(payload) = input.get(within.clone())
            && is_first
            && head.fin
            && !head.compressed
            && head.mask.is_none()
        {
            // Nothing of it need be copied.
            if head.opcode == TEXT && std::str::from_utf8(payload).is_err() {
                return Err(no_text());
            }
            self.message = None;
            return Ok(Came::Message { consumed: within.end, opcode: head.opcode, within: Some(within) });
        }
        self.frame = Some(Frame { fin: head.fin, mask: head.mask, taken: 0, left: head.length });
        self.payload(input, size)
    }

    /// Judges a data frame by the message that it begins or continues; whether it begins one.
    fn begin(&mut self, head: &Head) -> Result<bool, Failure> {
        let is_first = head.opcode != CONTINUATION;
        debug_assert!(!is_first || matches!(head.opcode, TEXT | BINARY));
        if head.compressed && (!is_first || self.inflater.is_none()) {
            return Err(broken("RSV1 is set where nothing is compressed"));
        }
        if is_first {
            if self.message.is_some() {
                return Err(broken("a message begins within another"));
            }
            let (opcode, compressed) = (head.opcode, head.compressed);
            self.message = Some(Message { opcode, compressed, utf8: Utf8::default(), wire_bytes: 0 });
        }
        let Some(message) = &mut self.message else { return Err(broken("a continuation of no message")) };
        message.wire_bytes = message.wire_bytes.saturating_add(head.length);
        let max = self.bytes_max as u64;
        // What cannot be compressed grows by some bytes a block.
        let slack = if message.compressed { max / 256 + 1024 } else { 0 };
        if message.wire_bytes > max.saturating_add(slack) {
            return Err(Failure { code: TOO_BIG, message: "a message beyond the limit" });
        }
        Ok(is_first)
    }

    /// Takes what is there of the frame's payload, which begins `at` in the input.
    fn payload(&mut self, input: &[u8], at: usize) -> Result<Came, Failure> {
        let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) else {
            return Err(broken("a payload of no frame"));
        };
        let available = &input[at..];
        let count = usize::try_from(frame.left).map_or(available.len(), |left| left.min(available.len()));
        let payload = &available[..count];
        let consumed = at + count;
        let begin = self.bytes.len();
        let taken = match &mut self.inflater {
            Some(inflater) if message.compressed => inflate(inflater, payload, frame, &mut self.bytes, self.bytes_max),
            _ => {
                self.bytes.extend_from_slice(payload);
                if let Some(key) = frame.mask {
                    mask(&mut self.bytes[begin..], key, frame.taken);
                }
                Ok(())
            }
        };
        // What came before an error is judged first, so that it makes no difference how the bytes were cut.
        let end = self.bytes.len().min(self.bytes_max);
        if message.opcode == TEXT && !message.utf8.feed(&self.bytes[begin..end]) {
            return Err(no_text());
        }
        taken?;
        frame.taken += count as u64;
        frame.left -= count as u64;
        if frame.left > 0 {
            return Ok(Came::Nothing { consumed });
        }
        let fin = frame.fin;
        self.frame = None;
        if fin { self.finish(consumed) } else { Ok(Came::Nothing { consumed }) }
    }

    /// The last frame of the message is complete.
    fn finish(&mut self, consumed: usize) -> Result<Came, Failure> {
        let Some(mut message) = self.message.take() else { return Err(broken("an end of no message")) };
        if let Some(inflater) = self.inflater.as_mut().filter(|_| message.compressed) {
            let begin = self.bytes.len();
            let ended = inflater.end(&mut self.bytes, self.bytes_max);
            let end = self.bytes.len().min(self.bytes_max);
            if message.opcode == TEXT && !message.utf8.feed(&self.bytes[begin..end]) {
                return Err(no_text());
            }
            ended?;
        }
        if !message.utf8.is_whole() {
            return Err(no_text());
        }
        self.is_told = true;
        Ok(Came::Message { consumed, opcode: message.opcode, within: None })
    }
}

/// Decompresses a piece of a payload.
fn inflate(
    inflater: &mut Inflater,
    payload: &[u8],
    frame: &Frame,
    bytes: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), Failure> {
    let Some(key) = frame.mask else { return inflater.piece(payload, bytes, bytes_max) };
    let mut at = frame.taken;
    let mut plain = [0; PIECE];
    for piece in payload.chunks(PIECE) {
        let plain = &mut plain[..piece.len()];
        plain.copy_from_slice(piece);
        mask(plain, key, at);
        inflater.piece(plain, bytes, bytes_max)?;
        at += piece.len() as u64;
    }
    Ok(())
}

fn no_text() -> Failure {
    Failure { code: INVALID_DATA, message: "text that is not UTF-8" }
}

/// A close frame's payload: nothing, or a code and a reason (RFC 6455, 5.5.1).
fn check_close(payload: &[u8]) -> Result<(), Failure> {
    let [first, second, reason @ ..] = payload else {
        return if payload.is_empty() { Ok(()) } else { Err(broken("a close frame of one byte")) };
    };
    if !is_sendable(u16::from_be_bytes([*first, *second])) {
        return Err(broken("a close frame with a code that may not be sent"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Failure { code: INVALID_DATA, message: "a reason of closing that is not UTF-8" });
    }
    Ok(())
}
