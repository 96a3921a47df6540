//! Closing: bounded, whatever peers, names, leases and other threads do.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::alone::{alone, soak};
use crate::client::{Kernel, LONG, PLAIN, Refused, With};
use crate::redis_or_skip;

/// The closing of a kernel that has everything under way that can be under way.
#[test]
fn a_close_is_bounded_whatever_is_under_way() {
    let server = redis_or_skip!();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolv = std::env::temp_dir().join(format!("iokernel-resolv-{}", std::process::id()));
    // Port 53 of this address answers nothing.
    std::fs::write(&resolv, "nameserver 127.0.0.53\noptions timeout:30 attempts:5\n").unwrap();
    let begun = Instant::now();
    let kernel = Kernel::open(&format!("name=test&resolv_conf={}", resolv.display())).unwrap();
    let mut channel = kernel.channel("").unwrap();
    let name = channel.open("redis://stuck.example.com").unwrap();
    let hole = channel.open("redis://192.0.2.1:6379").unwrap();
    let nobody = channel.open(&format!("redis://127.0.0.1:{}", crate::redis::free_port())).unwrap();
    let real = channel.open(&server.url("")).unwrap();
    let mut tags = Vec::new();
    for endpoint in [name, hole, nobody, real] {
        tags.push(channel.ask(IOK_OP_LEASE, endpoint, PLAIN, &[]));
        tags.push(channel.stream(endpoint, &["SUBSCRIBE", "c"]));
        let with = With { flags: IOK_FLAG_UNTIL_UP, timeout_ms: IOK_TIMEOUT_NONE, key: 0 };
        if endpoint != real {
            tags.push(channel.ask(IOK_OP_STATE, endpoint, with, &[]));
        }
        tags.push(channel.request(endpoint, PLAIN, &["BLPOP", "nothing", "0"]));
    }
    channel.call(real, PLAIN, &["PING"]).ok();
    assert_eq!(kernel.close(Duration::from_millis(200)), IOK_STATUS_OK);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    while let Some(message) = channel.next(Duration::from_millis(100)) {
        if message.head.kind == IOK_KIND_DONE {
            tags.retain(|tag| *tag != message.head.tag);
        }
    }
    assert_eq!(tags, [0; 0], "each request has ended");
    assert_eq!(channel.status(), IOK_STATUS_CLOSED);
    drop(silent);
    let _ = std::fs::remove_file(resolv);
}

#[test]
fn requests_that_finish_in_time_are_finished() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("")).unwrap();
    channel.until_up(endpoint);
    let waiting = channel.request(endpoint, PLAIN, &["BLPOP", "soon", "0"]);
    let tags: Vec<u64> = (0..1000).map(|_| channel.request(endpoint, PLAIN, &["INCR", "n"])).collect();
    let mut direct = server.direct();
    let pusher = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        direct.call(&["RPUSH", "soon", "element"]);
        direct
    });
    assert_eq!(kernel.close(LONG), IOK_STATUS_OK);
    for tag in tags {
        channel.done(tag).ok();
    }
    assert_eq!(channel.done(waiting).ok().items()[1].text(), "element");
    assert_eq!(pusher.join().unwrap().call(&["GET", "n"]).int(), 1000);
}

#[test]
fn many_threads_close_one_kernel() {
    let server = redis_or_skip!();
    for _ in 0..20 {
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&server.url("")).unwrap();
        channel.request(endpoint, PLAIN, &["BLPOP", "nothing", "0"]);
        let closed = std::thread::scope(|scope| {
            let closers: Vec<_> = (0..8).map(|_| scope.spawn(|| kernel.close(Duration::from_millis(20)))).collect();
            closers.into_iter().map(|closer| closer.join().unwrap()).filter(|status| *status == IOK_STATUS_OK).count()
        });
        assert_eq!(closed, 1, "the others find a handle that is closed");
    }
}

/// Channels that are opened while the kernel closes are served or end; none waits for ever.
#[test]
fn a_channel_opened_while_its_kernel_closes_ends() {
    let rounds = if soak() { 2000 } else { 200 };
    for _ in 0..rounds {
        let kernel = Kernel::start();
        std::thread::scope(|scope| {
            let opener = scope.spawn(|| {
                loop {
                    match kernel.channel("ring=64KiB") {
                        Ok(mut channel) => {
                            let head = Submission { op: IOK_OP_ECHO, tag: 1, ..Submission::default() };
                            let _ = channel.submit_raw(head, b"x");
                            let status = channel.wait(LONG);
                            assert!([IOK_STATUS_OK, IOK_STATUS_CLOSED].contains(&status), "nobody serves it: {status}");
                        }
                        Err(Refused(status, _)) => {
                            assert!([IOK_STATUS_BAD_HANDLE, IOK_STATUS_CLOSED].contains(&status));
                            return;
                        }
                    }
                }
            });
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..500)));
            kernel.close(Duration::ZERO);
            opener.join().unwrap();
        });
    }
}

#[test]
fn without_descriptors_there_are_statuses() {
    alone("closing::without_descriptors_there_are_statuses", || {
        let server = redis_or_skip!();
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let good = channel.open(&server.url("")).unwrap();
        channel.call(good, PLAIN, &["PING"]).ok();
        let limit = |soft: u64| {
            let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: `limits` is a valid place.
            unsafe {
                libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits);
                let before = limits.rlim_cur;
                limits.rlim_cur = soft;
                libc::setrlimit(libc::RLIMIT_NOFILE, &limits);
                before
            }
        };
        // Descriptors that are open stay so; no other can be had.
        let before = limit(3);
        let Refused(status, text) = Kernel::open("").unwrap_err();
        assert_eq!(status, IOK_STATUS_NO_FILES, "{text}");
        let Refused(status, text) = kernel.channel("").unwrap_err();
        assert_eq!(status, IOK_STATUS_NO_FILES, "{text}");
        let other = channel.open(&server.url("backoff=5ms&max_backoff=20ms")).unwrap();
        let none = channel.call(other, With { timeout_ms: 300, ..PLAIN }, &["PING"]);
        assert_eq!((none.status(), none.head.fate), (IOK_STATUS_UNAVAILABLE, IOK_FATE_NOT_SENT));
        assert!(none.error().1.contains("Too many open files"), "{:?}", none.error());
        let tag = channel.ask(IOK_OP_LISTEN, 0, PLAIN, b"redis://127.0.0.1:0");
        let listen = channel.done(tag);
        assert_eq!(listen.status(), IOK_STATUS_NO_FILES, "{:?}", listen.error());
        // A conn that stands goes on, and so does everything once there are descriptors again.
        channel.call(good, PLAIN, &["PING"]).ok();
        limit(before);
        channel.call(other, PLAIN, &["PING"]).ok();
        kernel.channel("").unwrap();
    });
}
