//! One channel's shared memory: the page and two mirrored rings.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::page::{Description, WORDS_OFFSET, Words};
use super::wake;
use crate::sys::event::EventFd;
use crate::sys::futex;
use crate::sys::map::{MirroredMap, PAGE_BYTES};

/// Smallest and largest ring, in bytes.
pub const RING_BYTES: std::ops::RangeInclusive<usize> = PAGE_BYTES..=(1 << 30);

/// Shared by the program's side and the kernel's side of a channel.
pub struct Region {
    map: MirroredMap,
    submissions_bytes: usize,
    completions_bytes: usize,
    /// Readable while completions wait.
    pub bell: EventFd,
}

impl Region {
    /// Both sizes are powers of two within [`RING_BYTES`].
    pub fn new(submissions_bytes: usize, completions_bytes: usize) -> io::Result<Self> {
        let map = MirroredMap::new(submissions_bytes, completions_bytes)?;
        let description = Description::new(PAGE_BYTES, submissions_bytes, completions_bytes);
        // SAFETY: the page is writable, large enough (asserted in `page`), aligned, and not shared yet.
        unsafe { map.page().cast::<Description>().write(description) };
        Ok(Region { map, submissions_bytes, completions_bytes, bell: EventFd::new()? })
    }

    /// After publishing completions, or freeing room that was asked for: wakes the program if it sleeps.
    #[inline]
    pub fn wake_app(&self) {
        let flag = &self.words().app_sleep.0;
        if wake::wake_dozer(flag, &self.bell) {
            futex::wake(flag);
        }
    }

    /// Where the program's thread says how it sleeps.
    pub fn sleep_word(&self) -> &AtomicU32 {
        &self.words().app_sleep.0
    }

    /// The program's thread leads, and has heard of all that was published.
    pub fn is_leading(&self) -> bool {
        self.sleep_word().load(Ordering::Relaxed) == wake::LEADING
    }

    pub fn words(&self) -> &Words {
        // SAFETY: zeroed shared memory is a valid `Words`; only atomics are in it; it lives as long as the map.
        unsafe { self.map.page().add(WORDS_OFFSET).cast::<Words>().as_ref() }
    }
}

/// The submission ring of a region.
pub struct Submissions(pub Arc<Region>);

impl super::Cells for Submissions {
    fn head(&self) -> &super::atomic::AtomicU64 {
        &self.0.words().submission_head.0
    }
    fn tail(&self) -> &super::atomic::AtomicU64 {
        &self.0.words().submission_tail.0
    }
    fn data(&self) -> NonNull<u8> {
        self.0.map.first()
    }
    fn capacity(&self) -> u64 {
        self.0.submissions_bytes as u64
    }
}

/// The completion ring of a region.
pub struct Completions(pub Arc<Region>);

impl super::Cells for Completions {
    fn head(&self) -> &super::atomic::AtomicU64 {
        &self.0.words().completion_head.0
    }
    fn tail(&self) -> &super::atomic::AtomicU64 {
        &self.0.words().completion_tail.0
    }
    fn data(&self) -> NonNull<u8> {
        self.0.map.second()
    }
    fn capacity(&self) -> u64 {
        self.0.completions_bytes as u64
    }
}
