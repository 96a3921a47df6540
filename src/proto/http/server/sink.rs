//! Where a response is written: to the wire, or behind those before it.

use crate::proto::Span;

/// Bytes, and spans of files between them.
pub struct Sink<'a> {
    pub wire: &'a mut Vec<u8>,
    pub files: &'a mut Vec<(usize, Span)>,
}

impl Sink<'_> {
    pub fn file(&mut self, span: Span) {
        self.files.push((self.wire.len(), span));
    }
}

/// A response that waits for those before it.
#[derive(Debug, Default)]
pub struct Held {
    pub wire: Vec<u8>,
    pub files: Vec<(usize, Span)>,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty() && self.files.is_empty()
    }

    /// Moves everything to where it goes.
    pub fn flush(&mut self, sink: &mut Sink<'_>) {
        let start = sink.wire.len();
        sink.files.extend(self.files.drain(..).map(|(at, span)| (start + at, span)));
        sink.wire.append(&mut self.wire);
    }
}
