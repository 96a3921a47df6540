//! CLOCK_MONOTONIC in nanoseconds, and the `Instant` of the same moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// How often the offset between the two clocks is measured anew, in nanoseconds.
const OFFSET_NS: u64 = 10_000_000_000;

/// Turns nanoseconds of CLOCK_MONOTONIC into the time of day. The offset is measured when it is needed and older than
/// 10 s, so that a step of the system's clock shows in what is told after it, and never within one span.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnixClock {
    offset_ns: u64,
    /// When it was measured; 0: never.
    measured_ns: u64,
}

impl UnixClock {
    /// What to add to a stamp of CLOCK_MONOTONIC for nanoseconds since 1970. `now_ns`: CLOCK_MONOTONIC.
    pub fn offset_ns(&mut self, now_ns: u64) -> u64 {
        if self.measured_ns == 0 || now_ns.saturating_sub(self.measured_ns) > OFFSET_NS {
            (self.offset_ns, self.measured_ns) = (measure(), now_ns);
        }
        self.offset_ns
    }
}

/// Of three looks the quickest: a thread that loses its processor between the clocks takes no harm from it.
fn measure() -> u64 {
    let look = || {
        let before = monotonic_ns();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let took = monotonic_ns() - before;
        (took, unix.saturating_sub(before + took / 2))
    };
    [look(), look(), look()].into_iter().min().map_or(0, |(_, offset)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_leads_to_the_time_of_day_and_is_measured_anew_after_a_while() {
        let mut clock = UnixClock::default();
        let now_ns = monotonic_ns();
        let told = now_ns + clock.offset_ns(now_ns);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(unix.abs_diff(told) < 1_000_000_000, "{unix} and {told}");
        clock.offset_ns = 7;
        assert_eq!(clock.offset_ns(now_ns + OFFSET_NS), 7);
        assert_ne!(clock.offset_ns(now_ns + OFFSET_NS + 1), 7);
    }
}
