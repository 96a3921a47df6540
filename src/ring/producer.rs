//! The writing side of a ring.

use std::ptr::NonNull;

use super::atomic::Ordering;
use super::{Cells, Corrupt};
use crate::ring::layout::aligned;

/// Writes records and publishes them. One per ring.
pub struct Producer<C: Cells> {
    cells: C,
    /// Bytes written, of which those up to `published` can be read.
    head: u64,
    published: u64,
    /// The reader's position when it was last looked at.
    seen_tail: u64,
}

impl<C: Cells> Producer<C> {
    pub fn new(cells: C) -> Self {
        Producer { cells, head: 0, published: 0, seen_tail: 0 }
    }

    /// Room for a record of `bytes`: where to write it, or None while the ring is too full.
    #[inline]
    pub fn reserve(&mut self, bytes: usize) -> Result<Option<NonNull<u8>>, Corrupt> {
        let wanted = aligned(bytes) as u64;
        if self.free() < wanted {
            self.look()?;
            if self.free() < wanted {
                return Ok(None);
            }
        }
        let at = (self.head & (self.cells.capacity() - 1)) as usize;
        // SAFETY: `at` is below the capacity and the record no longer than it; twice the capacity is addressable.
        Ok(Some(unsafe { self.cells.data().add(at) }))
    }

    /// Bytes that can be written for certain.
    #[inline]
    fn free(&self) -> u64 {
        self.cells.capacity() - (self.head - self.seen_tail)
    }

    /// Bytes that can be written, after a look at the reader's position.
    pub fn room(&mut self) -> Result<u64, Corrupt> {
        self.look()?;
        Ok(self.free())
    }

    /// Bytes that were published and not read.
    pub fn unread(&mut self) -> Result<u64, Corrupt> {
        self.look()?;
        Ok(self.published - self.seen_tail)
    }

    fn look(&mut self) -> Result<(), Corrupt> {
        let tail = self.cells.tail().load(Ordering::Acquire);
        // The reader moves forward only, in whole records, and never past what was published.
        if tail < self.seen_tail || tail > self.published || !tail.is_multiple_of(8) {
            return Err(Corrupt);
        }
        self.seen_tail = tail;
        Ok(())
    }

    /// The record of `bytes` at the last `reserve` is complete. It is not yet to be seen.
    #[inline]
    pub fn push(&mut self, bytes: usize) {
        self.head += aligned(bytes) as u64;
        debug_assert!(self.head - self.seen_tail <= self.cells.capacity());
    }

    /// Shows all complete records to the reader. True if there was one to show.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.published == self.head {
            return false;
        }
        self.published = self.head;
        self.cells.head().store(self.head, Ordering::Release);
        true
    }
}
