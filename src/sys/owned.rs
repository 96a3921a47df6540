//! Descriptors that are the library's own. A forked child closes its copies before anything else runs in it, and
//! nothing in a child ever closes them again: their numbers may be somebody else's by then.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::fork;

/// Descriptors that one object may bring along.
const FDS_MAX: usize = 3;
const NONE: RawFd = -1;

/// An object that owns descriptors. It is made and dropped while nobody can fork, so that a child never has a
/// descriptor of ours that it does not know as such.
pub struct Owned<T> {
    inner: ManuallyDrop<T>,
    fds: [RawFd; FDS_MAX],
    epoch: u32,
}

impl<T: AsRawFd> Owned<T> {
    /// Takes what `open` makes. It must neither block nor fork.
    pub fn make(open: impl FnOnce() -> io::Result<T>) -> io::Result<Self> {
        Owned::with(|| {
            let inner = open()?;
            let fd = inner.as_raw_fd();
            Ok((inner, [fd, NONE, NONE]))
        })
    }
}

impl<T> Owned<T> {
    /// Takes an object with the descriptors that are closed when it is dropped, beside those that are `Owned` inside.
    pub fn with<E>(open: impl FnOnce() -> Result<(T, [RawFd; FDS_MAX]), E>) -> Result<Self, E> {
        fork::exclusive(|| {
            let (inner, fds) = open()?;
            fds.iter().for_each(|fd| fork::mark(*fd));
            Ok(Owned { inner: ManuallyDrop::new(inner), fds, epoch: fork::epoch() })
        })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.epoch != fork::epoch() {
            return;
        }
        fork::exclusive(|| {
            self.fds.iter().for_each(|fd| fork::unmark(*fd));
            // SAFETY: dropped here alone, once, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        });
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Owned<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: AsFd> AsFd for Owned<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: fmt::Debug> fmt::Debug for Owned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
