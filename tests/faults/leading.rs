//! Threads that wait turn the kernel's loop meanwhile: whatever ends that, others are served on.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::alone::alone;
use crate::client::{Kernel, LONG, PLAIN, With};
use crate::redis_or_skip;

/// How often the thread of that name has gone to sleep.
fn sleeps(name: &str) -> u64 {
    let task = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
        .expect("the kernel's own thread");
    let status = std::fs::read_to_string(task.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// What needs no socket is done by the thread that asks and waits; the own one is not woken for it.
#[test]
fn the_own_thread_sleeps_through_what_a_lent_one_does() {
    const ASKS: u64 = 5000;
    let kernel = Kernel::open("name=sleeps-through").unwrap();
    let mut channel = kernel.channel("").unwrap();
    let first = channel.ask(IOK_OP_ECHO, 0, PLAIN, b"x");
    channel.done(first).ok();
    let before = sleeps("sleeps-through");
    for _ in 0..ASKS {
        let tag = channel.ask(IOK_OP_ECHO, 0, PLAIN, b"x");
        assert_eq!(channel.done(tag).payload, b"x");
    }
    let slept = sleeps("sleeps-through") - before;
    assert!(slept < ASKS / 4, "the own thread woke {slept} times for {ASKS} asks");
}

/// Deadlines of one channel, while the thread of another leads, and after it has left.
#[test]
fn a_leader_keeps_the_time_of_others_and_so_does_who_comes_after_it() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut leading = kernel.channel("").unwrap();
    let mut other = kernel.channel("").unwrap();
    let endpoint = leading.open(&server.url("")).unwrap();
    leading.until_up(endpoint);
    let with = With { timeout_ms: 300, ..PLAIN };
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| {
            let tag =
                leading.request(endpoint, With { timeout_ms: IOK_TIMEOUT_NONE, ..PLAIN }, &["BLPOP", "soon", "1"]);
            leading.done(tag).ok();
            Instant::now()
        });
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        assert_eq!(other.call(endpoint, with, &["BLPOP", "never", "0"]).status(), IOK_STATUS_TIMEOUT);
        let while_it_led = begun.elapsed();
        // One that outlives the leader, in a channel that nobody waits for meanwhile.
        let tag = other.request(endpoint, With { timeout_ms: 1500, ..PLAIN }, &["BLPOP", "never", "0"]);
        let left_at = leader.join().unwrap();
        assert!(other.find(Duration::ZERO, |message| message.head.tag == tag).is_none());
        assert_eq!(other.done(tag).status(), IOK_STATUS_TIMEOUT);
        assert!((300..2000).contains(&while_it_led.as_millis()), "{while_it_led:?}");
        assert!(left_at.elapsed() < Duration::from_secs(5), "{:?}", left_at.elapsed());
    });
}

/// Four threads wait at once: one of them leads, and none misses its reply whoever that is.
#[test]
fn whoever_leads_all_are_answered() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("")).unwrap();
    channel.until_up(endpoint);
    std::thread::scope(|scope| {
        for number in 0..4_u64 {
            let kernel = &kernel;
            scope.spawn(move || {
                let mut channel = kernel.channel("").unwrap();
                for round in 0..2000 {
                    let word = format!("{number}-{round}");
                    assert_eq!(channel.call(endpoint, PLAIN, &["ECHO", &word]).ok().text(), word);
                    if round % 100 == number {
                        // It leaves the others for a while.
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            });
        }
    });
}

#[test]
fn a_close_ends_the_wait_of_a_leader() {
    let server = redis_or_skip!();
    for _ in 0..50 {
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&server.url("")).unwrap();
        channel.until_up(endpoint);
        let tag = channel.request(endpoint, PLAIN, &["BLPOP", "never", "0"]);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let done = channel.done(tag).status();
                while channel.next(LONG).is_some() {}
                (done, channel.status())
            });
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(kernel.close(Duration::ZERO), IOK_STATUS_OK);
            assert_eq!(waiter.join().unwrap(), (IOK_STATUS_CLOSED, IOK_STATUS_CLOSED));
        });
    }
}

static CHILD: AtomicI32 = AtomicI32::new(-1);

extern "C" fn fork_here(_: libc::c_int) {
    // SAFETY: fork is async-signal-safe as far as this test's child goes, which only leaves.
    CHILD.store(unsafe { libc::fork() }, Ordering::SeqCst);
}

/// A handler forks the process in the middle of a leader's sleep: the child leaves the wait and is told, the parent goes
/// on.
#[test]
fn a_fork_inside_of_a_wait_ends_it_in_the_child_alone() {
    alone("leading::a_fork_inside_of_a_wait_ends_it_in_the_child_alone", || {
        let server = redis_or_skip!();
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&server.url("")).unwrap();
        channel.until_up(endpoint);
        // SAFETY: a handler that does next to nothing, for a signal that nobody else uses.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = fork_here as *const () as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
        }
        let tag = channel.request(endpoint, PLAIN, &["BLPOP", "never", "1"]);
        // SAFETY: no arguments.
        let me = unsafe { libc::pthread_self() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                // SAFETY: the thread lives as long as this scope.
                unsafe { libc::pthread_kill(me, libc::SIGUSR2) };
            });
            let status = channel.wait(LONG);
            if CHILD.load(Ordering::SeqCst) == 0 {
                let told = channel.wait(Duration::ZERO);
                // SAFETY: leaves without destructors.
                unsafe { libc::_exit(i32::from(told != IOK_STATUS_FORKED)) };
            }
            assert_eq!(status, IOK_STATUS_INTERRUPTED);
            channel.done(tag).ok();
        });
        let mut status = -1;
        // SAFETY: a child of ours, and a valid place.
        assert!(unsafe { libc::waitpid(CHILD.load(Ordering::SeqCst), &mut status, 0) } > 0);
        assert_eq!(status, 0, "the child's wait ended, and it was told");
    });
}
