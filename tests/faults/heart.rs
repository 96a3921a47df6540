//! Heartbeats and their absence: a sleeping program, a stopped server, a killed one.

use std::time::{Duration, Instant};

use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::alone::soak;
use crate::client::{Kernel, LONG, PLAIN, With};
use crate::redis::field;
use crate::redis_or_skip;

#[test]
fn the_server_never_sees_an_idle_client() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("heartbeat=5s")).unwrap();
    channel.until_up(endpoint);
    let mut direct = server.direct();
    let begun = Instant::now();
    let span = Duration::from_secs(if soak() { 60 } else { 12 });
    let mut most = 0;
    while begun.elapsed() < span {
        std::thread::sleep(Duration::from_millis(250));
        for line in direct.clients() {
            most = most.max(field(&line, "idle").parse::<u64>().unwrap());
        }
    }
    // The server counts whole seconds.
    assert!((3..=6).contains(&most), "idle for {most} s with heartbeat=5s");
}

#[test]
fn a_stopped_server_is_noticed_and_found_again() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let url = server.url("heartbeat=200ms&max_silence=500ms&connect_timeout=500ms&backoff=10ms&max_backoff=50ms");
    let endpoint = channel.open(&url).unwrap();
    channel.call(endpoint, PLAIN, &["SET", "k", "v"]).ok();
    server.signal(libc::SIGSTOP);
    let lost = channel.call(endpoint, PLAIN, &["INCR", "n"]);
    assert_eq!((lost.status(), lost.head.fate), (IOK_STATUS_LOST, IOK_FATE_MAYBE_EXECUTED));
    assert!(lost.error().1.contains("sent nothing for"), "{:?}", lost.error());
    let waited = (lost.head.done_ns - lost.head.queued_ns) / 1_000_000;
    assert!(waited >= 500, "given up after {waited} ms of silence");
    let none = channel.call(endpoint, With { timeout_ms: 300, ..PLAIN }, &["INCR", "n"]);
    assert_eq!((none.status(), none.head.fate), (IOK_STATUS_UNAVAILABLE, IOK_FATE_NOT_SENT));
    server.signal(libc::SIGCONT);
    let back = channel.call(endpoint, PLAIN, &["GET", "k"]);
    assert_eq!(back.ok().text(), "v");
    let count = channel.call(endpoint, PLAIN, &["GET", "n"]).value();
    assert!(count == crate::values::Value::Nil || count.text() == "1", "{count:?}");
}

#[test]
fn a_killed_server_comes_back_with_its_subscriptions() {
    let mut server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    for protocol in ["2", "3"] {
        let url = server.url(&format!("protocol={protocol}&backoff=10ms&max_backoff=50ms"));
        let endpoint = channel.open(&url).unwrap();
        channel.until_up(endpoint);
        let stream = channel.stream(endpoint, &["SUBSCRIBE", "a", "b"]);
        channel.of_kind(stream, IOK_KIND_ACCEPTED);
        let waiting = channel.request(endpoint, PLAIN, &["BLPOP", "nothing", "0"]);
        channel.call(endpoint, PLAIN, &["PING"]).ok();
        std::thread::sleep(Duration::from_millis(50));
        server.kill();
        let lost = channel.done(waiting);
        assert_eq!((lost.status(), lost.head.fate), (IOK_STATUS_LOST, IOK_FATE_MAYBE_EXECUTED));
        server.restart();
        channel.of_kind(stream, IOK_KIND_ACCEPTED);
        channel.call(endpoint, PLAIN, &["PUBLISH", "b", "again"]).ok();
        let push = channel.of_kind(stream, IOK_KIND_PUSH);
        assert_eq!(push.value().items()[2].text(), "again");
        channel.cancel(stream);
        assert_eq!(channel.done(stream).status(), IOK_STATUS_CANCELLED);
        let subscribers = || server.direct().call(&["PUBLISH", "a", "anyone?"]).int();
        let deadline = Instant::now() + LONG;
        while subscribers() > 0 {
            assert!(Instant::now() < deadline, "the subscription outlives its stream");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_stream_of_invalidations_stands() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("tracking=on")).unwrap();
    channel.until_up(endpoint);
    let stream = channel.stream(endpoint, &["SUBSCRIBE", "__redis__:invalidate"]);
    channel.of_kind(stream, IOK_KIND_ACCEPTED);
    channel.call(endpoint, PLAIN, &["GET", "watched"]).ok();
    server.direct().call(&["SET", "watched", "changed"]);
    let push = channel.of_kind(stream, IOK_KIND_PUSH);
    assert_eq!(push.value().items()[1].items()[0].text(), "watched");
}
