//! Looking a while before sleeping, as long as it pays.
//!
//! A wake through the system costs 5 to 90 µs; looking costs a processor. So a side looks for up to [`SPIN_MAX`] while
//! that has met something lately, stops when it has not, and tries again rarely.

use std::time::{Duration, Instant};

/// The longest look.
pub const SPIN_MAX: Duration = Duration::from_micros(50);
/// After this many looks in vain, none for a while.
const VAIN_MAX: u32 = 8;
/// How many sleeps until the next try, at least.
const PAUSE: u32 = 512;

/// What was learnt.
#[derive(Clone, Copy, Debug)]
pub struct Spin {
    vain: u32,
    pause: u32,
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
        Spin { vain: 0, pause: if alone { u32::MAX } else { 0 } }
    }

    /// Looks until `found` or the time is over; None when it does not pay at present. Otherwise what was learnt, and
    /// whether something was found.
    pub fn run(self, found: impl Fn() -> bool) -> Option<(Spin, bool)> {
        if self.pause > 0 {
            return None;
        }
        let start = Instant::now();
        loop {
            for _ in 0..16 {
                if found() {
                    return Some((Spin { vain: 0, pause: 0 }, true));
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= SPIN_MAX {
                let vain = self.vain + 1;
                let pause = if vain >= VAIN_MAX { PAUSE } else { 0 };
                return Some((Spin { vain: if pause > 0 { VAIN_MAX - 1 } else { vain }, pause }, false));
            }
        }
    }

    /// A sleep without a look.
    pub fn skipped(self) -> Spin {
        let pause = if self.pause == u32::MAX { u32::MAX } else { self.pause.saturating_sub(1) };
        Spin { pause, ..self }
    }
}
