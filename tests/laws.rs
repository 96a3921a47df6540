//! The laws of `src/proto/mod.rs`, for every row of the protocol table, on both sides.
mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use iokernel::proto::{Class, Follow, Limits, Sample, Scheme, Sharing, TABLE};
use proptest::prelude::*;
use rig::{FOLLOWS, LIMITS, Rig, script};

/// Each sample with its scheme, plain and raw, whatever is followed.
fn each_sample(mut test: impl FnMut(&Scheme, &Sample, Limits)) {
    for scheme in TABLE.iter().filter(|scheme| !scheme.samples.is_empty()) {
        for sample in scheme.samples {
            for (raw, follow) in [false, true].into_iter().flat_map(|raw| FOLLOWS.map(|follow| (raw, follow))) {
                let limits = Limits { raw, follow, ..LIMITS };
                // A listener follows nobody, nor does who has a conn for each request; and that knows no frames.
                let is_plain = !raw && follow == Follow::Nothing;
                let concerns = is_plain
                    || scheme.sharing != Sharing::Exclusive && (sample.from_server || follow == Follow::Nothing);
                if concerns && rig::try_driver(scheme, sample.url, &limits).is_some() {
                    test(scheme, sample, limits);
                }
            }
        }
    }
}

/// Events and wire bytes of a sample that arrives in pieces of these sizes, again and again.
fn run(scheme: &Scheme, sample: &Sample, limits: Limits, sizes: &[usize]) -> (Vec<String>, Vec<u8>) {
    let mut rig = Rig::of_sample(scheme, sample, limits);
    rig.replies_held = 2;
    let mut rest = sample.bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, after) = rest.split_at((*size).min(rest.len()));
        rig.feed(part);
        rest = after;
    }
    let (events, wire) = rig.finish();
    // Masks are random.
    if sample.name.contains("websocket") { (events, Vec::new()) } else { (events, wire) }
}

#[test]
fn samples_make_events_and_no_fault_but_where_they_say_so() {
    each_sample(|scheme, sample, limits| {
        if limits.follow != sample.follow {
            return;
        }
        let (events, _) = run(scheme, sample, limits, &[usize::MAX]);
        let faulted = events.iter().any(|line| line.starts_with("fault"));
        let expected = ["refused", "not redis", "not http"].contains(&sample.name);
        assert_eq!(faulted, expected, "{} {}: {events:#?}", scheme.name, sample.name);
        let ends = ["Reply", "Rejected", "Refused"];
        let replies = events.iter().filter(|line| ends.iter().any(|end| line.starts_with(end))).count();
        let requests = sample.requests.iter().filter(|body| {
            let driver = rig::driver(scheme, sample.url, &limits);
            !matches!(driver.classify(body, false).map(|need| need.class), Ok(Class::Topics(_)))
        });
        let unanswered = usize::from(sample.name == "not http");
        assert_eq!(replies, requests.count() - unanswered, "{} {}: {events:#?}", scheme.name, sample.name);
    });
}

#[test]
fn law_1_two_pieces_cut_anywhere_give_the_same_events() {
    each_sample(|scheme, sample, limits| {
        let whole = run(scheme, sample, limits, &[usize::MAX]);
        for cut in 1..sample.bytes.len() {
            assert_eq!(run(scheme, sample, limits, &[cut, usize::MAX]), whole, "{} cut at {cut}", sample.name);
        }
        assert_eq!(run(scheme, sample, limits, &[1]), whole, "{} byte by byte", sample.name);
    });
}

#[test]
fn law_5_timeouts_move_and_silence_is_found() {
    for scheme in TABLE.iter().filter(|scheme| !scheme.samples.is_empty()) {
        for sample in scheme.samples.iter().filter(|sample| sample.from_server) {
            let mut rig = Rig::of_sample(scheme, sample, Limits { follow: sample.follow, ..LIMITS });
            rig.feed(sample.bytes);
            let idle = !rig.faulted && rig.conn.poll_timeout().is_some();
            let sent = rig.wire.len();
            rig.pass(LIMITS.heartbeat);
            assert_eq!(rig.wire.len() > sent, idle, "{}: a heartbeat is sent when it is due", sample.name);
            rig.pass(LIMITS.silence_max * 3);
            let silent = rig.log.lines.last().is_some_and(|line| line == "fault Silent");
            assert_eq!(silent, idle, "{}: silence after a heartbeat is a fault", sample.name);
            rig.finish();
        }
    }
}

/// Counts the bytes that each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Hostile tails: each is sent after a sample, over and over.
const HOSTILE: &[&[u8]] = &[
    b"*1000000000\r\n",
    b"*1000\r\n",
    b"$1000000000\r\n",
    b"$99999999999999999999999\r\n",
    b"*?\r\n",
    b"*?\r\n:1\r\n",
    b"$?\r\n;3\r\nabc\r\n",
    b";3\r\nabc\r\n",
    b"|1\r\n+a\r\n",
    b"~0\r\n",
    b"%1\r\n",
    b"*1\r\n",
    b">1\r\n",
    b"$-1\r\n",
    b"+aaaaaaaa",
    b"aaaaaaaa",
    b"GET a\r\n",
    b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: aaaa\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\naaaaaaaaaaaaaaa\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nf\r\naaaaaaaaaaaaaaa\r\n",
    b"\x01\x04aaaa",
];

#[test]
fn law_6_buffers_stay_under_their_limits() {
    const MESSAGE: usize = 256 << 10;
    each_sample(|scheme, sample, limits| {
        let limits = Limits { message_bytes_max: MESSAGE, depth_max: 1000, ..limits };
        for hostile in HOSTILE {
            let mut rig = Rig::of_sample(scheme, sample, limits);
            rig.feed(sample.bytes);
            rig.log.lines = Vec::with_capacity(10);
            let before = HELD.get();
            PEAK.set(before);
            let tail = hostile.repeat(64);
            for _ in 0..8 * MESSAGE / tail.len() {
                rig.feed(&tail);
                rig.wire.clear();
                rig.log.lines.clear();
                if rig.faulted {
                    break;
                }
            }
            // Input that waits for its end, its MessagePack, its raw copy; each may have been doubled while it grew.
            let held = PEAK.get() - before;
            let max = 8 * MESSAGE as isize;
            assert!(held < max, "{} then {}: {held} bytes held", sample.name, hostile.escape_ascii());
        }
    });
}

#[test]
fn two_machines_joined_in_memory_stay_alive_and_answer() {
    // Of some protocols there is a client alone.
    let has_server = |scheme: &&Scheme| {
        let limits = Limits { listener: true, ..LIMITS };
        scheme.samples.first().is_some_and(|sample| rig::try_driver(scheme, sample.url, &limits).is_some())
    };
    for (scheme, follow) in TABLE.iter().filter(has_server).flat_map(|scheme| FOLLOWS.map(|follow| (scheme, follow))) {
        let url = scheme.samples[0].url;
        let limits = Limits { inflight_max: 64, follow, ..LIMITS };
        let (mut client, mut server) = (Rig::new(scheme, url, true, limits), Rig::new(scheme, url, false, limits));
        let shared: Vec<&[u8]> = scheme
            .samples
            .iter()
            .flat_map(|sample| sample.requests.iter().copied())
            .filter(|body| client.driver.classify(body, false).map(|need| need.class) == Ok(Class::Shared))
            .collect();
        if shared.is_empty() {
            // Without requests that share a conn there are no heartbeats between two machines.
            continue;
        }
        let (mut sent, mut piece, mut heartbeats) = (0, 1, 0);
        for turn in 0..600 {
            server.replies_held = turn % 7;
            for rounds in 0..turn % 5 {
                sent += usize::from(client.request(shared[(turn + rounds) % shared.len()]));
            }
            for _ in 0..4 {
                piece = piece * 5 % 97 + 1;
                join(&mut client, &mut server, piece);
                join(&mut server, &mut client, piece);
            }
            if turn % 10 == 9 {
                // Heartbeats are answered in their turn, so a program must not hold replies for as long as this.
                server.reply_all(b"\xc0");
                join(&mut server, &mut client, usize::MAX);
                client.pass(LIMITS.heartbeat);
                heartbeats += usize::from(!client.wire.is_empty());
            }
            client.pass(Duration::from_millis(10));
            server.pass(Duration::from_millis(10));
        }
        join(&mut client, &mut server, usize::MAX);
        server.reply_all(b"\xc0");
        join(&mut server, &mut client, usize::MAX);
        assert!(heartbeats > 50, "{heartbeats} heartbeats");
        assert!(!client.faulted && !server.faulted, "{:?} {:?}", client.log.lines.last(), server.log.lines.last());
        let (events, _) = client.finish();
        let replies = events.iter().filter(|line| line.starts_with("Reply")).count();
        assert!(sent > 500, "{sent}");
        assert_eq!(replies, sent, "every request was replied to");
    }
}

/// Carries what one wrote to the other, in pieces.
fn join(from: &mut Rig, to: &mut Rig, piece: usize) {
    for part in std::mem::take(&mut from.wire).chunks(piece) {
        to.feed(part);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn law_1_any_split_gives_the_same_events(sizes in prop::collection::vec(1usize..40, 1..12)) {
        for scheme in TABLE.iter().filter(|scheme| !scheme.samples.is_empty()) {
            for sample in scheme.samples {
                let limits = Limits { follow: sample.follow, ..LIMITS };
                let whole = run(scheme, sample, limits, &[usize::MAX]);
                prop_assert_eq!(run(scheme, sample, limits, &sizes), whole, "{}", sample.name);
            }
        }
    }

    #[test]
    fn law_1_holds_for_mutated_bytes(
        choice: usize,
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        sizes in prop::collection::vec(1usize..40, 1..12),
    ) {
        for scheme in TABLE.iter().filter(|scheme| !scheme.samples.is_empty()) {
            let sample = &scheme.samples[choice % scheme.samples.len()];
            let mut bytes = sample.bytes.to_vec();
            for (at, byte) in &changes {
                let at = at % bytes.len();
                bytes[at] = *byte;
            }
            let mutated = Sample { bytes: Vec::leak(bytes), ..*sample };
            let limits = Limits { follow: sample.follow, ..LIMITS };
            let whole = run(scheme, &mutated, limits, &[usize::MAX]);
            prop_assert_eq!(run(scheme, &mutated, limits, &sizes), whole);
        }
    }

    #[test]
    fn no_sequence_of_operations_breaks_a_law(data in prop::collection::vec(any::<u8>(), 0..400)) {
        for scheme in TABLE.iter().filter(|scheme| !scheme.samples.is_empty()) {
            script(scheme, &data);
        }
    }

    #[test]
    fn no_sequence_of_operations_breaks_a_law_of_http(data in prop::collection::vec(any::<u8>(), 0..200)) {
        rig::http::client(&data);
        rig::http::server(&data);
    }
}
