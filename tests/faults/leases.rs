//! Leases and lanes: transactions of many threads, dirty conns, lost conns, requests that wait in the server.

use std::time::{Duration, Instant};

use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::client::{Kernel, LONG, PLAIN, With};
use crate::redis::field;
use crate::redis_or_skip;
use crate::values::Value;

fn on(lease: u64) -> With {
    With { key: lease, ..PLAIN }
}

#[test]
fn optimistic_increments_of_many_threads_are_exact() {
    const THREADS: usize = 20;
    const TIMES: usize = 15;
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("")).unwrap();
    channel.until_up(endpoint);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut channel = kernel.channel("ring=64KiB").unwrap();
                for _ in 0..TIMES {
                    let lease = channel.lease(endpoint);
                    loop {
                        channel.call(endpoint, on(lease), &["WATCH", "count"]).ok();
                        let count = channel.call(endpoint, on(lease), &["GET", "count"]).ok();
                        let count = if count == Value::Nil { 0 } else { count.text().parse::<i64>().unwrap() };
                        channel.call(endpoint, on(lease), &["MULTI"]).ok();
                        channel.call(endpoint, on(lease), &["SET", "count", &(count + 1).to_string()]).ok();
                        if channel.call(endpoint, on(lease), &["EXEC"]).ok() != Value::Nil {
                            break;
                        }
                    }
                    channel.release(endpoint, lease).ok();
                }
            });
        }
    });
    let count = channel.call(endpoint, PLAIN, &["GET", "count"]).ok();
    assert_eq!(count.text(), (THREADS * TIMES).to_string());
    let state = channel.state(endpoint);
    assert_eq!((state.at("leases").int(), state.at("queued").int()), (0, 0), "{state:?}");
}

#[test]
fn a_dirty_lease_is_clean_for_the_next_tenant() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("lanes=1")).unwrap();
    for dirt in [
        &[&["MULTI"][..], &["SET", "never", "x"]][..],
        &[&["WATCH", "k"]],
        &[&["SELECT", "3"]],
        &[&["WATCH", "k"], &["MULTI"], &["SELECT", "4"]],
        &[&["CLIENT", "SETNAME", "dirty"]],
        &[&["CLIENT", "TRACKING", "ON"]],
    ] {
        let lease = channel.lease(endpoint);
        for words in dirt {
            channel.call(endpoint, on(lease), words).ok();
        }
        channel.release(endpoint, lease).ok();
        assert_eq!(channel.release(endpoint, lease).status(), IOK_STATUS_NO_LEASE);
        let lease = channel.lease(endpoint);
        let info = channel.call(endpoint, on(lease), &["CLIENT", "INFO"]).ok().text();
        let found = (field(&info, "db"), field(&info, "multi"), field(&info, "name"));
        assert_eq!(found, ("0", "-1", ""), "after {dirt:?}: {info}");
        channel.call(endpoint, on(lease), &["SET", "k", "v"]).ok();
        channel.call(endpoint, on(lease), &["MULTI"]).ok();
        assert_ne!(channel.call(endpoint, on(lease), &["EXEC"]).ok(), Value::Nil, "nothing is watched");
        channel.release(endpoint, lease).ok();
    }
    assert_eq!(server.direct().call(&["EXISTS", "never"]).int(), 0);
}

#[test]
fn a_release_with_requests_under_way_leaves_no_reply_for_the_next_tenant() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("lanes=1")).unwrap();
    for round in 0..100 {
        let lease = channel.lease(endpoint);
        let old: Vec<u64> = (0..3).map(|_| channel.request(endpoint, on(lease), &["ECHO", "old"])).collect();
        if round % 2 == 0 {
            channel.request(endpoint, on(lease), &["BLPOP", "nothing", "0"]);
        }
        channel.release(endpoint, lease).ok();
        let lease = channel.lease(endpoint);
        assert_eq!(channel.call(endpoint, on(lease), &["ECHO", "new"]).ok().text(), "new");
        channel.release(endpoint, lease).ok();
        for tag in old {
            let status = channel.done(tag).status();
            assert!([IOK_STATUS_OK, IOK_STATUS_CANCELLED].contains(&status), "{status}");
        }
    }
}

#[test]
fn a_lost_conn_is_a_lost_lease() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("backoff=5ms")).unwrap();
    let lease = channel.lease(endpoint);
    channel.call(endpoint, on(lease), &["WATCH", "k"]).ok();
    let id = channel.call(endpoint, on(lease), &["CLIENT", "ID"]).ok().int();
    let pending = channel.request(endpoint, on(lease), &["BLPOP", "nothing", "0"]);
    channel.call(endpoint, PLAIN, &["CLIENT", "KILL", "ID", &id.to_string()]).ok();
    assert_eq!(channel.done(pending).status(), IOK_STATUS_LOST);
    let after = channel.call(endpoint, on(lease), &["MULTI"]);
    assert_eq!((after.status(), after.head.fate), (IOK_STATUS_LOST, IOK_FATE_NOT_SENT));
    assert!(after.error().1.contains(&format!("the conn of lease {lease} was lost")), "{:?}", after.error());
    channel.release(endpoint, lease).ok();
    let lease = channel.lease(endpoint);
    channel.call(endpoint, on(lease), &["PING"]).ok();
}

#[test]
fn closing_a_channel_frees_its_leases() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("lanes=1")).unwrap();
    for _ in 0..20 {
        let mut tenant = kernel.channel("ring=64KiB").unwrap();
        let lease = tenant.lease(endpoint);
        tenant.call(endpoint, on(lease), &["MULTI"]).ok();
        tenant.request(endpoint, on(lease), &["SET", "half", "done"]);
        drop(tenant);
        let lease = channel.lease(endpoint);
        channel.call(endpoint, on(lease), &["PING"]).ok();
        channel.release(endpoint, lease).ok();
    }
    assert_eq!(server.direct().call(&["EXISTS", "half"]).int(), 0);
}

#[test]
fn requests_that_wait_in_the_server_hold_nobody_up() {
    const WAITING: usize = 50;
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("")).unwrap();
    let tags: Vec<u64> =
        (0..WAITING).map(|at| channel.request(endpoint, PLAIN, &["BLPOP", &format!("list:{at}"), "0"])).collect();
    for _ in 0..200 {
        channel.call(endpoint, PLAIN, &["ECHO", "x"]).ok();
    }
    let mut direct = server.direct();
    for (at, tag) in tags.into_iter().enumerate().rev() {
        direct.call(&["RPUSH", &format!("list:{at}"), &format!("element:{at}")]);
        assert_eq!(channel.done(tag).ok().items()[1].text(), format!("element:{at}"));
    }
    // Their lanes are used again.
    for _ in 0..WAITING {
        channel.call(endpoint, PLAIN, &["BLPOP", "nothing", "0.01"]).ok();
    }
    assert!(channel.state(endpoint).at("conns").int() <= WAITING as i64 + 1);
}

#[test]
fn a_cancelled_wait_takes_no_element() {
    let server = redis_or_skip!();
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&server.url("")).unwrap();
    channel.until_up(endpoint);
    let mut direct = server.direct();
    let blocked = |direct: &mut crate::redis::Direct| {
        let info = direct.call(&["INFO", "clients"]);
        let line = info.text().lines().find_map(|line| line.strip_prefix("blocked_clients:").map(str::to_string));
        line.unwrap().parse::<usize>().unwrap()
    };
    for round in 0..100 {
        let key = format!("list:{round}");
        let with = With { timeout_ms: if round % 3 == 0 { 5 } else { 0 }, ..PLAIN };
        let tag = channel.request(endpoint, with, &["BLPOP", &key, "0"]);
        let deadline = Instant::now() + Duration::from_millis(20);
        while with.timeout_ms == 0 && blocked(&mut direct) == 0 && Instant::now() < deadline {}
        if with.timeout_ms == 0 {
            channel.cancel(tag);
        }
        let status = channel.done(tag).status();
        assert!([IOK_STATUS_CANCELLED, IOK_STATUS_TIMEOUT].contains(&status), "{status}");
        // The server sees the wait's conn close after whatever it was doing; from then on no push is lost.
        let deadline = Instant::now() + LONG;
        while blocked(&mut direct) > 0 {
            assert!(Instant::now() < deadline, "the wait goes on in the server");
        }
        direct.call(&["RPUSH", &key, "kept"]);
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(direct.call(&["LLEN", &key]).int(), 1, "round {round}: a dead wait took the element");
    }
}
