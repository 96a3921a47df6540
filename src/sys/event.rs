//! eventfd: a file descriptor that is readable while its counter is not zero.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::owned::Owned;

/// Non-blocking, closed on exec.
#[derive(Debug)]
pub struct EventFd(Owned<OwnedFd>);

impl EventFd {
    pub fn new() -> io::Result<Self> {
        let open = || {
            // SAFETY: eventfd has no pointer arguments; a descriptor that it returns is owned by nobody else.
            let fd = super::check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
            // SAFETY: `fd` was just made and is owned here alone.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        Owned::make(open).map(EventFd)
    }

    /// Makes it readable. A counter that is full is readable already.
    pub fn signal(&self) {
        let one: u64 = 1;
        // SAFETY: eight readable bytes at `one`.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Makes it unreadable until the next signal. How many signals there were.
    pub fn clear(&self) -> u64 {
        let mut count: u64 = 0;
        // SAFETY: eight writable bytes at `count`.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
        count
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
