//! Knows whether this process is a forked child, and leaves nothing of the parent's for it to touch.
//!
//! A child has the parent's memory but not its I/O thread. After a fork, the handler below runs in the child before
//! anything else: it counts the fork, so that every older handle is known to be stale, and lays private zero pages
//! over each region, so that a pointer left from before the fork reads zeros and writes to nobody.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

static EPOCH: AtomicU32 = AtomicU32::new(1);
static INSTALL: Once = Once::new();

/// Regions that the handler can replace; later ones are simply absent in a child.
const REGIONS_MAX: usize = 1024;
static REGIONS: [(AtomicUsize, AtomicUsize); REGIONS_MAX] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; REGIONS_MAX];

/// A lock that no fork can leave held: the fork itself takes it.
pub struct ForkLock(AtomicBool);

static LOCK: ForkLock = ForkLock(AtomicBool::new(false));

impl ForkLock {
    fn acquire(&self) {
        while self.0.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn release(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Runs `body` alone in the process. For short work that neither blocks nor forks.
pub fn exclusive<T>(body: impl FnOnce() -> T) -> T {
    struct Held;
    impl Drop for Held {
        fn drop(&mut self) {
            LOCK.release();
        }
    }
    LOCK.acquire();
    let _held = Held;
    body()
}

/// Changes in a forked child, and never back.
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed)
}

/// Makes forks known from here on. Cheap after the first call.
pub fn watch() {
    INSTALL.call_once(|| {
        // SAFETY: the three handlers are functions that live as long as the library, which is never unloaded
        // (-z nodelete).
        unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
    });
}

extern "C" fn before() {
    LOCK.acquire();
}

extern "C" fn after_in_parent() {
    LOCK.release();
}

extern "C" fn after_in_child() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
    for (start, bytes) in &REGIONS {
        let (start, bytes) = (start.swap(0, Ordering::Relaxed), bytes.swap(0, Ordering::Relaxed));
        if start != 0 && bytes != 0 {
            super::map::blank(start, bytes);
        }
    }
    LOCK.release();
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
