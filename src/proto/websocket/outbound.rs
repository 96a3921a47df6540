//! What we send.

use super::deflate::Deflater;
use super::frame::{CLOSE, HEAD_MAX, Head, Masks, mask};
use super::{Config, NO_CODE, Role};

/// The writing half of a conn.
pub struct Outbound {
    /// A client's.
    masks: Option<Masks>,
    deflater: Option<Deflater>,
    /// A close frame was written: nothing but pongs is.
    pub is_closed: bool,
}

impl Outbound {
    pub fn new(config: &Config) -> Self {
        let is_client = config.role == Role::Client;
        let deflater = config.deflate.map(|params| {
            let alone = if is_client { params.client_no_context_takeover } else { params.server_no_context_takeover };
            Deflater::new(!alone)
        });
        Outbound { masks: is_client.then(|| Masks::new(config.mask_seed)), deflater, is_closed: false }
    }

    /// A whole message, compressed where that helps.
    pub fn message(&mut self, opcode: u8, payload: &[u8], wire: &mut Vec<u8>) {
        let Some(deflater) = &mut self.deflater else { return self.frame(opcode, payload, wire) };
        // The head's size is known once the payload's is, so room for the longest is left before it.
        let begin = wire.len();
        wire.resize(begin + HEAD_MAX, 0);
        if !deflater.message(payload, wire) {
            wire.truncate(begin);
            return self.frame(opcode, payload, wire);
        }
        let length = (wire.len() - begin - HEAD_MAX) as u64;
        let key = self.masks.as_mut().map(Masks::next);
        let (head, size) = Head { opcode, fin: true, compressed: true, mask: key, length }.bytes();
        wire.copy_within(begin + HEAD_MAX.., begin + size);
        wire.truncate(begin + size + length as usize);
        wire[begin..begin + size].copy_from_slice(&head[..size]);
        if let Some(key) = key {
            mask(&mut wire[begin + size..], key, 0);
        }
    }

    /// One frame that is not compressed.
    pub fn frame(&mut self, opcode: u8, payload: &[u8], wire: &mut Vec<u8>) {
        let key = self.masks.as_mut().map(Masks::next);
        let length = payload.len() as u64;
        let (head, size) = Head { opcode, fin: true, compressed: false, mask: key, length }.bytes();
        wire.extend_from_slice(&head[..size]);
        let begin = wire.len();
        wire.extend_from_slice(payload);
        if let Some(key) = key {
            mask(&mut wire[begin..], key, 0);
        }
    }

    /// The one close frame.
    pub fn finish(&mut self, code: u16, reason: &[u8], wire: &mut Vec<u8>) {
        if self.is_closed {
            return;
        }
        let mut payload = Vec::new();
        if code != NO_CODE {
            payload.extend(code.to_be_bytes());
            payload.extend(reason);
        }
        self.frame(CLOSE, &payload, wire);
        self.is_closed = true;
        // Nothing is compressed after it.
        self.deflater = None;
    }
}
