//! Every interleaving, and every reordering that the memory model allows, of the ring and the wake.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom`
//!
//! Tried by hand, to see the models fail: without the fence in `wake::announce`, or the one in `wake::claim`, all that
//! sleep end in a deadlock (a lost wake); with `Relaxed` for `Release` in `Producer::publish` or `Consumer::advance`, a
//! record is read while it is written; without the last look in `Doze::arm` the descriptor's models end in a deadlock;
//! without the count in `Doze::settle` the descriptor stays readable for nothing; with a plain store for the exchange in
//! `Bell::look` a ring is lost.
#![cfg(loom)]

use std::ptr::NonNull;
use std::time::Duration;

use iokernel::ring::Cells;
use iokernel::ring::consumer::Consumer;
use iokernel::ring::producer::Producer;
use iokernel::ring::wake::{self, Bell, Descriptor, Doze};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

const RECORD: usize = 16;
const RECORDS: usize = 2;

/// A ring of two records, each shadowed by a cell that loom watches.
struct Shared {
    head: AtomicU64,
    tail: AtomicU64,
    area: Box<[u64; 2 * RECORD * RECORDS / 8]>,
    shadows: [UnsafeCell<u64>; RECORDS],
    sleep: AtomicU32,
    wants_room: AtomicU32,
    fd: Fd,
    word: Word,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Shared {
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            area: Box::new([0; 2 * RECORD * RECORDS / 8]),
            shadows: [UnsafeCell::new(0), UnsafeCell::new(0)],
            sleep: AtomicU32::new(wake::AWAKE),
            wants_room: AtomicU32::new(0),
            fd: Fd::new(),
            word: Word::new(),
        })
    }

    /// The waker, after publishing.
    fn wake(&self) {
        if wake::wake_dozer(&self.sleep, &self.fd) {
            self.word.wake();
        }
    }

    fn slot(&self, place: NonNull<u8>) -> usize {
        (place.as_ptr() as usize - self.area.as_ptr() as usize) / RECORD % RECORDS
    }
}

// SAFETY: the area itself is never accessed; loom watches the rest.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

#[derive(Clone)]
struct Ends(Arc<Shared>);

impl Cells for Ends {
    fn head(&self) -> &AtomicU64 {
        &self.0.head
    }
    fn tail(&self) -> &AtomicU64 {
        &self.0.tail
    }
    fn data(&self) -> NonNull<u8> {
        NonNull::new(self.0.area.as_ptr() as *mut u8).unwrap()
    }
    fn capacity(&self) -> u64 {
        (RECORD * RECORDS) as u64
    }
}

/// A descriptor, as the system keeps it: under a lock.
struct Fd {
    signals: Mutex<u64>,
    news: Condvar,
}

impl Fd {
    fn new() -> Self {
        Fd { signals: Mutex::new(0), news: Condvar::new() }
    }

    /// poll(2), level-triggered.
    fn wait(&self) {
        let mut signals = self.signals.lock().unwrap();
        while *signals == 0 {
            signals = self.news.wait(signals).unwrap();
        }
    }

    fn is_readable(&self) -> bool {
        *self.signals.lock().unwrap() > 0
    }
}

impl Descriptor for Fd {
    fn raise(&self) {
        *self.signals.lock().unwrap() += 1;
        self.news.notify_all();
    }

    fn clear(&self) -> u64 {
        std::mem::take(&mut *self.signals.lock().unwrap())
    }
}

/// A futex, as the system keeps it: the word is compared under a lock that a waker takes too.
struct Word {
    lock: Mutex<()>,
    news: Condvar,
}

impl Word {
    fn new() -> Self {
        Word { lock: Mutex::new(()), news: Condvar::new() }
    }

    fn wait(&self, word: &AtomicU32, expected: u32) {
        let mut held = self.lock.lock().unwrap();
        while word.load(Ordering::Relaxed) == expected {
            held = self.news.wait(held).unwrap();
        }
    }

    fn wake(&self) {
        let _held = self.lock.lock().unwrap();
        self.news.notify_all();
    }
}

/// Writes one record; false if the ring is full.
fn write(shared: &Shared, producer: &mut Producer<Ends>, value: u64) -> bool {
    let Some(place) = producer.reserve(RECORD).unwrap() else { return false };
    // SAFETY: loom fails the model if anyone else has the cell.
    shared.shadows[shared.slot(place)].with_mut(|record| unsafe { *record = value });
    producer.push(RECORD);
    producer.publish();
    true
}

/// Reads what there is and gives its place back.
fn read(shared: &Shared, consumer: &mut Consumer<Ends>, found: &mut Vec<u64>) {
    let run = consumer.run().unwrap();
    for at in (0..run.bytes).step_by(RECORD) {
        // SAFETY: inside the run.
        let place = unsafe { run.start.add(at) };
        // SAFETY: as in `write`.
        found.push(shared.shadows[shared.slot(place)].with(|record| unsafe { *record }));
    }
    assert!(consumer.advance(run.bytes));
}

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 10_000;
    model.check(body);
}

#[test]
fn records_arrive_whole_and_in_order() {
    model(|| {
        let shared = Shared::new();
        let mut consumer = Consumer::new(Ends(shared.clone()));
        let writer = {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut producer = Producer::new(Ends(shared.clone()));
                for value in 1..=3 {
                    while !write(&shared, &mut producer, value) {
                        thread::yield_now();
                    }
                }
            })
        };
        let mut found = Vec::new();
        while found.len() < 3 {
            read(&shared, &mut consumer, &mut found);
            thread::yield_now();
        }
        assert_eq!(found, [1, 2, 3]);
        writer.join().unwrap();
    });
}

#[test]
fn a_sleeper_on_the_word_misses_nothing() {
    model(|| {
        let shared = Shared::new();
        let mut consumer = Consumer::new(Ends(shared.clone()));
        let kernel = {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut producer = Producer::new(Ends(shared.clone()));
                for value in 1..=2 {
                    assert!(write(&shared, &mut producer, value));
                    shared.wake();
                }
            })
        };
        let mut found = Vec::new();
        while found.len() < 2 {
            wake::announce(&shared.sleep, wake::ON_WORD);
            if !consumer.has_more() {
                shared.word.wait(&shared.sleep, wake::ON_WORD);
            }
            wake::withdraw(&shared.sleep);
            read(&shared, &mut consumer, &mut found);
        }
        kernel.join().unwrap();
    });
}

#[test]
fn a_watched_descriptor_is_readable_while_records_wait_and_only_then() {
    model(|| {
        let shared = Shared::new();
        let mut consumer = Consumer::new(Ends(shared.clone()));
        let kernel = {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut producer = Producer::new(Ends(shared.clone()));
                for value in 1..=2 {
                    assert!(write(&shared, &mut producer, value));
                    shared.wake();
                }
            })
        };
        let mut doze = Doze::default();
        doze.arm(&shared.sleep, &shared.fd, || consumer.has_more());
        let mut found = Vec::new();
        while found.len() < 2 {
            shared.fd.wait();
            read(&shared, &mut consumer, &mut found);
            thread::yield_now();
            doze.settle(&shared.sleep, &shared.fd, || consumer.has_more());
        }
        kernel.join().unwrap();
        // One wake that came late may be left; after it the descriptor is quiet, and armed.
        doze.settle(&shared.sleep, &shared.fd, || consumer.has_more());
        assert!(!shared.fd.is_readable());
        assert_eq!(shared.sleep.load(Ordering::Relaxed), wake::ON_FD);
    });
}

/// The program sleeps on the word for once, though a loop watches its descriptor.
#[test]
fn sleeping_both_ways_misses_nothing() {
    model(|| {
        let shared = Shared::new();
        let mut consumer = Consumer::new(Ends(shared.clone()));
        let kernel = {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut producer = Producer::new(Ends(shared.clone()));
                for value in 1..=2 {
                    assert!(write(&shared, &mut producer, value));
                    shared.wake();
                }
            })
        };
        let mut doze = Doze::default();
        doze.arm(&shared.sleep, &shared.fd, || consumer.has_more());
        let mut found = Vec::new();
        doze.disarm(&shared.sleep);
        wake::announce(&shared.sleep, wake::ON_WORD);
        if !consumer.has_more() {
            shared.word.wait(&shared.sleep, wake::ON_WORD);
        }
        wake::withdraw(&shared.sleep);
        doze.arm(&shared.sleep, &shared.fd, || consumer.has_more());
        while found.len() < 2 {
            shared.fd.wait();
            read(&shared, &mut consumer, &mut found);
            thread::yield_now();
            doze.settle(&shared.sleep, &shared.fd, || consumer.has_more());
        }
        kernel.join().unwrap();
    });
}

/// As `AppSide` does it: FULL, then a wait that ends when there is room.
#[test]
fn room_that_comes_back_wakes_whoever_was_refused() {
    model(|| {
        let shared = Shared::new();
        let mut producer = Producer::new(Ends(shared.clone()));
        assert!(write(&shared, &mut producer, 1) && write(&shared, &mut producer, 2));
        let kernel = {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut consumer = Consumer::new(Ends(shared.clone()));
                read(&shared, &mut consumer, &mut Vec::new());
                fence(Ordering::SeqCst);
                if shared.wants_room.load(Ordering::Relaxed) != 0 {
                    shared.wants_room.store(0, Ordering::Relaxed);
                    shared.wake();
                }
            })
        };
        while !write(&shared, &mut producer, 3) {
            shared.wants_room.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if write(&shared, &mut producer, 3) {
                break;
            }
            wake::announce(&shared.sleep, wake::ON_WORD);
            if shared.wants_room.load(Ordering::Relaxed) != 0 {
                shared.word.wait(&shared.sleep, wake::ON_WORD);
            }
            wake::withdraw(&shared.sleep);
        }
        kernel.join().unwrap();
    });
}

/// The kernel looks at the bell, then polls; two programs ring it.
#[test]
fn a_bell_that_is_looked_at_or_slept_on_is_heard() {
    model(|| {
        let rings = [Shared::new(), Shared::new()];
        let bell = Arc::new(Bell::with(Fd::new()));
        let programs = rings.clone().map(|shared| {
            let bell = bell.clone();
            thread::spawn(move || {
                let mut producer = Producer::new(Ends(shared.clone()));
                assert!(write(&shared, &mut producer, 1));
                bell.ring();
            })
        });
        let mut consumers = rings.clone().map(|shared| Consumer::new(Ends(shared)));
        let mut found = Vec::new();
        while found.len() < 2 {
            bell.announce(wake::LOOKING);
            if !consumers.iter().any(|consumer| consumer.has_more()) && !bell.look(Duration::ZERO) {
                bell.event().wait();
                // The edge is used up.
                bell.event().clear();
            }
            bell.withdraw();
            for (shared, consumer) in rings.iter().zip(&mut consumers) {
                read(shared, consumer, &mut found);
            }
        }
        for program in programs {
            program.join().unwrap();
        }
    });
}
