//! The way to a peer once it stands: a socket, and TLS over it where the URL says so.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};

use super::dial::Stream;
use super::tls::Session;

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    /// None, and yet no end: what came was TLS's own.
    pub bytes: usize,
    /// More may be there already. Else the next bytes come with an event of their own.
    pub more: bool,
    /// The peer has sent everything that it will ever send, and has said so where it can.
    pub closed: bool,
}

pub struct Line {
    pub socket: Stream,
    session: Option<Box<Session>>,
}

impl From<Stream> for Line {
    fn from(socket: Stream) -> Self {
        Line { socket, session: None }
    }
}

impl Line {
    pub fn secure(socket: Stream, session: Session) -> Self {
        Line { socket, session: Some(Box::new(session)) }
    }

    pub fn is_secure(&self) -> bool {
        self.session.is_some()
    }

    /// Reads once. Over TLS, `buffer` is where ciphertext is read to as well: it must have room for a few records.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Got> {
        match &mut self.session {
            Some(session) => session.read(&mut self.socket, buffer),
            None => {
                let bytes = self.socket.read(buffer)?;
                Ok(Got { bytes, more: bytes == buffer.len(), closed: bytes == 0 })
            }
        }
    }

    /// Takes some of the bytes. Over TLS, what was taken may still wait: see [`Line::settle`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            Some(session) => session.write(&mut self.socket, bytes),
            None => self.socket.write(bytes),
        }
    }

    /// Nothing that was taken waits.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.is_settled())
    }

    /// Writes what was taken and waits.
    pub fn settle(&mut self) -> io::Result<()> {
        match &mut self.session {
            Some(session) => session.settle(&mut self.socket),
            None => Ok(()),
        }
    }

    /// The socket, where what is written goes to it as it is.
    pub fn plain(&self) -> Option<BorrowedFd<'_>> {
        self.session.is_none().then(|| self.socket.as_fd())
    }

    /// Tells the peer that nothing more comes; what it sends is still read.
    pub fn end_sending(&mut self) {
        if let Some(session) = &mut self.session {
            session.say_goodbye(&mut self.socket);
        }
        // A goodbye that waits for room has still to be written; who reads TLS hears of the end there anyway.
        if self.is_settled() {
            // One that is gone already shows that when it is read.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Ends it. `whole`: everything that was to be sent was, and the peer may know that.
    pub fn close(&mut self, whole: bool) {
        if let Some(session) = self.session.as_mut().filter(|_| whole) {
            session.say_goodbye(&mut self.socket);
        }
        // A forked child holds the socket too, so that closing it here would not tell the peer.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
