//! Sleep on a 32-bit word until another thread of this process changes it.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Woken, or the word was different already, or for no reason at all: look again.
    Look,
    TimedOut,
    /// A signal came.
    Interrupted,
}

/// A sleep without a limit would begin again by itself after a signal whose handler was set with SA_RESTART, as
/// `signal(2)` sets it; one with a limit never does.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// Sleeps while the word is `expected`, at most for `timeout`.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Woken {
    let span = timeout.unwrap_or(FOR_EVER).min(FOR_EVER);
    let span = libc::timespec { tv_sec: span.as_secs() as libc::time_t, tv_nsec: span.subsec_nanos().into() };
    let flags = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word lives as long as the borrow, and so does the timespec.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), flags, expected, &raw const span) };
    if result == 0 {
        return Woken::Look;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ETIMEDOUT) => Woken::TimedOut,
        Some(libc::EINTR) => Woken::Interrupted,
        _ => Woken::Look,
    }
}

/// Wakes the one thread that sleeps on the word.
pub fn wake(word: &AtomicU32) {
    let flags = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: only the address is used, to find the sleeper.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), flags, 1) };
}
