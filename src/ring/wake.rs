//! Waking a sleeper without a system call while it is awake.
//!
//! The sleeper raises its flag, then looks once more; the waker publishes, then looks at the flag. A sequentially
//! consistent fence stands between the two steps on both sides, so that at least one of them sees the other.

use super::atomic::{AtomicU32, Ordering, fence};
use crate::sys::event::EventFd;

/// Nobody sleeps.
pub const AWAKE: u32 = 0;
/// The sleeper waits on a file descriptor.
pub const ON_FD: u32 = 1;
/// The sleeper waits on the flag itself.
pub const ON_WORD: u32 = 2;

/// The sleeper looks at the flag for a while and needs no other wake.
pub const LOOKING: u32 = 3;
/// The program's thread leads the kernel's loop, and so sees what it publishes. Another thread that turns the loop
/// meanwhile finds the flag taken, and calls it.
pub const LEADING: u32 = 4;

/// Sleeper's side: announces that it is about to sleep. It must then look for work once more before it does.
#[inline]
pub fn announce(flag: &AtomicU32, how: u32) {
    // A swap, as everywhere: then the values of the flag follow one another in one order that no side mistakes.
    flag.swap(how, Ordering::Relaxed);
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

/// A descriptor that is readable while signals were raised and not read back.
pub trait Descriptor {
    fn raise(&self);
    /// Reads all of them back: how many there were.
    fn clear(&self) -> u64;
}

impl Descriptor for EventFd {
    fn raise(&self) {
        self.signal();
    }

    fn clear(&self) -> u64 {
        EventFd::clear(self)
    }
}

/// What a sleeper that may watch a descriptor knows of it. Its own, not shared.
#[derive(Debug, Default)]
pub struct Doze {
    /// The waker was asked for a signal on the descriptor, and was not seen to take that up.
    armed: bool,
    /// Signals that were taken up and not read back. Below 0 for a moment when one was read back before it was seen to
    /// be taken up.
    signals: i64,
}

impl Doze {
    /// Nothing was found: makes the descriptor unreadable and asks to be told of what comes next.
    pub fn settle(&mut self, flag: &AtomicU32, descriptor: &impl Descriptor, has_news: impl FnOnce() -> bool) {
        if self.armed && flag.load(Ordering::Relaxed) != ON_FD {
            (self.armed, self.signals) = (false, self.signals + 1);
        }
        // A signal that was taken up may not have arrived yet: then it is read back when it wakes the program.
        if self.signals > 0 {
            self.signals -= descriptor.clear() as i64;
        }
        if !self.armed {
            self.arm(flag, descriptor, has_news);
        }
    }

    /// Asks for a signal on the descriptor; gives it itself if there is something to tell already.
    pub fn arm(&mut self, flag: &AtomicU32, descriptor: &impl Descriptor, has_news: impl FnOnce() -> bool) {
        announce(flag, ON_FD);
        self.armed = true;
        if has_news() && !self.disarm(flag) {
            descriptor.raise();
            self.signals += 1;
        }
    }

    /// Takes the request for a signal back. True if the waker had taken it up first: then the signal comes.
    pub fn disarm(&mut self, flag: &AtomicU32) -> bool {
        let taken = self.armed && withdraw(flag) == AWAKE;
        self.armed = false;
        self.signals += i64::from(taken);
        taken
    }
}

/// Waker's side, after publishing, for a sleeper that may watch a descriptor. True if it waits on the flag, which is then
/// to be woken.
#[inline]
pub fn wake_dozer(flag: &AtomicU32, descriptor: &impl Descriptor) -> bool {
    let how = claim(flag);
    if how == ON_FD {
        descriptor.raise();
    }
    how == ON_WORD
}

/// Rings for a thread that sleeps in its poll loop.
pub struct Bell<D = EventFd> {
    flag: AtomicU32,
    event: D,
}

impl Bell {
    pub fn new() -> std::io::Result<Self> {
        Ok(Bell::with(EventFd::new()?))
    }
}

impl<D: Descriptor> Bell<D> {
    pub fn with(event: D) -> Self {
        Bell { flag: AtomicU32::new(AWAKE), event }
    }

    /// Wakes the sleeper if it sleeps. What is to be seen was published before.
    #[inline]
    pub fn ring(&self) {
        if claim(&self.flag) == ON_FD {
            self.event.raise();
        }
    }

    /// The sleeper: about to look at the bell, or to poll; look for work once more after this.
    pub fn announce(&self, how: u32) {
        announce(&self.flag, how);
    }

    /// The sleeper, after announcing `LOOKING` and finding no work: true if the bell rang within `span`. Otherwise the
    /// announcement stands as `ON_FD`, and it is to poll.
    ///
    /// It looks at the bell and not at the rings, so that a burst is taken as a whole: its end rings. Without a span it
    /// does not look at all.
    pub fn look(&self, span: std::time::Duration) -> bool {
        let rang = || self.has_rung();
        span.as_nanos() > 0 && super::spin::look(std::time::Instant::now(), span, rang)
            || self.flag.compare_exchange(LOOKING, ON_FD, Ordering::SeqCst, Ordering::Acquire).is_err()
    }

    /// The sleeper, after announcing: true if the bell rang since.
    pub fn has_rung(&self) -> bool {
        self.flag.load(Ordering::Acquire) == AWAKE
    }

    /// The sleeper: awake.
    pub fn withdraw(&self) {
        withdraw(&self.flag);
    }

    /// What to register, edge-triggered: it is never cleared.
    pub fn event(&self) -> &D {
        &self.event
    }
}
