//! A program that never polls: memory stays bounded, what is dropped is counted, the conn lives, others notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::alone::{alone, bounded, resident_bytes, soak};
use crate::client::{Kernel, PLAIN, With};
use crate::redis::field;
use crate::redis_or_skip;

/// The ids of the server's clients that are ours (they said HELLO 3).
fn ids(clients: &[String]) -> Vec<String> {
    let mut ids: Vec<String> =
        clients.iter().filter(|line| field(line, "resp") == "3").map(|line| field(line, "id").into()).collect();
    ids.sort();
    ids
}

#[test]
fn pushes_that_nobody_reads_are_counted() {
    alone("silent::pushes_that_nobody_reads_are_counted", || {
        let span = Duration::from_secs(if soak() { 600 } else { 8 });
        let server = redis_or_skip!();
        let kernel = Kernel::start();
        let mut silent = kernel.channel("ring=64KiB&push_buffer=1MiB").unwrap();
        let mut other = kernel.channel("").unwrap();
        let endpoint = silent.open(&server.url("heartbeat=1s&max_silence=2s")).unwrap();
        let stream = silent.stream(endpoint, &["SUBSCRIBE", "news"]);
        silent.of_kind(stream, IOK_KIND_ACCEPTED);
        let mut direct = server.direct();
        let before = ids(&direct.clients());
        assert_eq!(before.len(), 1, "one conn for everything");

        let (over, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let publisher = {
            let (over, published, mut direct) = (over.clone(), published.clone(), server.direct());
            std::thread::spawn(move || {
                let body = "x".repeat(150);
                while !over.load(Ordering::SeqCst) {
                    let words = ["PUBLISH", "news", &body];
                    let batch = vec![&words[..]; 100];
                    direct.write(&batch);
                    (0..100).for_each(|_| assert_eq!(direct.read().int(), 1));
                    published.fetch_add(100, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(3));
                }
            })
        };
        let begun = Instant::now();
        let mut resident = 0;
        let mut times = Vec::new();
        while begun.elapsed() < span {
            let start = Instant::now();
            other.call(endpoint, PLAIN, &["ECHO", "still here"]).ok();
            times.push(start.elapsed());
            std::thread::sleep(Duration::from_millis(5));
            if resident == 0 && begun.elapsed() > span / 3 {
                resident = resident_bytes();
            }
        }
        let grown = resident_bytes().saturating_sub(resident);
        over.store(true, Ordering::SeqCst);
        publisher.join().unwrap();
        assert_eq!(ids(&direct.clients()), before, "the conn is the same");
        times.sort();
        // The program wakes up: what was kept comes, and what was not is counted.
        let published = published.load(Ordering::SeqCst);
        let (mut delivered, mut lost, mut reports) = (0, 0, 0);
        while delivered + lost < published {
            let message = silent.next(Duration::from_secs(10)).expect("every push is delivered or counted");
            assert_eq!(message.head.tag, stream);
            match message.head.kind {
                IOK_KIND_PUSH => delivered += 1,
                IOK_KIND_LOST => {
                    lost += message.value().int() as u64;
                    reports += 1;
                }
                kind => panic!("kind {kind}"),
            }
        }
        println!(
            "{published} published, {delivered} delivered, {lost} lost in {reports} reports; grown by {} KiB; p50 {:?}, p99 {:?} beside",
            grown >> 10,
            times[times.len() / 2],
            times[times.len() * 99 / 100],
        );
        assert_eq!(delivered + lost, published);
        assert!(lost > 0, "there was too much to keep");
        bounded(grown, 4 << 20);
        assert!(times[times.len() / 2] < Duration::from_millis(50), "another channel was delayed");
        // From here on nothing is lost.
        direct.call(&["PUBLISH", "news", "last"]);
        let last = silent.of_kind(stream, IOK_KIND_PUSH);
        assert_eq!(last.value().items()[2].text(), "last");
    });
}

#[test]
fn replies_that_nobody_reads_lose_their_payload_and_nothing_else() {
    alone("silent::replies_that_nobody_reads_lose_their_payload_and_nothing_else", || {
        let server = redis_or_skip!();
        server.direct().call(&["SET", "big", &"x".repeat(100_000)]);
        let kernel = Kernel::start();
        let mut silent = kernel.channel("ring=64KiB&reply_buffer=8MiB").unwrap();
        let endpoint = silent.open(&server.url("heartbeat=1s&max_silence=1s")).unwrap();
        silent.until_up(endpoint);
        let shared = field(&server.direct().clients()[0], "id").to_string();
        let before = resident_bytes();
        let mut tags = Vec::new();
        for round in 0..5 {
            for _ in 0..100 {
                tags.push(silent.request(endpoint, PLAIN, &["GET", "big"]));
            }
            // Deadlines are kept though nobody looks.
            let with = With { timeout_ms: 50, ..PLAIN };
            tags.push(silent.request(endpoint, with, &["BLPOP", &format!("nothing:{round}"), "0"]));
            std::thread::sleep(Duration::from_millis(700));
        }
        let grown = resident_bytes().saturating_sub(before);
        bounded(grown, 24 << 20);
        let (mut whole, mut dropped, mut expired) = (0, 0, 0);
        for tag in tags {
            let done = silent.done(tag);
            match done.status() {
                IOK_STATUS_OK => {
                    assert_eq!(done.payload.len(), 100_000);
                    whole += 1;
                }
                IOK_STATUS_REPLY_DROPPED => {
                    assert_eq!((done.payload.len(), done.head.fate), (0, IOK_FATE_REPLIED));
                    dropped += 1;
                }
                IOK_STATUS_TIMEOUT => expired += 1,
                status => panic!("{status} {:?}", done.error()),
            }
        }
        assert_eq!((whole + dropped, expired), (500, 5));
        assert!(whole >= 80 && dropped > 0, "{whole} whole, {dropped} dropped");
        let clients = server.direct().clients();
        // A lane whose request expired while it was dialled may be kept beside it: one for each BLPOP at most.
        assert!(clients.len() <= 1 + 5, "{clients:?}");
        assert!(clients.iter().any(|line| field(line, "id") == shared), "{shared} is gone: {clients:?}");
    });
}
