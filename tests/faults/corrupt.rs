//! A program that writes nonsense into a ring loses that channel, and nothing else.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use iokernel::ring::layout::*;
use iokernel::ring::page::{Description, WORDS_OFFSET, Words};
use iokernel::status::*;

use crate::alone::alone;
use crate::client::{Channel, Kernel, LONG, PLAIN, last_error};
use crate::redis::RedisServer;
use crate::{redis_or_skip, values};

/// The page of each channel: its memfd's inode, and where its first bytes are mapped.
fn pages() -> Vec<(String, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.lines().filter(|line| line.contains("memfd:iokernel") && line.contains(" 00000000 "));
    ours.map(|line| {
        let inode = line.split_whitespace().nth(4).unwrap().to_string();
        (inode, usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap())
    })
    .collect()
}

/// The page of the channel opened since.
fn page_since(before: &[(String, usize)]) -> usize {
    pages().into_iter().find(|(inode, _)| !before.iter().any(|(old, _)| old == inode)).unwrap().1
}

struct Victim {
    kernel: Kernel,
    server: RedisServer,
    /// The channel that is spoilt.
    channel: Channel,
    page: usize,
    other: Channel,
    endpoint: u32,
}

impl Victim {
    fn open() -> Option<Self> {
        let server = RedisServer::start(&[])?;
        let kernel = Kernel::start();
        let mut other = kernel.channel("").unwrap();
        let endpoint = other.open(&server.url("")).unwrap();
        other.until_up(endpoint);
        let before = pages();
        let mut channel = kernel.channel("ring=64KiB").unwrap();
        channel.call(endpoint, PLAIN, &["SET", "k", "v"]).ok();
        let page = page_since(&before);
        Some(Victim { kernel, server, channel, page, other, endpoint })
    }

    fn words(&self) -> &Words {
        // SAFETY: the region stays mapped while the channel is open; there are only atomics in it.
        unsafe { &*((self.page + WORDS_OFFSET) as *const Words) }
    }

    fn description(&self) -> Description {
        // SAFETY: as above; the description never changes.
        unsafe { (self.page as *const Description).read() }
    }

    /// The channel ends, says why, and stays ended; a request that was under way elsewhere does not notice.
    fn judge(&mut self, how: &str) {
        self.other.flush();
        let deadline = Instant::now() + LONG;
        while self.channel.status() == IOK_STATUS_OK {
            assert!(Instant::now() < deadline, "{how}: the channel lives on");
            self.channel.flush();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.channel.status(), IOK_STATUS_CORRUPT, "{how}");
        let refused = self.channel.submit_raw(Submission { op: IOK_OP_ECHO, ..Submission::default() }, b"x");
        assert_eq!(refused.unwrap_err().1, "the ring is corrupt and its channel was closed", "{how}");
        self.channel.take_all();
        assert_eq!(self.channel.wait(LONG), IOK_STATUS_CORRUPT, "{how}: a wait returns at once");
        self.other.call(self.endpoint, PLAIN, &["GET", "k"]).ok();
        assert_eq!(self.channel.close(), IOK_STATUS_OK);
        let mut next = self.kernel.channel("").unwrap();
        assert_eq!(next.call(self.endpoint, PLAIN, &["GET", "k"]).ok().text(), "v");
    }
}

#[test]
fn nonsense_in_the_indices_ends_that_channel_alone() {
    alone("corrupt::nonsense_in_the_indices_ends_that_channel_alone", || {
        type Spoil = (&'static str, fn(&Words) -> &AtomicU64, u64);
        let spoil: [Spoil; 5] = [
            ("a head far ahead", |words| &words.submission_head.0, 1 << 40),
            ("a head that is not aligned", |words| &words.submission_head.0, 4097),
            ("a head that went back", |words| &words.submission_head.0, 0),
            ("a tail beyond what was published", |words| &words.completion_tail.0, 1 << 40),
            ("a tail that is not aligned", |words| &words.completion_tail.0, 3),
        ];
        for (how, word, value) in spoil {
            let Some(mut victim) = Victim::open() else { return };
            word(victim.words()).store(value, Ordering::SeqCst);
            if how.contains("tail") {
                // The kernel looks at the reader's place once it lacks room.
                for _ in 0..200 {
                    let body = vec![b'x'; 1000];
                    let head = Submission { op: IOK_OP_ECHO, ..Submission::default() };
                    if victim.channel.submit_raw(head, &body).is_err() {
                        victim.channel.wait(Duration::from_millis(1));
                    }
                }
            }
            victim.judge(how);
        }
    });
}

#[test]
fn random_words_stop_nobody_else() {
    alone("corrupt::random_words_stop_nobody_else", || {
        let mut rng = fastrand::Rng::with_seed(11);
        let server = redis_or_skip!();
        let kernel = Kernel::start();
        let mut other = kernel.channel("").unwrap();
        let endpoint = other.open(&server.url("")).unwrap();
        other.until_up(endpoint);
        for round in 0..200 {
            let before = pages();
            let mut channel = kernel.channel("ring=64KiB").unwrap();
            channel.request(endpoint, PLAIN, &["ECHO", "x"]);
            let page = page_since(&before);
            // SAFETY: the words of a region that stays mapped; each is written as an atomic.
            let words = unsafe { std::slice::from_raw_parts((page + WORDS_OFFSET) as *const AtomicU32, 9 * 32) };
            for _ in 0..rng.usize(1..6) {
                words[rng.usize(0..words.len())].store(rng.u32(..) >> rng.u32(0..32), Ordering::SeqCst);
            }
            for _ in 0..5 {
                let _ = channel.submit_raw(Submission { op: rng.u16(0..16), ..Submission::default() }, b"payload");
                channel.flush();
            }
            assert_eq!(other.call(endpoint, PLAIN, &["ECHO", "y"]).ok().text(), "y", "round {round}");
        }
    });
}

#[test]
fn a_record_of_impossible_size_ends_the_channel_and_repeats_nothing() {
    alone("corrupt::a_record_of_impossible_size_ends_the_channel_and_repeats_nothing", || {
        for size in [0, 39, 1 << 20, u32::MAX] {
            let Some(mut victim) = Victim::open() else { return };
            let Description { submissions_offset, .. } = victim.description();
            let head = victim.words().submission_head.0.load(Ordering::SeqCst);
            let at = victim.page as u64 + submissions_offset + head % (64 << 10);
            let body = values::request(&["INCR", "once"]);
            let good = Submission {
                size: IOK_SUBMISSION_BYTES + body.len() as u32,
                op: IOK_OP_REQUEST,
                endpoint: victim.endpoint,
                tag: 77,
                ..Submission::default()
            };
            let good_bytes = (good.size as u64 + 7) & !7;
            // SAFETY: inside the submission ring, beyond what was published; nobody reads it before the head moves.
            unsafe {
                (at as *mut Submission).write(good);
                let payload = (at + u64::from(IOK_SUBMISSION_BYTES)) as *mut u8;
                std::ptr::copy_nonoverlapping(body.as_ptr(), payload, body.len());
                ((at + good_bytes) as *mut Submission).write(Submission { size, ..good });
            }
            victim.words().submission_head.0.store(head + good_bytes + 64, Ordering::SeqCst);
            let mut direct = victim.server.direct();
            victim.judge(&format!("size {size}"));
            let count = direct.call(&["GET", "once"]).int();
            assert!(count <= 1, "the record before the corrupt one was taken {count} times");
        }
    });
}

#[test]
fn an_empty_ended_channel_says_why() {
    let kernel = Kernel::start();
    let mut channel = kernel.channel("").unwrap();
    kernel.close(Duration::ZERO);
    assert_eq!(channel.wait(LONG), IOK_STATUS_CLOSED);
    assert_eq!(channel.take_all(), 0);
    assert_eq!(channel.status(), IOK_STATUS_CLOSED);
    assert_eq!(last_error(), "channel: closed while the request was under way");
}
