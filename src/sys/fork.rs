//! Knows whether this process is a forked child, and leaves nothing of the parent's for it to touch.
//!
//! A child has the parent's memory and descriptors but not its I/O thread. After a fork, the handler below runs in the
//! child before anything else: it counts the fork, so that every older handle is known to be stale; it lays private zero
//! pages over each region, so that a pointer left from before the fork reads zeros and writes to nobody; and it closes
//! the child's copies of every descriptor of ours, so that no conn, poll or region outlives the parent by them.
//!
//! # Architecture invariants
//! The one lock that a child may find held is [`exclusive`]'s, and forks take it themselves. Everything else that has a
//! lock belongs to a kernel, and a kernel of the parent's is never entered in a child.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

static EPOCH: AtomicU32 = AtomicU32::new(1);

/// Regions that the handler can replace; later ones are simply absent in a child.
const REGIONS_MAX: usize = 1024;
static REGIONS: [(AtomicUsize, AtomicUsize); REGIONS_MAX] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; REGIONS_MAX];

/// Descriptors that the handler can close; later ones stay open in a child until it runs another program.
const FDS_MAX: usize = 1 << 16;
/// A bit for each descriptor of ours.
static FDS: [AtomicU64; FDS_MAX / 64] = [const { AtomicU64::new(0) }; FDS_MAX / 64];

/// The thread that runs alone; 0: nobody.
static OWNER: AtomicUsize = AtomicUsize::new(0);
/// A fork that came inside of an [`exclusive`] body of its own thread, by a signal's handler.
static INSIDE: AtomicBool = AtomicBool::new(false);

const UNKNOWN: i32 = 0;
const KNOWN: i32 = -1;
/// Whether forks are known: `UNKNOWN`, `KNOWN`, or the process that is about to see to it.
static WATCHED: AtomicI32 = AtomicI32::new(UNKNOWN);

fn this_thread() -> usize {
    // SAFETY: no arguments; it only reads the thread's own register.
    unsafe { libc::pthread_self() as usize }
}

fn acquire() {
    let me = this_thread();
    while OWNER.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
        std::thread::yield_now();
    }
}

fn release() {
    OWNER.store(0, Ordering::Release);
}

/// Runs `body` alone in the process, and lets nobody fork meanwhile. For short work that neither blocks nor forks. A
/// body may come here again.
pub fn exclusive<T>(body: impl FnOnce() -> T) -> T {
    struct Held;
    impl Drop for Held {
        fn drop(&mut self) {
            release();
        }
    }
    watch();
    if OWNER.load(Ordering::Relaxed) == this_thread() {
        return body();
    }
    acquire();
    let _held = Held;
    body()
}

/// Changes in a forked child, and never back.
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed)
}

/// Makes forks known from here on. Cheap after the first call.
///
/// No `Once`: a child that was forked in the middle of one would wait for it for ever. Here it sees that the process at
/// work is not its own, and does the work itself.
pub fn watch() {
    loop {
        let seen = WATCHED.load(Ordering::Acquire);
        if seen == KNOWN {
            return;
        }
        // SAFETY: no arguments.
        let me = unsafe { libc::getpid() };
        if seen != me && WATCHED.compare_exchange(seen, me, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // SAFETY: the three handlers are functions that live as long as the library, which is never unloaded
            // (-z nodelete).
            unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
            WATCHED.store(KNOWN, Ordering::Release);
            return;
        }
        std::thread::yield_now();
    }
}

extern "C" fn before() {
    if OWNER.load(Ordering::Relaxed) == this_thread() {
        return INSIDE.store(true, Ordering::Relaxed);
    }
    acquire();
}

extern "C" fn after_in_parent() {
    if !INSIDE.swap(false, Ordering::Relaxed) {
        release();
    }
}

extern "C" fn after_in_child() {
    WATCHED.store(KNOWN, Ordering::Relaxed);
    EPOCH.fetch_add(1, Ordering::Relaxed);
    for (start, bytes) in &REGIONS {
        let (start, bytes) = (start.swap(0, Ordering::Relaxed), bytes.swap(0, Ordering::Relaxed));
        if start != 0 && bytes != 0 {
            super::map::blank(start, bytes);
        }
    }
    super::shared::follow();
    for (word, fds) in FDS.iter().enumerate() {
        close_each(word * 64, fds.swap(0, Ordering::Relaxed));
    }
    if !INSIDE.swap(false, Ordering::Relaxed) {
        release();
    }
}

/// Closes the descriptors whose bits are set.
fn close_each(first: usize, mut bits: u64) {
    while bits != 0 {
        let fd = first + bits.trailing_zeros() as usize;
        // SAFETY: a descriptor of ours, and whoever owned it never closes it in this process: see `Owned`.
        unsafe { libc::close(fd as libc::c_int) };
        bits &= bits - 1;
    }
}

fn bit(fd: i32) -> Option<(&'static AtomicU64, u64)> {
    let fd = usize::try_from(fd).ok()?;
    Some((FDS.get(fd / 64)?, 1 << (fd % 64)))
}

/// Has the descriptor closed in forked children.
pub(super) fn mark(fd: i32) {
    if let Some((word, bit)) = bit(fd) {
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

/// Before the descriptor is closed.
pub(super) fn unmark(fd: i32) {
    if let Some((word, bit)) = bit(fd) {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Has the range replaced in forked children.
pub(super) fn register(start: usize, bytes: usize) -> bool {
    exclusive(|| {
        let free = REGIONS.iter().find(|(place, _)| place.load(Ordering::Relaxed) == 0);
        let Some((place, size)) = free else { return false };
        size.store(bytes, Ordering::Relaxed);
        place.store(start, Ordering::Relaxed);
        true
    })
}

/// Before the range is unmapped.
pub(super) fn unregister(start: usize) {
    exclusive(|| {
        for (place, size) in &REGIONS {
            if place.load(Ordering::Relaxed) == start {
                place.store(0, Ordering::Relaxed);
                size.store(0, Ordering::Relaxed);
            }
        }
    });
}
