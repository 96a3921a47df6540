//! Two rings in shared memory: submissions from the program, completions from the kernel; and the wake between them.
//!
//! # Architecture invariants
//! One writer and one reader per ring. Each side keeps its own cursor in private memory and publishes it; what it reads
//! of the other side's is checked, because the other side may be broken or hostile. A record is contiguous: the areas
//! are mapped twice in a row. No lock anywhere; no system call while both sides are awake.

#[cfg(not(loom))]
pub mod app;
pub mod consumer;
pub mod layout;
#[cfg(not(loom))]
pub mod page;
pub mod producer;
#[cfg(not(loom))]
pub mod record;
#[cfg(not(loom))]
pub mod region;
pub mod spin;
pub mod wake;

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

use std::ptr::NonNull;

use atomic::AtomicU64;

/// One ring's shared parts, however they are stored.
pub trait Cells {
    /// Where the writer is: bytes ever written.
    fn head(&self) -> &AtomicU64;
    /// Where the reader is: bytes ever read.
    fn tail(&self) -> &AtomicU64;
    /// Start of an area of which twice `capacity` bytes are addressable, the second half showing the first again.
    fn data(&self) -> NonNull<u8>;
    /// A power of two.
    fn capacity(&self) -> u64;
}

/// The other side's index makes no sense; the channel is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;
