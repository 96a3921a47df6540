//! Many threads, many channels, one endpoint; and nothing is left behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::alone::{alone, bounded, open_files, resident_bytes, soak};
use crate::client::{Kernel, LONG, PLAIN, With};
use crate::redis_or_skip;

#[test]
fn channels_come_and_go_under_load() {
    alone("threads::channels_come_and_go_under_load", || {
        let rounds = if soak() { 3000 } else { 300 };
        let server = redis_or_skip!();
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&server.url("")).unwrap();
        channel.until_up(endpoint);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (kernel, over) = (&kernel, &over);
                scope.spawn(move || {
                    let mut channel = kernel.channel("ring=64KiB").unwrap();
                    // A failure elsewhere does not hang the test.
                    let deadline = Instant::now() + 5 * LONG;
                    while !over.load(Ordering::SeqCst) && Instant::now() < deadline {
                        let word = format!("steady-{number}");
                        assert_eq!(channel.call(endpoint, PLAIN, &["ECHO", &word]).ok().text(), word);
                    }
                });
            }
            let turn = |rounds: usize| {
                std::thread::scope(|scope| {
                    for number in 0..4 {
                        let kernel = &kernel;
                        scope.spawn(move || {
                            for round in 0..rounds / 4 {
                                let mut channel = kernel.channel("ring=64KiB").unwrap();
                                let stream = channel.stream(endpoint, &["SUBSCRIBE", "c"]);
                                let word = format!("{number}-{round}");
                                assert_eq!(channel.call(endpoint, PLAIN, &["ECHO", &word]).ok().text(), word);
                                if round % 3 == 0 {
                                    channel.cancel(stream);
                                }
                                for _ in 0..10 {
                                    channel.request(endpoint, PLAIN, &["ECHO", "left behind"]);
                                }
                            }
                        });
                    }
                });
            };
            turn(rounds / 4);
            let (files, resident) = (open_files(), resident_bytes());
            turn(rounds);
            over.store(true, Ordering::SeqCst);
            let deadline = Instant::now() + LONG;
            while open_files() > files + 2 {
                assert!(Instant::now() < deadline, "{files} descriptors became {}", open_files());
                std::thread::sleep(Duration::from_millis(5));
            }
            let grown = resident_bytes().saturating_sub(resident);
            bounded(grown, 8 << 20);
        });
        let state = channel.state(endpoint);
        assert_eq!((state.at("requests").int(), state.at("topics").int()), (0, 0), "{state:?}");
    });
}

/// A hundred thousand deadlines: all of them come, none of them early.
#[test]
fn deadlines_all_come_and_none_early() {
    const COUNT: usize = 100_000;
    const SPAN_MS: u32 = 2000;
    let kernel = Kernel::start();
    let mut channel = kernel.channel("credits=200000").unwrap();
    let url = format!("redis://127.0.0.1:{}?max_queue=200000", crate::redis::free_port());
    let endpoint = channel.open(&url).unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut wanted = vec![0; COUNT + 10];
    let body = crate::values::request(&["PING"]);
    for _ in 0..COUNT {
        let tag = channel.tag();
        let timeout_ms = rng.u32(1..SPAN_MS);
        channel.submit(IOK_OP_REQUEST, tag, endpoint, With { timeout_ms, ..PLAIN }, &body).unwrap();
        wanted[tag as usize] = u64::from(timeout_ms);
    }
    channel.flush();
    let mut late = Vec::new();
    for _ in 0..COUNT {
        let done = channel.next(LONG).expect("each deadline comes");
        assert_eq!((done.status(), done.head.fate), (IOK_STATUS_UNAVAILABLE, IOK_FATE_NOT_SENT));
        let wanted_ns = std::mem::take(&mut wanted[done.head.tag as usize]) * 1_000_000;
        assert!(wanted_ns > 0, "once");
        let waited_ns = done.head.done_ns - done.head.queued_ns;
        assert!(waited_ns >= wanted_ns, "{waited_ns} ns instead of {wanted_ns}");
        late.push(waited_ns - wanted_ns);
    }
    late.sort();
    println!("late by {:?} (p50), {:?} (p99)", late[COUNT / 2], late[COUNT * 99 / 100]);
}

/// FULL, then a wait: room that came back in between wakes it.
#[test]
fn a_wait_after_full_ends_when_there_is_room() {
    let kernel = Kernel::start();
    let mut channel = kernel.channel("ring=64KiB").unwrap();
    let rounds = if soak() { 200_000 } else { 20_000 };
    let payload = [0; 1000];
    let mut full = 0;
    let deadline = Instant::now() + LONG;
    // While the kernel keeps up it is rarely full.
    for tag in 0.. {
        if tag >= rounds && (full > 100 || Instant::now() > deadline) {
            break;
        }
        // No completion ever comes: only room can wake the wait.
        let head = Submission { op: IOK_OP_ECHO, flags: IOK_FLAG_QUIET, tag, ..Submission::default() };
        while let Err(refused) = channel.submit_raw(head, &payload) {
            assert_eq!(refused.0, IOK_STATUS_FULL);
            full += 1;
            assert_eq!(channel.wait(LONG), IOK_STATUS_OK, "room came back, and nobody was told");
        }
    }
    assert!(full > 100, "the ring was full {full} times");
}

/// The same for a loop that watches the descriptor.
#[test]
fn a_watched_descriptor_tells_of_room_and_of_completions() {
    let kernel = Kernel::start();
    let mut channel = kernel.channel("ring=64KiB").unwrap();
    let mut poll = libc::pollfd { fd: channel.fd(), events: libc::POLLIN, revents: 0 };
    let mut wait = |channel: &mut crate::client::Channel| {
        channel.flush();
        // SAFETY: one valid pollfd.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 60_000) }, 1, "the descriptor stays unreadable");
        channel.take_all()
    };
    let mut rng = fastrand::Rng::with_seed(9);
    let (mut sent, mut got) = (0, 0);
    for _ in 0..3000 {
        for _ in 0..rng.usize(1..150) {
            let flags = if rng.bool() { IOK_FLAG_QUIET } else { 0 };
            let head = Submission { op: IOK_OP_ECHO, flags, ..Submission::default() };
            match channel.submit_raw(head, &[0; 600]) {
                Ok(()) if flags == 0 => sent += 1,
                Ok(()) => {}
                Err(_) => got += wait(&mut channel),
            }
        }
        while got < sent {
            got += wait(&mut channel);
        }
    }
    assert_eq!(got, sent);
}
