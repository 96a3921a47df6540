//! The page at the start of a region: what it is, where its areas are, and the words both sides share.

use std::sync::atomic::{AtomicU32, AtomicU64};

use super::layout::{
    IOK_ABI_VERSION, IOK_COMPLETION_BYTES, IOK_FEATURE_FRAGMENTS, IOK_FEATURE_LEASES, IOK_FEATURE_LISTENERS,
    IOK_FEATURE_PEERS, IOK_FEATURE_SENDS, IOK_FEATURE_SERVICES, IOK_FEATURE_STREAMS, IOK_FEATURE_TRACE, IOK_MAGIC,
    IOK_SUBMISSION_BYTES,
};

/// What this library can do.
pub const FEATURES: u64 = IOK_FEATURE_FRAGMENTS
    | IOK_FEATURE_SERVICES
    | IOK_FEATURE_LISTENERS
    | IOK_FEATURE_LEASES
    | IOK_FEATURE_STREAMS
    | IOK_FEATURE_PEERS
    | IOK_FEATURE_TRACE
    | IOK_FEATURE_SENDS;

/// Describes the region to whoever maps it; never changes after the channel was opened. Offsets are in the file, where
/// each area lies once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Description {
    pub magic: u64,
    pub abi_version: u32,
    /// Size of this description: longer in later versions.
    pub description_bytes: u32,
    pub features: u64,
    pub region_bytes: u64,
    pub words_offset: u32,
    pub words_bytes: u32,
    pub submission_head_bytes: u32,
    pub completion_head_bytes: u32,
    pub submissions_offset: u64,
    pub submissions_bytes: u64,
    pub completions_offset: u64,
    pub completions_bytes: u64,
}

impl Description {
    pub fn new(page_bytes: usize, submissions_bytes: usize, completions_bytes: usize) -> Self {
        Description {
            magic: IOK_MAGIC,
            abi_version: IOK_ABI_VERSION,
            description_bytes: size_of::<Description>() as u32,
            features: FEATURES,
            region_bytes: (page_bytes + submissions_bytes + completions_bytes) as u64,
            words_offset: WORDS_OFFSET as u32,
            words_bytes: size_of::<Words>() as u32,
            submission_head_bytes: IOK_SUBMISSION_BYTES,
            completion_head_bytes: IOK_COMPLETION_BYTES,
            submissions_offset: page_bytes as u64,
            submissions_bytes: submissions_bytes as u64,
            completions_offset: (page_bytes + submissions_bytes) as u64,
            completions_bytes: completions_bytes as u64,
        }
    }
}

/// Where the words lie in the page.
pub const WORDS_OFFSET: usize = 1024;

/// A value alone on its pair of cache lines (the prefetcher takes two).
#[repr(C, align(128))]
#[derive(Default)]
pub struct Line<T>(pub T);

/// The words both sides share. Zero at first.
#[repr(C)]
#[derive(Default)]
pub struct Words {
    /// Written by the program.
    pub submission_head: Line<AtomicU64>,
    /// Written by the kernel.
    pub submission_tail: Line<AtomicU64>,
    /// Written by the kernel.
    pub completion_head: Line<AtomicU64>,
    /// Written by the program.
    pub completion_tail: Line<AtomicU64>,
    /// How the program sleeps, see `wake`.
    pub app_sleep: Line<AtomicU32>,
    /// Not 0: the kernel waits for room in the completion ring.
    pub kernel_wants_room: Line<AtomicU32>,
    /// Not 0: the program waits for room in the submission ring.
    pub app_wants_room: Line<AtomicU32>,
    /// 0 while the channel lives, then the status (as bits) that ended it.
    pub ended: Line<AtomicU32>,
    /// Not 0: the program watches the descriptor.
    pub app_watches: Line<AtomicU32>,
}

const _: () = assert!(size_of::<Description>() <= WORDS_OFFSET);
const _: () = assert!(size_of::<Words>() == 9 * 128);
