//! Router, discovery and the Redis session in a world without threads, sockets or real time.
//!
//! Every decision comes from a seed: `SIM_SEED=7 SIM_STEPS=20000 cargo test --test simulation` replays one run, and
//! `SIM_TRACE=1` prints what happens in it. `SIM_PROFILE=3` chooses how the endpoint is opened, which is the seed's own
//! choice otherwise. `IOKERNEL_SOAK=1` runs twenty times as much.
//!
//! * [`world`]: the clock, the queue of events, a step; [`kernel`], [`acts`] and [`io`]: what the I/O thread does for a
//!   request and a conn; [`net`]: byte streams that are late, cut and silent.
//! * [`server`], [`resp`], [`cluster`]: servers; [`names`]: DNS and Sentinel; [`faults`]: what goes wrong.
//! * [`program`]: what is asked; [`profile`]: of which endpoints; [`check`]: what must hold after each step.

mod acts;
mod check;
mod cluster;
mod faults;
mod io;
mod kernel;
mod names;
mod net;
mod profile;
mod program;
mod resp;
mod server;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Figures, World};

/// Steps of one seed.
const STEPS: u64 = 10_000;
const SEEDS: u64 = 160;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// One run. What was wrong, if anything was.
fn run(seed: u64, steps: u64) -> Result<Figures, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, number("SIM_PROFILE").map(|profile| profile as usize));
        world.run(steps);
        world.figures()
    }));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        format!("SIM_SEED={seed} SIM_STEPS={steps}: {}", text.unwrap_or_default())
    })
}

/// Runs seeds on as many threads as there are cores; each world is a thread's own.
fn run_all(seeds: std::ops::Range<u64>, steps: u64) -> (Figures, Vec<String>) {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new((Figures::default(), Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed, steps);
            let mut sum = sum.lock().unwrap();
            match outcome {
                Ok(figures) => sum.0.add(&figures),
                Err(why) => sum.1.push(why),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    sum.into_inner().unwrap()
}

#[test]
fn what_must_hold_holds_after_each_step() {
    let soak = if number("IOKERNEL_SOAK").is_some() { 20 } else { 1 };
    let steps = number("SIM_STEPS").unwrap_or(STEPS);
    let first = number("SIM_FIRST").unwrap_or(1);
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("SIM_SEEDS").unwrap_or(SEEDS * soak),
    };
    let begun = std::time::Instant::now();
    let (figures, failed) = run_all(seeds, steps);
    println!("{figures} in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for profile in 0..profile::PROFILES.len() {
        let trace = || {
            let mut world = World::new(4711 + profile as u64, Some(profile));
            world.run(3000);
            world.trace
        };
        assert_eq!(trace(), trace(), "profile {profile}");
    }
}
