//! CLOCK_MONOTONIC in nanoseconds, and the `Instant` of the same moment.

use std::time::{Duration, Instant};

/// Nanoseconds of CLOCK_MONOTONIC: what stamps in records mean.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec; CLOCK_MONOTONIC exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Turns nanoseconds of CLOCK_MONOTONIC into `Instant`s without asking the system again.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
    base_ns: u64,
}

impl Clock {
    pub fn start() -> Self {
        Clock { base: Instant::now(), base_ns: monotonic_ns() }
    }

    /// CLOCK_MONOTONIC at the start.
    pub fn started_ns(&self) -> u64 {
        self.base_ns
    }

    pub fn instant(&self, ns: u64) -> Instant {
        self.base + Duration::from_nanos(ns.saturating_sub(self.base_ns))
    }

    pub fn ns(&self, instant: Instant) -> u64 {
        self.base_ns + instant.saturating_duration_since(self.base).as_nanos() as u64
    }
}
