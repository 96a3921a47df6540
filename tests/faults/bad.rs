//! Bad input, and the exact words that answer it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use iokernel::ffi::channel::*;
use iokernel::ffi::kernel::*;
use iokernel::ffi::record::*;
use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::client::{Channel, Kernel, LONG, PLAIN, Refused, With, last_error};
use crate::redis::free_port;
use crate::{redis_or_skip, values};

fn refused<T: std::fmt::Debug>(result: Result<T, Refused>) -> (Status, String) {
    let Refused(status, text) = result.unwrap_err();
    (status, text)
}

#[test]
fn urls() {
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    for (url, text) in [
        ("", r#"url: "": expected scheme://host, as in redis://cache.internal"#),
        ("gopher://h", r#"scheme: "gopher": expected one of redis, rediss, http, https, postgres, postgresql, unix"#),
        ("redis://h?heartbeat=5", r#"heartbeat: "5": expected a time such as 250ms, 5s, 2m or 1h"#),
        ("redis://h?pool=x%ff", r#"url: "x%ff": expected percent-encoded UTF-8"#),
        ("redis://h?max_inflight=0", r#"max_inflight: "0": expected a whole number from 1 to 16777216"#),
        ("redis://h?raw=yes", r#"raw: "yes": expected true or false"#),
        ("redis://h?timeout", r#"timeout: "": expected key=value, as in heartbeat=5s"#),
        ("redis://h?timeout=1s&timeout=2s", r#"timeout: "2s": expected each key only once"#),
        ("redis://h/x", r#"database: "x": expected a database number, as in redis://host/0"#),
        ("redis://h/1?db=2", r#"database: "1": expected the same as db=2, or only one of them"#),
        ("redis://u@h", r#"user: "": expected a password too, as in redis://user:password@host"#),
        ("redis://h?protocol=4", r#"protocol: "4": expected one of auto, 2, 3"#),
        (
            "redis://h:99999",
            r#"url: "redis://h:99999": expected host or host:port, or more of them between commas, IPv6 in brackets"#,
        ),
        (
            "redis://u:p@h:99999",
            r#"url: "redis://u:***@h:99999": expected host or host:port, or more of them between commas, IPv6 in brackets"#,
        ),
        ("unix://", r#"url: "unix://": expected the path of a unix socket, as in unix:///run/redis.sock"#),
        ("redis://h#f", r#"url: "redis://h#f": expected no fragment (#); percent-encode it as %23"#),
    ] {
        assert_eq!(refused(channel.open(url)), (IOK_STATUS_BAD_CONFIG, text.to_string()), "{url}");
    }
    let (status, text) = refused(channel.open("redis://h?hartbeat=5s"));
    assert_eq!(status, IOK_STATUS_BAD_CONFIG);
    assert!(text.starts_with(r#"hartbeat: "5s": expected a known option: "#) && text.contains("heartbeat"), "{text}");
}

#[test]
fn configurations_of_kernels_and_channels() {
    assert_eq!(
        refused(Kernel::open("name=0123456789abcdef")),
        (IOK_STATUS_BAD_CONFIG, r#"name: "0123456789abcdef": expected 1 to 15 bytes"#.into())
    );
    let (status, text) = refused(Kernel::open("nam=x"));
    assert_eq!(status, IOK_STATUS_BAD_CONFIG);
    assert!(text.starts_with(r#"nam: "x": expected a known option: "#), "{text}");
    let kernel = Kernel::start();
    for (config, text) in [
        ("ring=3MiB", r#"ring: "3145728": expected a power of two from 64KiB to 1GiB"#),
        ("ring=4KiB", r#"ring: "4096": expected a power of two from 64KiB to 1GiB"#),
        ("ring=1MB", r#"ring: "1MB": expected a size such as 4096, 64KiB, 16MiB or 1GiB"#),
        ("credits=0", r#"credits: "0": expected a whole number from 1 to 16777216"#),
    ] {
        assert_eq!(refused(kernel.channel(config)), (IOK_STATUS_BAD_CONFIG, text.to_string()));
    }
}

#[test]
fn requests() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("max_depth=4&max_reply=64KiB")).unwrap();
    let mut say = |op: u16, endpoint: u32, with: With, payload: &[u8]| {
        let tag = channel.ask(op, endpoint, with, payload);
        let done = channel.done(tag);
        let (code, message) = done.error();
        (done.status(), code, message)
    };
    let answer = |status: Status, code: &str, message: &str| (status, code.to_string(), message.to_string());
    type Answer = (Status, String, String);
    type Case<'a> = (&'a str, u16, u32, u64, Vec<u8>, Answer);
    let cases: Vec<Case> = vec![
        ("no array", IOK_OP_REQUEST, endpoint, 0, b"\xa1x".to_vec(), answer(IOK_STATUS_BAD_REQUEST, "BADREQUEST", "")),
        ("empty", IOK_OP_REQUEST, endpoint, 0, vec![], answer(IOK_STATUS_BAD_REQUEST, "BADREQUEST", "")),
        ("cut", IOK_OP_REQUEST, endpoint, 0, b"\x92\xa1x".to_vec(), answer(IOK_STATUS_BAD_REQUEST, "BADREQUEST", "")),
        (
            "nested",
            IOK_OP_REQUEST,
            endpoint,
            0,
            [vec![0x91; 100_000], vec![0xc0]].concat(),
            answer(IOK_STATUS_BAD_REQUEST, "BADREQUEST", ""),
        ),
        (
            "no endpoint",
            IOK_OP_REQUEST,
            999,
            0,
            values::request(&["PING"]),
            answer(IOK_STATUS_NO_ENDPOINT, "NOENDPOINT", "endpoint: 999: expected the number of an open service"),
        ),
        (
            "op",
            4711,
            endpoint,
            0,
            vec![],
            answer(IOK_STATUS_BAD_RECORD, "BADRECORD", "op: 4711: expected one of IOK_OP_*"),
        ),
        (
            "lease",
            IOK_OP_REQUEST,
            endpoint,
            5,
            values::request(&["PING"]),
            answer(IOK_STATUS_NO_LEASE, "NOLEASE", "no lease 5 is held"),
        ),
        (
            "release",
            IOK_OP_RELEASE,
            endpoint,
            5,
            vec![],
            answer(IOK_STATUS_NO_LEASE, "NOLEASE", "key: 5: expected a lease that is held"),
        ),
        (
            "reply",
            IOK_OP_REPLY,
            endpoint,
            0,
            vec![0xc0],
            answer(IOK_STATUS_NO_REQUEST, "NOREQUEST", "expected the tag of a REQUEST that was not answered"),
        ),
        (
            "a stream as a request",
            IOK_OP_REQUEST,
            endpoint,
            0,
            values::request(&["SUBSCRIBE", "c"]),
            answer(
                IOK_STATUS_BAD_REQUEST,
                "BADREQUEST",
                "this begins a stream: submit it as a stream (subscribe, exchange), not as a request",
            ),
        ),
        (
            "a request as a stream",
            IOK_OP_STREAM,
            endpoint,
            0,
            values::request(&["GET", "c"]),
            answer(IOK_STATUS_BAD_REQUEST, "BADREQUEST", "this begins no stream: submit it as a request"),
        ),
        (
            "pinned",
            IOK_OP_REQUEST,
            endpoint,
            0,
            values::request(&["MULTI"]),
            answer(
                IOK_STATUS_BAD_REQUEST,
                "NEEDSLEASE",
                "a transaction needs a lease, or one batch: [[\"MULTI\"], ..., [\"EXEC\"]]",
            ),
        ),
    ];
    for (what, op, endpoint, key, payload, (status, code, message)) in cases {
        let said = say(op, endpoint, With { key, ..PLAIN }, &payload);
        assert_eq!((said.0, &said.1), (status, &code), "{what}: {said:?}");
        assert!(!said.2.is_empty() && said.2.ends_with(&message), "{what}: {said:?}");
    }
    // The peer's own errors are the peer's.
    let wrong = channel.call(endpoint, PLAIN, &["GET"]);
    assert_eq!((wrong.status(), wrong.head.fate), (IOK_STATUS_REMOTE, IOK_FATE_REPLIED));
    assert_eq!(wrong.error(), ("ERR".into(), "wrong number of arguments for 'get' command".into()));
}

#[test]
fn messages_beyond_their_limits() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("max_request=1MiB").unwrap();
    let endpoint = channel.open(&server.url("max_reply=64KiB&backoff=1ms")).unwrap();
    channel.until_up(endpoint);
    // A total that is too large is refused before a byte of it was copied.
    let head = Submission {
        op: IOK_OP_REQUEST,
        flags: IOK_FLAG_MORE,
        endpoint,
        tag: 1_000_000,
        bytes_total: 512 << 20,
        ..Submission::default()
    };
    let sentence = "4 bytes: expected at most a quarter of the ring in a record, and max_request in a message";
    assert_eq!(refused(channel.submit_raw(head, b"abcd")), (IOK_STATUS_TOO_LARGE, sentence.into()));
    let (status, _) = refused(channel.submit_raw(Submission { op: IOK_OP_ECHO, ..head }, &vec![0; 300 << 10]));
    assert_eq!(status, IOK_STATUS_TOO_LARGE);
    // Fragments that add up to more than was promised.
    for part in 0..6 {
        let flags = if part < 5 { IOK_FLAG_MORE } else { 0 };
        let head = Submission { op: IOK_OP_ECHO, flags, tag: 1_000_001, bytes_total: 0, ..head };
        channel.submit_raw(head, &vec![0; 250 << 10]).unwrap();
        channel.flush();
        std::thread::sleep(Duration::from_millis(5));
    }
    let done = channel.done(1_000_001);
    assert_eq!((done.status(), done.error().0.as_str()), (IOK_STATUS_TOO_LARGE, "TOOLARGE"));
    assert!(channel.next(Duration::from_millis(50)).is_none(), "it ends once");
    // A reply that is too large ends its conn, and says what to do.
    channel.call(endpoint, PLAIN, &["SETRANGE", "big", "100000", "x"]).ok();
    let done = channel.call(endpoint, PLAIN, &["GET", "big"]);
    assert_eq!((done.status(), done.head.fate), (IOK_STATUS_PROTOCOL, IOK_FATE_MAYBE_EXECUTED));
    assert!(done.error().1.contains("max_reply"), "{:?}", done.error());
    channel.until_up(endpoint);
    assert_eq!(channel.call(endpoint, PLAIN, &["STRLEN", "big"]).ok().int(), 100_001);
}

/// The error of the first request to an endpoint that never comes up.
fn first_error(channel: &mut Channel, url: &str) -> (Status, u8, String) {
    let endpoint = channel.open(url).unwrap();
    let done = channel.call(endpoint, With { timeout_ms: 1500, ..PLAIN }, &["PING"]);
    (done.status(), done.head.fate, done.error().1)
}

#[test]
fn servers_that_refuse_the_handshake() {
    let server = redis_or_skip!("--requirepass", "secret");
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let port = server.port;
    for (url, words) in [
        (format!("redis://127.0.0.1:{port}"), "NOAUTH"),
        (format!("redis://:wrong@127.0.0.1:{port}"), "WRONGPASS"),
        (format!("redis://nobody:secret@127.0.0.1:{port}"), "WRONGPASS"),
        (format!("redis://:secret@127.0.0.1:{port}/99"), "DB index is out of range"),
    ] {
        let (status, fate, text) = first_error(&mut channel, &url);
        assert_eq!((status, fate), (IOK_STATUS_REFUSED, IOK_FATE_NOT_SENT), "{url}: {text}");
        assert!(text.contains(words) && !text.contains("secret"), "{url}: {text}");
    }
    let endpoint = channel.open(&format!("redis://:secret@127.0.0.1:{port}")).unwrap();
    channel.call(endpoint, PLAIN, &["PING"]).ok();
}

/// Answers each conn with `words`, or with silence.
fn speaks(words: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            if words.is_empty() {
                kept.push(stream);
            } else {
                let _ = stream.read(&mut [0; 1000]);
                let _ = stream.write_all(words);
            }
        }
    });
    port
}

#[test]
fn peers_that_are_no_redis() {
    let kernel = Kernel::open("name=test&resolv_conf=/nonexistent/resolv.conf").unwrap();
    let mut channel = kernel.channel("").unwrap();
    let http = speaks(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let (status, fate, text) = first_error(&mut channel, &format!("redis://127.0.0.1:{http}"));
    assert_eq!((status, fate), (IOK_STATUS_PROTOCOL, IOK_FATE_NOT_SENT), "{text}");
    let silent = speaks(b"");
    let (status, fate, text) = first_error(&mut channel, &format!("redis://127.0.0.1:{silent}?connect_timeout=200ms"));
    assert_eq!((status, fate), (IOK_STATUS_UNAVAILABLE, IOK_FATE_NOT_SENT), "{text}");
    assert!(text.contains(&format!("no answer to the handshake from 127.0.0.1:{silent} within 200ms")), "{text}");
    let nobody = free_port();
    let (status, fate, text) = first_error(&mut channel, &format!("redis://127.0.0.1:{nobody}"));
    assert_eq!((status, fate), (IOK_STATUS_UNAVAILABLE, IOK_FATE_NOT_SENT), "{text}");
    let words = format!("no connection in time: connect to 127.0.0.1:{nobody}: Connection refused (");
    assert!(text.starts_with(&words) && text.ends_with(" attempts)"), "{text}");
    let (status, fate, text) = first_error(&mut channel, "unix:///nonexistent/redis.sock");
    assert_eq!((status, fate), (IOK_STATUS_UNAVAILABLE, IOK_FATE_NOT_SENT), "{text}");
    assert!(text.contains("unix:/nonexistent/redis.sock: No such file or directory"), "{text}");
}

#[test]
fn handles() {
    let kernel = Kernel::start();
    let channel = kernel.channel("").unwrap();
    let null: *mut u8 = std::ptr::null_mut();
    // SAFETY: NULL handles and places are what is tested; the others are real.
    unsafe {
        let mut out = std::ptr::null_mut();
        assert_eq!(iok_kernel_open(std::ptr::null(), null.cast()), IOK_STATUS_NULL);
        assert_eq!(last_error(), "out: NULL: expected a pointer");
        assert_eq!(iok_channel_open(null.cast(), std::ptr::null(), &mut out), IOK_STATUS_NULL);
        assert_eq!(last_error(), "kernel: NULL: expected an open handle");
        assert_eq!(iok_kernel_close(null.cast(), 0), IOK_STATUS_NULL);
        assert_eq!(iok_channel_close(null.cast()), IOK_STATUS_NULL);
        assert_eq!(iok_flush(null.cast()), IOK_STATUS_NULL);
        assert_eq!(iok_wait(null.cast(), 0), IOK_STATUS_NULL);
        assert_eq!(iok_channel_fd(null.cast()), -1);
        assert_eq!(iok_advance(null.cast(), 0), IOK_STATUS_NULL);
        assert_eq!(iok_commit(null.cast()), IOK_STATUS_NULL);
        assert_eq!(iok_submit(channel.handle, std::ptr::null(), std::ptr::null()), IOK_STATUS_NULL);
        assert_eq!(last_error(), "head: NULL: expected a pointer");
        let head = Submission { size: 44, ..Submission::default() };
        assert_eq!(iok_submit(channel.handle, &head, std::ptr::null()), IOK_STATUS_NULL);
        let head = Submission { size: 39, ..Submission::default() };
        assert_eq!(iok_submit(channel.handle, &head, std::ptr::null()), IOK_STATUS_BAD_RECORD);
        assert_eq!(iok_commit(channel.handle), IOK_STATUS_BAD_RECORD);
        assert_eq!(iok_advance(channel.handle, 8), IOK_STATUS_BAD_RECORD);
        assert_eq!(last_error(), "bytes: 8: expected whole records of the run");
        assert_eq!(iok_poll(channel.handle, std::ptr::null_mut(), std::ptr::null_mut()), 0);
        assert_eq!(last_error(), "first: NULL: expected a pointer");
        let mut taken = 99;
        let short = Submission { size: 4000, ..Submission::default() };
        assert_eq!(iok_submit_batch(channel.handle, (&raw const short).cast(), 40, &mut taken), IOK_STATUS_BAD_RECORD);
        assert_eq!(taken, 0);
        // Stale handles, and numbers that never were handles.
        assert_eq!(channel.close(), IOK_STATUS_OK);
        assert_eq!(channel.close(), IOK_STATUS_BAD_HANDLE);
        assert_eq!(last_error(), "channel: unknown or closed: expected an open handle");
        assert_eq!(iok_flush(channel.handle), IOK_STATUS_BAD_HANDLE);
        assert_eq!(channel.fd(), -1);
        assert_eq!(iok_flush(0xdead_beef_usize as *mut iok_channel), IOK_STATUS_BAD_HANDLE);
        assert_eq!(kernel.close(Duration::ZERO), IOK_STATUS_OK);
        assert_eq!(kernel.close(Duration::ZERO), IOK_STATUS_BAD_HANDLE);
        assert_eq!(refused(kernel.channel("")).0, IOK_STATUS_BAD_HANDLE);
    }
}

#[test]
fn use_after_the_endpoint_was_closed() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("")).unwrap();
    channel.call(endpoint, PLAIN, &["SET", "k", "v"]).ok();
    let waiting = channel.request(endpoint, PLAIN, &["BLPOP", "nothing", "0"]);
    let close = channel.ask(IOK_OP_CLOSE, endpoint, PLAIN, &[]);
    channel.done(close).ok();
    let done = channel.done(waiting);
    assert_eq!((done.status(), done.error().1.as_str()), (IOK_STATUS_CLOSED, "the endpoint was closed"));
    let done = channel.call(endpoint, PLAIN, &["GET", "k"]);
    assert_eq!(done.status(), IOK_STATUS_NO_ENDPOINT);
    let again = channel.ask(IOK_OP_CLOSE, endpoint, PLAIN, &[]);
    assert_eq!(channel.done(again).status(), IOK_STATUS_NO_ENDPOINT);
    // A later endpoint in the same place has another number.
    let later = channel.open(&server.url("")).unwrap();
    assert_ne!(later, endpoint);
    assert_eq!(channel.call(endpoint, PLAIN, &["GET", "k"]).status(), IOK_STATUS_NO_ENDPOINT);
    assert_eq!(channel.call(later, PLAIN, &["GET", "k"]).ok().text(), "v");
}

#[test]
fn what_was_submitted_before_a_close_has_a_true_fate() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let mut unsent = Vec::new();
    for round in 0..20 {
        let endpoint = channel.open(&server.url("")).unwrap();
        channel.until_up(endpoint);
        let key = format!("n:{round}");
        let (tag, close) = (channel.tag(), channel.tag());
        channel.submit(IOK_OP_REQUEST, tag, endpoint, PLAIN, &values::request(&["INCR", &key])).unwrap();
        channel.submit(IOK_OP_CLOSE, close, endpoint, PLAIN, &[]).unwrap();
        channel.flush();
        if channel.done(tag).head.fate == IOK_FATE_NOT_SENT {
            unsent.push(key);
        }
        channel.done(close).ok();
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut direct = server.direct();
    for key in unsent {
        assert_eq!(direct.call(&["GET", &key]).int(), 0, "{key}: its fate said NOT_SENT");
    }
}

#[test]
fn names_that_do_not_resolve() {
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let begun = Instant::now();
    let endpoint = channel.open("redis://no-such-host.invalid?connect_timeout=500ms").unwrap();
    let done = channel.call(endpoint, With { timeout_ms: 2000, ..PLAIN }, &["PING"]);
    assert_eq!((done.status(), done.head.fate), (IOK_STATUS_UNAVAILABLE, IOK_FATE_NOT_SENT));
    let text = done.error().1;
    assert!(text.contains("no-such-host.invalid"), "{text}");
    assert!(begun.elapsed() < LONG);
}
