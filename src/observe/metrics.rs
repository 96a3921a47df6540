//! Handles on cells for a writer that is alone: plain loads and stores, no locked instruction.

use std::sync::atomic::{AtomicU64, Ordering};

use super::area::{Area, Spec};
use super::snapshot::{Kind, Merge};

/// Where whoever finds no room counts.
static NOWHERE: [AtomicU64; BOUNDS + 2] = [const { AtomicU64::new(0) }; BOUNDS + 2];

#[derive(Clone, Copy, Debug)]
pub struct Counter(&'static AtomicU64);

impl Counter {
    /// The series of that name and labels. A full area gives cells that nobody reads.
    pub fn new(area: Area, name: &str, help: &str, labels: &[(&str, &str)]) -> Self {
        let spec = Spec { help, ..Spec::new(Kind::Counter, name, labels) };
        Counter(&cells(area, &spec)[0])
    }

    #[inline]
    pub fn add(self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub fn get(self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Gauge(&'static AtomicU64);

impl Gauge {
    pub fn new(area: Area, name: &str, help: &str, labels: &[(&str, &str)], merge: Merge) -> Self {
        let unit = if name.ends_with("_seconds") { "seconds" } else { "" };
        let spec = Spec { help, merge, unit, ..Spec::new(Kind::Gauge, name, labels) };
        Gauge(&cells(area, &spec)[0])
    }

    pub fn set(self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// Bounds of latencies: 16 µs, 24, 32, 48, ... to 33.5 s.
const BOUNDS: usize = 2 * (LAST_OCTAVE - FIRST_OCTAVE) as usize + 1;
const FIRST_OCTAVE: u32 = 4;
const LAST_OCTAVE: u32 = 25;

/// Bounds of latencies in seconds: powers of two of a microsecond, and the middles between them.
pub fn latency_bounds() -> [f64; BOUNDS] {
    std::array::from_fn(|at| {
        let us = (1u64 << (FIRST_OCTAVE as usize + at / 2)) as f64;
        (if at % 2 == 1 { us * 1.5 } else { us }) / 1e6
    })
}

/// The bucket that a time falls into.
#[inline]
fn bucket(ns: u64) -> usize {
    let below = ns.div_ceil(1000).saturating_sub(1);
    let octave = u64::BITS - below.leading_zeros();
    if octave <= FIRST_OCTAVE {
        return 0;
    }
    // Between 2^(octave - 1) and 2^octave.
    let lower_half = below < 3 << (octave - 2);
    (2 * (octave - FIRST_OCTAVE) as usize - usize::from(lower_half)).min(BOUNDS)
}

/// A histogram of times.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    buckets: &'static [AtomicU64],
    sum: &'static AtomicU64,
}

impl Latency {
    pub fn new(area: Area, name: &str, help: &str, labels: &[(&str, &str)]) -> Self {
        let bounds = latency_bounds();
        let spec = Spec { help, unit: "seconds", bounds: &bounds, ..Spec::new(Kind::Histogram, name, labels) };
        let (buckets, sum) = cells(area, &spec).split_at(BOUNDS + 1);
        Latency { buckets, sum: &sum[0] }
    }

    #[inline]
    pub fn observe(self, ns: u64) {
        Counter(&self.buckets[bucket(ns)]).add(1);
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed)) + ns as f64 * 1e-9;
        self.sum.store(sum.to_bits(), Ordering::Relaxed);
    }
}

fn cells(area: Area, spec: &Spec<'_>) -> &'static [AtomicU64] {
    let cells = area.series(spec);
    debug_assert!(cells.as_ref().is_ok_and(|_| true) || cells.as_ref().is_err_and(|error| error.full), "{cells:?}");
    cells.unwrap_or(&NOWHERE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_whose_bound_it_keeps() {
        let bounds = latency_bounds();
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]));
        let slow = |ns: u64| bounds.iter().position(|bound| ns as f64 <= bound * 1e9 + 1e-6).unwrap_or(BOUNDS);
        let mut rng = fastrand::Rng::with_seed(7);
        let edges = bounds.iter().map(|bound| (bound * 1e9).round() as u64).flat_map(|ns| [ns - 1, ns, ns + 1]);
        let any = (0..100_000).map(|_| rng.u64(..) >> rng.u32(0..64));
        for ns in edges.chain(any).chain([0, 1, u64::MAX]) {
            assert_eq!(bucket(ns), slow(ns), "{ns}");
        }
    }
}
