//! Requests that are cancelled or expire at random moments, over a conn that stutters: no reply ever reaches another
//! request, and each request ends once.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::alone::{alone, bounded, resident_bytes, soak};
use crate::client::{Kernel, LONG, With};
use crate::proxy::Proxy;
use crate::{redis_or_skip, values};

const UNDER_WAY: usize = 256;

#[derive(Default, Debug)]
struct Tally {
    replied: usize,
    cancelled: usize,
    expired: usize,
}

#[test]
fn no_reply_reaches_another_request() {
    alone("cancel::no_reply_reaches_another_request", || {
        let count = if soak() { 1_000_000 } else { 100_000 };
        let server = redis_or_skip!();
        let proxy = Proxy::start(server.port, 7);
        proxy.plan.chunk_max.store(3000, Ordering::Relaxed);
        proxy.plan.delay_us.store(4000, Ordering::Relaxed);
        proxy.plan.delay_every.store(5, Ordering::Relaxed);
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&proxy.url("")).unwrap();
        channel.until_up(endpoint);
        let mut rng = fastrand::Rng::with_seed(42);
        let mut open: HashMap<u64, bool> = HashMap::new();
        let mut order: Vec<u64> = Vec::new();
        let mut tally = Tally::default();
        let begun = Instant::now();
        let (mut sent, mut resident) = (0, 0);
        while sent < count || !open.is_empty() {
            while sent < count && open.len() < UNDER_WAY {
                let tag = channel.tag();
                let timeout_ms = if rng.u8(0..3) == 0 { rng.u32(1..12) } else { 30_000 };
                let body = values::request(&["ECHO", &format!("tag-{tag}")]);
                let with = With { timeout_ms, ..With::default() };
                channel.submit(IOK_OP_REQUEST, tag, endpoint, with, &body).unwrap();
                open.insert(tag, false);
                order.push(tag);
                sent += 1;
                if rng.u8(0..3) == 0 {
                    // Any request that was begun: under way, cancelled already, or long gone.
                    let victim = order[rng.usize(order.len().saturating_sub(300)..order.len())];
                    channel.submit(IOK_OP_CANCEL, victim, 0, With::default(), &[]).unwrap();
                    open.entry(victim).and_modify(|cancelled| *cancelled = true);
                }
            }
            channel.flush();
            let mut wait = LONG;
            while let Some(done) = channel.next(wait) {
                wait = Duration::ZERO;
                let tag = done.head.tag;
                let was_cancelled = open.remove(&tag).expect("one final completion for each request");
                match done.status() {
                    IOK_STATUS_OK => {
                        assert_eq!(done.value().text(), format!("tag-{tag}"));
                        tally.replied += 1;
                    }
                    IOK_STATUS_CANCELLED => {
                        assert!(was_cancelled);
                        tally.cancelled += 1;
                    }
                    IOK_STATUS_TIMEOUT => tally.expired += 1,
                    status => panic!("{status}: {:?}", done.error()),
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(1200), "{tally:?}, {} open", open.len());
            if resident == 0 && sent > count / 4 {
                resident = resident_bytes();
            }
        }
        let grown = resident_bytes().saturating_sub(resident);
        println!("{count} requests in {:.1?}: {tally:?}, grown by {} KiB", begun.elapsed(), grown >> 10);
        assert!(channel.next(Duration::from_millis(50)).is_none(), "nothing follows a final completion");
        // Every way to end was met often.
        let least = tally.replied.min(tally.cancelled).min(tally.expired);
        assert!(least > count / 50, "{tally:?}");
        assert_eq!(proxy.plan.conns.load(Ordering::SeqCst), 1, "the conn lived through it all");
        bounded(grown, 16 << 20);
    });
}
