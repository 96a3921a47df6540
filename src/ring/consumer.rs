//! The reading side of a ring.

use std::ptr::NonNull;

use super::atomic::Ordering;
use super::{Cells, Corrupt};

/// Reads runs of records. One per ring.
pub struct Consumer<C: Cells> {
    cells: C,
    /// Bytes done with.
    tail: u64,
    /// The writer's position when it was last looked at.
    seen_head: u64,
}

/// Contiguous bytes in the ring, a whole number of records if the writer is honest.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub start: NonNull<u8>,
    pub bytes: usize,
}

impl<C: Cells> Consumer<C> {
    pub fn new(cells: C) -> Self {
        Consumer { cells, tail: 0, seen_head: 0 }
    }

    /// What can be read now; empty when there is nothing.
    #[inline]
    pub fn run(&mut self) -> Result<Run, Corrupt> {
        let head = self.cells.head().load(Ordering::Acquire);
        if head != self.seen_head {
            if head < self.seen_head || head - self.tail > self.cells.capacity() || !head.is_multiple_of(8) {
                return Err(Corrupt);
            }
            self.seen_head = head;
        }
        let at = (self.tail & (self.cells.capacity() - 1)) as usize;
        // SAFETY: `at` is below the capacity; the run is no longer than it; twice the capacity is addressable.
        let start = unsafe { self.cells.data().add(at) };
        Ok(Run { start, bytes: (self.seen_head - self.tail) as usize })
    }

    /// True if the writer has published what was not read yet. One load.
    #[inline]
    pub fn has_more(&self) -> bool {
        self.cells.head().load(Ordering::Acquire) != self.tail
    }

    /// Done with the first `bytes` of the run: the writer may use their place again. False if that is more than the
    /// run had, or not a whole number of aligned records.
    #[inline]
    pub fn advance(&mut self, bytes: usize) -> bool {
        if !bytes.is_multiple_of(8) || bytes as u64 > self.seen_head - self.tail {
            return false;
        }
        self.tail += bytes as u64;
        self.cells.tail().store(self.tail, Ordering::Release);
        true
    }
}
