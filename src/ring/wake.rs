//! Waking a sleeper without a system call while it is awake.
//!
//! The sleeper raises its flag, then looks once more; the waker publishes, then looks at the flag. A sequentially
//! consistent fence stands between the two steps on both sides, so that at least one of them sees the other.

use super::atomic::{AtomicU32, Ordering, fence};

/// Nobody sleeps.
pub const AWAKE: u32 = 0;
/// The sleeper waits on a file descriptor.
pub const ON_FD: u32 = 1;
/// The sleeper waits on the flag itself.
pub const ON_WORD: u32 = 2;

/// Sleeper's side: announces that it is about to sleep. It must then look for work once more before it does.
#[inline]
pub fn announce(flag: &AtomicU32, how: u32) {
    flag.store(how, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Sleeper's side: it is awake after all. What the flag was: `AWAKE` if a waker came first.
#[inline]
pub fn withdraw(flag: &AtomicU32) -> u32 {
    flag.swap(AWAKE, Ordering::Relaxed)
}

/// Waker's side, after publishing: how the sleeper is to be woken, `AWAKE` for not at all. Each sleep is answered once.
#[inline]
pub fn claim(flag: &AtomicU32) -> u32 {
    fence(Ordering::SeqCst);
    if flag.load(Ordering::Relaxed) == AWAKE { AWAKE } else { flag.swap(AWAKE, Ordering::Relaxed) }
}

/// Rings for a thread that sleeps in its poll loop.
#[cfg(not(loom))]
pub struct Bell {
    flag: AtomicU32,
    event: crate::sys::event::EventFd,
}

#[cfg(not(loom))]
impl Bell {
    pub fn new() -> std::io::Result<Self> {
        Ok(Bell { flag: AtomicU32::new(AWAKE), event: crate::sys::event::EventFd::new()? })
    }

    /// Wakes the sleeper if it sleeps. What is to be seen was published before.
    #[inline]
    pub fn ring(&self) {
        if claim(&self.flag) != AWAKE {
            self.event.signal();
        }
    }

    /// The sleeper: about to poll; look once more after this.
    pub fn announce(&self) {
        announce(&self.flag, ON_FD);
    }

    /// The sleeper: awake.
    pub fn withdraw(&self) {
        withdraw(&self.flag);
    }

    /// What to register, edge-triggered: it is never cleared.
    pub fn event(&self) -> &crate::sys::event::EventFd {
        &self.event
    }
}
