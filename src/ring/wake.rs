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

/// The sleeper looks at the flag for a while and needs no other wake.
pub const LOOKING: u32 = 3;

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

/// A descriptor that is readable between `raise` and `clear`.
pub trait Descriptor {
    fn raise(&self);
    fn clear(&self);
}

/// How a sleeper that may watch a descriptor is woken: the words of a region, and its descriptor.
pub struct Doze<'a, D> {
    /// How it sleeps.
    pub sleep: &'a AtomicU32,
    /// Not 0: the descriptor is readable.
    pub signalled: &'a AtomicU32,
    pub descriptor: &'a D,
}

impl<D: Descriptor> Doze<'_, D> {
    /// Makes the descriptor readable. The note comes after the deed: who reads the note can take the deed back.
    pub fn signal(&self) {
        self.descriptor.raise();
        self.signalled.store(1, Ordering::Release);
    }

    /// Waker's side, after publishing. True if the sleeper waits on the word, which is then to be woken.
    #[inline]
    pub fn wake(&self) -> bool {
        match claim(self.sleep) {
            ON_FD => {
                self.signal();
                false
            }
            how => how == ON_WORD,
        }
    }

    /// Sleeper's side, when it has found nothing: makes the descriptor unreadable and asks to be told of the next cause.
    pub fn settle(&self, has_cause: impl FnOnce() -> bool) {
        if self.signalled.load(Ordering::Acquire) != 0 {
            self.signalled.store(0, Ordering::Relaxed);
            self.descriptor.clear();
        } else if self.sleep.load(Ordering::Relaxed) == ON_FD {
            return;
        }
        self.arm(has_cause);
    }

    /// Asks for a signal on the descriptor, and gives it at once if there is a cause already.
    pub fn arm(&self, has_cause: impl FnOnce() -> bool) {
        announce(self.sleep, ON_FD);
        // Whoever took the flag first also makes the descriptor readable.
        if has_cause() && withdraw(self.sleep) != AWAKE {
            self.signal();
        }
    }
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
        if claim(&self.flag) == ON_FD {
            self.event.signal();
        }
    }

    /// The sleeper: about to look at the bell, or to poll; look for work once more after this.
    pub fn announce(&self, how: u32) {
        announce(&self.flag, how);
    }

    /// The sleeper, after announcing `LOOKING` and finding no work: true if the bell rang within `span`. Otherwise the
    /// announcement stands as `ON_FD`, and it is to poll.
    ///
    /// It looks at the bell and not at the rings, so that a burst is taken as a whole: its end rings.
    pub fn look(&self, span: std::time::Duration) -> bool {
        let rang = || self.flag.load(Ordering::Acquire) == AWAKE;
        super::spin::look(std::time::Instant::now(), span, rang)
            || self.flag.compare_exchange(LOOKING, ON_FD, Ordering::SeqCst, Ordering::Acquire).is_err()
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
