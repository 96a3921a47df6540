//! Looking a while before sleeping, where that pays.
//!
//! A wake through the system costs 2 to 90 µs; looking costs a processor, which the other side may need to get on with
//! it. Which is better depends on the machine, its load and the peer, so both are tried and the quicker is kept: each
//! wait is timed, and one in 512 is done the other way.

use std::time::{Duration, Instant};

/// The longest look.
pub const SPIN_MAX: Duration = Duration::from_micros(50);
/// One wait in so many tries the way that was slower before.
const PROBE: u32 = 512;
/// Waits beyond this say nothing of the ways: whatever was waited for took long by itself.
const LONG_NS: f32 = 300_000.0;
/// Weight of the newest wait.
const WEIGHT: f32 = 1.0 / 16.0;

/// What was learnt. Starts by looking.
#[derive(Clone, Copy, Debug)]
pub struct Spin {
    looking_ns: f32,
    sleeping_ns: f32,
    /// How many of the last waits were long, 0 to 1.
    long: f32,
    waits: u32,
    alone: bool,
}

impl Default for Spin {
    fn default() -> Self {
        Self::new()
    }
}

impl Spin {
    pub fn new() -> Self {
        // On one processor the other side cannot move while this one looks.
        let alone = crate::sys::thread::processors() == 1;
        Spin { looking_ns: 0.0, sleeping_ns: 0.0, long: 0.0, waits: 0, alone }
    }

    /// Shall this wait begin with a look?
    pub fn begin(&mut self) -> bool {
        self.waits = self.waits.wrapping_add(1);
        if self.alone || self.long > 0.5 {
            return !self.alone && self.waits.is_multiple_of(PROBE);
        }
        (self.looking_ns <= self.sleeping_ns) != self.waits.is_multiple_of(PROBE)
            // The first few waits fill in both figures.
            && !(2..8).contains(&self.waits)
    }

    /// A wait that began with a look, or not, has met what it waited for.
    pub fn end(&mut self, looked: bool, took: Duration) {
        let took = took.as_nanos() as f32;
        self.long += (f32::from(u8::from(took > LONG_NS)) - self.long) * WEIGHT;
        if took > LONG_NS {
            return;
        }
        let figure = if looked { &mut self.looking_ns } else { &mut self.sleeping_ns };
        *figure += (took - *figure) * if *figure == 0.0 { 1.0 } else { WEIGHT };
    }
}

/// Looks until `found`, for at most `span`. True if it was found.
pub fn look(start: Instant, span: Duration, found: impl Fn() -> bool) -> bool {
    loop {
        for _ in 0..16 {
            if found() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= span {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(spin: &mut Spin, looking_us: u64, sleeping_us: u64, count: u32) -> u32 {
        let mut looked = 0;
        for _ in 0..count {
            let looks = spin.begin();
            looked += u32::from(looks);
            spin.end(looks, Duration::from_micros(if looks { looking_us } else { sleeping_us }));
        }
        looked
    }

    #[test]
    fn the_quicker_way_is_kept_and_the_other_tried_rarely() {
        let mut spin = Spin { alone: false, ..Spin::new() };
        assert!(waits(&mut spin, 5, 40, 5_000) > 4_900);
        assert!(waits(&mut spin, 80, 40, 50_000) < 5_000, "a change of the machine is noticed");
        assert!(waits(&mut spin, 50_000, 50_000, 5_000) < 100, "long waits are slept through");
    }
}
