//! What threads are doing, as they say: markers, written by plain stores into slots of the process's block.
//!
//! A thread has one slot, and a slot has places for [`FRAMES`] markers at a time. A marker that was left stays readable
//! until its place is used again, so that a request that was submitted inside of it can still be told apart.
//!
//! # A slot: [`SLOT_BYTES`] bytes, as `iok_marker_slot` in the header
//!
//! | bytes | |
//! |---|---|
//! | 0 | u32: the thread's number (tid), 0 for a slot that nobody has |
//! | 4 | u32: serial of the marker that was entered last and not left, 0 for none |
//! | 8 | u32: the last serial that was given; its upper 6 bits are the slot's own |
//! | 12 | u32: markers that found no place |
//! | 64 + 64 n | place n: u32 serial, u32 length of the text in bytes and [`ACTIVE`], 56 bytes of text (UTF-8) |

use std::sync::atomic::{AtomicU64, Ordering};

pub const SLOT_BYTES: usize = 1024;
pub const SLOT_WORDS: usize = SLOT_BYTES / 8;
pub const FRAMES: usize = 15;
pub const FRAME_WORDS: usize = 8;
pub const TEXT_BYTES: usize = 56;
/// Beside the length of a place: the marker was entered and not left.
pub const ACTIVE: u32 = 1 << 31;

/// One marker as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub serial: u32,
    pub active: bool,
    pub text: String,
}

/// The slots among the words of [`super::area::Area::markers`].
pub fn slots(words: &[AtomicU64]) -> impl Iterator<Item = Slot<'_>> {
    words.chunks_exact(SLOT_WORDS).map(Slot)
}

pub struct Slot<'a>(pub &'a [AtomicU64]);

impl Slot<'_> {
    fn word(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Acquire)
    }

    /// Whose it is; 0: nobody's.
    pub fn tid(&self) -> u32 {
        self.word(0) as u32
    }

    /// The markers in its places, those that were left included, in no order.
    pub fn markers(&self) -> impl Iterator<Item = Marker> + '_ {
        (0..FRAMES).filter_map(|frame| self.marker(frame))
    }

    fn marker(&self, frame: usize) -> Option<Marker> {
        let at = FRAME_WORDS * (frame + 1);
        let head = self.word(at);
        let (serial, length) = (head as u32, (head >> 32) as u32);
        if serial == 0 {
            return None;
        }
        let bytes: Vec<u8> = (1..FRAME_WORDS).flat_map(|word| self.word(at + word).to_ne_bytes()).collect();
        let text = &bytes[..((length & !ACTIVE) as usize).min(TEXT_BYTES)];
        // Written anew meanwhile: it is another one.
        (self.word(at) == head).then(|| Marker {
            serial,
            active: length & ACTIVE != 0,
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

/// What a thread is doing, the outermost first.
pub fn active(words: &[AtomicU64], tid: u32) -> Vec<String> {
    let mut found: Vec<Marker> =
        slots(words).filter(|slot| slot.tid() == tid).flat_map(|slot| slot.markers().collect::<Vec<_>>()).collect();
    found.retain(|marker| marker.active);
    // Serials may have begun again at 1: the order is that of their distance.
    let last = found.iter().map(|marker| marker.serial).max().unwrap_or(0);
    found.sort_by_key(|marker| std::cmp::Reverse(last.wrapping_sub(marker.serial)));
    found.into_iter().map(|marker| marker.text).collect()
}

/// The text of a marker by its number, whichever thread's it is.
pub fn text_of(words: &[AtomicU64], serial: u32) -> Option<String> {
    slots(words)
        .flat_map(|slot| slot.markers().collect::<Vec<_>>())
        .find(|marker| marker.serial == serial)
        .map(|m| m.text)
}
