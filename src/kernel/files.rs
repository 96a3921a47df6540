//! Spans of files that are sent from the file itself (sendfile(2)), without a copy in this process.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::line::Line;
use crate::proto::Span;
use crate::sys::file;
use crate::sys::owned::Owned;

/// Bytes that are read at once where the socket cannot be sent to directly.
const COPY_BYTES: usize = 64 << 10;

/// A span on its way. The descriptor is a duplicate: the program may close its own.
pub struct FileSpan {
    /// Why there is none.
    file: io::Result<Owned<File>>,
    offset: u64,
    pub left: u64,
}

impl FileSpan {
    pub fn new(span: Span) -> Self {
        FileSpan { file: file::duplicate(span.fd), offset: span.offset, left: span.length }
    }

    /// Sends some of it: bytes that the socket took, at most `budget`.
    pub fn send(&mut self, line: &mut Line, budget: usize) -> io::Result<usize> {
        let file = match &self.file {
            Ok(file) => file,
            Err(error) => return Err(io::Error::new(error.kind(), format!("the file to be sent: {error}"))),
        };
        let wanted = budget.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = match line.plain() {
            Some(socket) => file::send(socket, file.as_fd(), self.offset, wanted)?,
            None => {
                let mut buffer = vec![0; wanted.min(COPY_BYTES)];
                let read = file::read_at(file, &mut buffer, self.offset)?;
                if read == 0 { 0 } else { line.write(&buffer[..read])? }
            }
        };
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file to be sent is shorter than was said"));
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
