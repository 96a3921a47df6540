//! The conn is cut at every byte of a pipelined exchange: each request ends once, its fate is true, and nothing is
//! executed twice unless the program allowed it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::alone::soak;
use crate::client::{Channel, Kernel, LONG, With};
use crate::proxy::{Proxy, Way};
use crate::redis::RedisServer;
use crate::{redis_or_skip, values};

const PIPELINED: usize = 6;

/// What each key's counter may be in the end.
type Expected = HashMap<String, (i64, i64)>;

struct Exchange {
    server: RedisServer,
    proxy: Proxy,
    channel: Channel,
    endpoint: u32,
    expected: Expected,
    retried: usize,
    _kernel: Kernel,
}

impl Exchange {
    fn start(server: RedisServer) -> Self {
        let proxy = Proxy::start(server.port, 1);
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint =
            channel.open(&proxy.url("backoff=1ms&max_backoff=5ms&heartbeat=60s&retry_budget=100%25")).unwrap();
        channel.until_up(endpoint);
        Exchange { server, proxy, channel, endpoint, expected: HashMap::new(), retried: 0, _kernel: kernel }
    }

    /// One pipelined burst, each request with a counter of its own; every other one may be repeated.
    fn burst(&mut self, name: &str) {
        let mut keys = HashMap::new();
        for at in 0..PIPELINED {
            let key = format!("{name}:{at}");
            let idempotent = at % 2 == 1;
            let with = With { flags: if idempotent { IOK_FLAG_IDEMPOTENT } else { 0 }, ..With::default() };
            let tag = self.channel.tag();
            let body = values::request(&["INCR", &key]);
            self.channel.submit(IOK_OP_REQUEST, tag, self.endpoint, with, &body).unwrap();
            keys.insert(tag, (key, idempotent));
        }
        self.channel.flush();
        while !keys.is_empty() {
            let done = self.channel.next(LONG).expect("each request ends");
            self.proxy.heal();
            let (key, idempotent) = keys.remove(&done.head.tag).expect("each request ends once");
            let most = if idempotent { 4 } else { 1 };
            let bounds = match (done.status(), done.head.fate) {
                (IOK_STATUS_OK, IOK_FATE_REPLIED) => {
                    self.retried += usize::from(done.value().int() > 1);
                    (1, most)
                }
                (IOK_STATUS_LOST, IOK_FATE_MAYBE_EXECUTED) => (0, most),
                (IOK_STATUS_LOST, IOK_FATE_NOT_SENT) => (0, 0),
                other => panic!("{name}: {other:?} {:?}", done.error()),
            };
            assert!(!idempotent || done.status() == IOK_STATUS_OK, "what may be repeated is repeated: {done:?}");
            self.expected.insert(key, bounds);
        }
        self.proxy.heal();
        self.channel.until_up(self.endpoint);
    }

    /// Asks the server itself.
    fn judge(mut self) {
        assert!(self.channel.next(Duration::from_millis(100)).is_none());
        let mut direct = self.server.direct();
        for (key, (least, most)) in &self.expected {
            let count = direct.call(&["GET", key]).int();
            assert!((*least..=*most).contains(&count), "{key} is {count}, expected {least} to {most}");
        }
    }
}

#[test]
fn cut_at_every_byte() {
    let server = redis_or_skip!();
    let mut exchange = Exchange::start(server);
    let before = [exchange.proxy.passed(Way::ToServer), exchange.proxy.passed(Way::ToClient)];
    exchange.burst("k:s:000");
    let long = [exchange.proxy.passed(Way::ToServer) - before[0], exchange.proxy.passed(Way::ToClient) - before[1]];
    let step = if soak() { 1 } else { 2 };
    for way in [Way::ToServer, Way::ToClient] {
        for cut in (0..=long[way as usize]).step_by(if way == Way::ToClient { 1 } else { step }) {
            exchange.proxy.cut_after(way, cut);
            exchange.burst(&format!("k:{}:{cut:03}", way as usize));
        }
    }
    let conns = exchange.proxy.plan.conns.load(Ordering::SeqCst);
    println!("{conns} conns, {} requests answered after a repetition", exchange.retried);
    assert!(conns as u64 > (long[0] / step as u64 + long[1]) / 2, "the cuts did cut");
    assert!(exchange.retried > 0, "some request was executed, lost and repeated");
    exchange.judge();
}

/// Large requests to a peer that takes nothing: what never left is NOT_SENT, and was not executed.
#[test]
fn what_did_not_fit_the_socket_is_not_sent() {
    let server = redis_or_skip!();
    let proxy = Proxy::start(server.port, 1);
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&proxy.url("backoff=1ms")).unwrap();
    channel.until_up(endpoint);
    proxy.plan.stalled.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(60));
    let filler = "x".repeat(300 << 10);
    let tags: Vec<u64> = (0..80)
        .map(|at| {
            channel.request(
                endpoint,
                With { timeout_ms: 60_000, ..With::default() },
                &["SET", &format!("big:{at}"), &filler],
            )
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    proxy.cut_after(Way::ToServer, 0);
    let mut fates = Vec::new();
    for tag in &tags {
        let done = channel.done(*tag);
        proxy.heal();
        proxy.plan.stalled.store(false, Ordering::SeqCst);
        fates.push((done.status(), done.head.fate));
    }
    let mut direct = server.direct();
    let (mut unsent, mut doubtful, mut sent_later) = (0, 0, 0);
    for (at, fate) in fates.iter().enumerate() {
        let exists = direct.call(&["EXISTS", &format!("big:{at}")]).int() == 1;
        match fate {
            (IOK_STATUS_LOST, IOK_FATE_NOT_SENT) => {
                assert!(!exists, "big:{at} was executed, and its fate said NOT_SENT");
                unsent += 1;
            }
            (IOK_STATUS_LOST, IOK_FATE_MAYBE_EXECUTED) => doubtful += 1,
            // Those that waited for room on the conn had kept their payload and travelled on the next one.
            (IOK_STATUS_OK, IOK_FATE_REPLIED) => {
                assert!(exists);
                sent_later += 1;
            }
            other => panic!("big:{at}: {other:?}"),
        }
    }
    println!("{unsent} not sent, {doubtful} in doubt, {sent_later} sent on the next conn");
    assert!(doubtful > 0 && unsent > 0 && sent_later > 0, "{fates:?}");
}

/// A request that may be repeated was executed, lost its conn, and never got another: that is not NOT_SENT.
#[test]
fn what_was_sent_once_stays_in_doubt() {
    let server = redis_or_skip!();
    let proxy = Proxy::start(server.port, 1);
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    let endpoint = channel.open(&proxy.url("backoff=1ms&max_backoff=5ms")).unwrap();
    // Its reply comes after the last one of the handshake.
    assert_eq!(channel.call(endpoint, With::default(), &["PING"]).status(), IOK_STATUS_OK);
    proxy.cut_after(Way::ToClient, 1);
    proxy.plan.closed.store(true, Ordering::SeqCst);
    let with = With { flags: IOK_FLAG_IDEMPOTENT, timeout_ms: 300, key: 0 };
    let sent = channel.call(endpoint, with, &["INCR", "doubt"]);
    let executed = server.direct().call(&["GET", "doubt"]).int();
    assert_eq!((sent.status(), executed), (IOK_STATUS_UNAVAILABLE, 1), "{:?}", sent.error());
    assert_eq!(sent.head.fate, IOK_FATE_MAYBE_EXECUTED, "{:?}", sent.error());
}
