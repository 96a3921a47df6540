//! Areas: counters, gauges and histograms of a family of processes, as 64-bit cells in shared memory.
//!
//! An area is a file (see [`crate::sys::shared`]): a common part that says which series there are and where their cells
//! lie, and a block of cells for each process. A cell is counted up with a plain store by its process; what all of them
//! counted is the sum over the blocks. A block outlives its process, and the next process counts on in it, so that
//! nothing is lost and nothing grows however many come and go. Gauges count only while their process lives.
//!
//! # The shape (all numbers are 64-bit words in the machine's byte order)
//!
//! | common part | |
//! |---|---|
//! | words 0 to 15 | [`MAGIC`], version, blocks ever used, entries, words of text, cells and gauges ever given, refusals |
//! | [`ENTRIES_AT`] | entries of [`ENTRY_WORDS`] words: state, kind and merge; cells; text; hash |
//! | [`TEXTS_AT`] | texts: bytes and bounds (counts), the bounds, then `name\0unit\0help\0label\0value\0...` |
//!
//! | block | |
//! |---|---|
//! | [`CELLS_AT`] | cells that only grow |
//! | [`GAUGES_AT`] | gauges: zeros at the start of each process |
//! | [`MARKERS_AT`] | what threads are doing: see [`super::markers`] |
//!
//! # Architecture invariants
//! Nobody waits for anybody: places are taken by adding, an entry shows once it is whole, and who dies in between leaves
//! an entry that never shows. Two processes may make the same series at the same moment; readers add them up.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::snapshot::{Kind, Merge};
use crate::sys::fork;
use crate::sys::shared::{Layout, SharedFile};

pub const MAGIC: u64 = u64::from_ne_bytes(*b"IOKCELLS");
const VERSION: u64 = 1;
const VERSION_AT: usize = 1;
pub(super) const BLOCKS_USED_AT: usize = 2;
pub(super) const ENTRIES_USED_AT: usize = 3;
pub(super) const TEXT_USED_AT: usize = 4;
const CELLS_USED_AT: usize = 5;
const GAUGES_USED_AT: usize = 6;
const REFUSED_AT: usize = 7;

pub const ENTRIES_AT: usize = 16;
pub const ENTRY_WORDS: usize = 4;
/// Series that one area holds.
pub const ENTRIES_MAX: usize = 8192;
pub const TEXTS_AT: usize = ENTRIES_AT + ENTRY_WORDS * ENTRIES_MAX;
pub const TEXT_WORDS_MAX: usize = COMMON_WORDS - TEXTS_AT;
const COMMON_WORDS: usize = 24 * PAGE_WORDS;
const PAGE_WORDS: usize = crate::sys::map::PAGE_BYTES / 8;

pub const CELLS_AT: usize = 64;
pub const BLOCK_WORDS: usize = 8 * PAGE_WORDS;
pub const MARKERS_AT: usize = BLOCK_WORDS - PAGE_WORDS;
pub const GAUGES_AT: usize = MARKERS_AT - PAGE_WORDS;
const CELLS_MAX: usize = GAUGES_AT - CELLS_AT;
const GAUGES_MAX: usize = MARKERS_AT - GAUGES_AT;
/// Processes that count at the same time.
pub const BLOCKS_MAX: u32 = 1024;
/// Series of one name. What comes beyond is counted under the one label `overflow="true"`.
pub const SERIES_MAX: usize = 1000;

pub(super) const LAYOUT: Layout = Layout {
    common_bytes: COMMON_WORDS * 8,
    block_bytes: BLOCK_WORDS * 8,
    blocks_max: BLOCKS_MAX,
    used_word: BLOCKS_USED_AT,
    fresh_words: (GAUGES_AT, BLOCK_WORDS),
};

/// What a series is.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    pub kind: Kind,
    pub name: &'a str,
    pub help: &'a str,
    pub unit: &'a str,
    pub labels: &'a [(&'a str, &'a str)],
    /// Of histograms: upper bounds, growing and finite.
    pub bounds: &'a [f64],
    /// Of gauges.
    pub merge: Merge,
}

impl<'a> Spec<'a> {
    pub fn new(kind: Kind, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> Self {
        Spec { kind, name, help: "", unit: "", labels, bounds: &[], merge: Merge::Sum }
    }
}

/// Why a series cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AreaError {
    /// No room is left, rather than a wrong name.
    pub full: bool,
    pub message: String,
}

/// The cells of a family of processes, for as long as this process lives.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    shared: &'static SharedFile,
}

impl Area {
    /// The area of that path, or of none: then it is this process's and its children's.
    pub fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let area = Area { shared: SharedFile::open(path, LAYOUT)? };
        let common = area.common();
        match common[0].load(Ordering::Acquire) {
            // Whoever else is at it writes the same.
            0 => {
                common[VERSION_AT].store(VERSION, Ordering::Relaxed);
                common[0].store(MAGIC, Ordering::Release);
            }
            MAGIC if common[VERSION_AT].load(Ordering::Relaxed) == VERSION => {}
            _ => return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not an area of this version")),
        }
        Ok(area)
    }

    /// The area that is this process's and its children's: the same for each kernel.
    pub fn of_process() -> std::io::Result<Self> {
        static AREA: Mutex<Option<Area>> = Mutex::new(None);
        // Forks wait for the end of this, so that no child finds the lock held.
        fork::exclusive(|| {
            let mut area = AREA.lock().unwrap_or_else(PoisonError::into_inner);
            if area.is_none() {
                *area = Some(Area::open(None)?);
            }
            area.ok_or_else(|| std::io::ErrorKind::NotFound.into())
        })
    }

    fn common(&self) -> &'static [AtomicU64] {
        self.shared.common()
    }

    pub(super) fn shared(&self) -> &'static SharedFile {
        self.shared
    }

    /// This process's words for what its threads are doing.
    pub fn markers(&self) -> &'static [AtomicU64] {
        &self.shared.own()[MARKERS_AT..]
    }

    /// True for the one of the area's processes that speaks for all.
    pub fn is_leader(&self) -> bool {
        self.shared.is_leader()
    }

    /// Lets another process speak for all.
    pub fn resign(&self) {
        self.shared.resign();
    }

    /// Series that found no room.
    pub fn refused(&self) -> u64 {
        self.common()[REFUSED_AT].load(Ordering::Relaxed)
    }

    /// The cells of a series: the same ones for the same kind, name and labels. One cell for counters, sums (the bits of
    /// an f64) and gauges (the same); for histograms one for each bucket, then the sum (the bits of an f64).
    pub fn series(&self, spec: &Spec<'_>) -> Result<&'static [AtomicU64], AreaError> {
        check(spec)?;
        let mut labels = spec.labels.to_vec();
        labels.sort_unstable();
        let spec = Spec { labels: &labels, ..spec.clone() };
        let mut family = Of::default();
        if let Some(found) = self.find(&spec, &mut family) {
            return Ok(found);
        }
        if let Some(kind) = family.other_kind {
            let message = format!("name: {:?}: expected the name of a {}: it is a {kind}", spec.name, spec.kind.name());
            return Err(AreaError { full: false, message });
        }
        if family.series < SERIES_MAX {
            return self.add(&spec);
        }
        let overflow = Spec { labels: &[("overflow", "true")], ..spec };
        match self.find(&overflow, &mut family) {
            Some(found) => Ok(found),
            None => self.add(&overflow),
        }
    }

    fn find(&self, spec: &Spec<'_>, of: &mut Of) -> Option<&'static [AtomicU64]> {
        let (key, family) = (hash(spec), family_hash(spec.name));
        let common = self.common();
        let used = (common[ENTRIES_USED_AT].load(Ordering::Acquire) as usize).min(ENTRIES_MAX);
        for at in 0..used {
            let words = &common[ENTRIES_AT + at * ENTRY_WORDS..][..ENTRY_WORDS];
            let state = words[0].load(Ordering::Acquire);
            if state >> 32 == family && state & READY != 0 {
                of.series += 1;
                of.other_kind = of.other_kind.or(Kind::of(state).filter(|kind| *kind != spec.kind).map(Kind::name));
            }
            if state & READY == 0 || words[3].load(Ordering::Relaxed) != key {
                continue;
            }
            let place = Place(words[1].load(Ordering::Relaxed));
            if let Some(cells) = place.of(self.shared.own()).filter(|cells| cells.len() == cells_of(spec)) {
                return Some(cells);
            }
        }
        None
    }

    fn add(&self, spec: &Spec<'_>) -> Result<&'static [AtomicU64], AreaError> {
        let common = self.common();
        let text = text_of(spec);
        let wants = cells_of(spec);
        let (used_at, room, base) = match spec.kind {
            Kind::Gauge => (GAUGES_USED_AT, GAUGES_MAX, GAUGES_AT),
            _ => (CELLS_USED_AT, CELLS_MAX, CELLS_AT),
        };
        let full = |what: &str, max: usize| {
            common[REFUSED_AT].fetch_add(1, Ordering::Relaxed);
            let message = format!("{}: no room for another series: {what} are {max} at most", spec.name);
            AreaError { full: true, message }
        };
        let cells = take(&common[used_at], wants, room).ok_or_else(|| full("cells", room))?;
        let text_at =
            take(&common[TEXT_USED_AT], text.len(), TEXT_WORDS_MAX).ok_or_else(|| full("words", TEXT_WORDS_MAX))?;
        let entry = take(&common[ENTRIES_USED_AT], 1, ENTRIES_MAX).ok_or_else(|| full("series", ENTRIES_MAX))?;
        for (word, value) in common[TEXTS_AT + text_at..].iter().zip(&text) {
            word.store(*value, Ordering::Relaxed);
        }
        let words = &common[ENTRIES_AT + entry * ENTRY_WORDS..][..ENTRY_WORDS];
        let place = Place::new(base + cells, wants);
        words[1].store(place.0, Ordering::Relaxed);
        words[2].store(text_at as u64, Ordering::Relaxed);
        words[3].store(hash(spec), Ordering::Relaxed);
        let state = family_hash(spec.name) << 32 | (spec.merge as u64) << 16 | (spec.kind as u64) << 8 | READY;
        words[0].store(state, Ordering::Release);
        place.of(self.shared.own()).ok_or_else(|| full("cells", room))
    }
}

/// What is known of a name.
#[derive(Default)]
struct Of {
    series: usize,
    other_kind: Option<&'static str>,
}

/// An entry is whole.
pub(super) const READY: u64 = 1;

/// Where cells lie in a block, and how many.
#[derive(Clone, Copy)]
pub(super) struct Place(pub u64);

impl Place {
    fn new(at: usize, cells: usize) -> Self {
        Place((at as u64) << 32 | cells as u64)
    }

    /// The cells among a block's words.
    pub fn of<'a, T>(&self, block: &'a [T]) -> Option<&'a [T]> {
        block.get((self.0 >> 32) as usize..)?.get(..self.0 as u32 as usize)
    }
}

/// Takes so many of what is left, or none.
fn take(used: &AtomicU64, wants: usize, max: usize) -> Option<usize> {
    let taken = used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
        Some(used + wants as u64).filter(|used| *used <= max as u64)
    });
    taken.ok().map(|before| before as usize)
}

fn cells_of(spec: &Spec<'_>) -> usize {
    if spec.kind == Kind::Histogram { spec.bounds.len() + 2 } else { 1 }
}

fn check(spec: &Spec<'_>) -> Result<(), AreaError> {
    let wrong = |key: &str, value: &str, expected: &str| {
        Err(AreaError { full: false, message: format!("{key}: {value:?}: expected {expected}") })
    };
    if spec.name.is_empty() || spec.name.len() > 200 || !is_name(spec.name, true) {
        return wrong("name", spec.name, "[a-zA-Z_:][a-zA-Z0-9_:]*, 200 bytes at most");
    }
    if spec.name.ends_with("_total") {
        return wrong("name", spec.name, "no _total at its end: exporters add it to what counts");
    }
    if !spec.unit.is_empty() && !spec.name.ends_with(&format!("_{}", spec.unit)) {
        return wrong("name", spec.name, &format!("_{} at its end, which is its unit", spec.unit));
    }
    if spec.labels.len() > 16 {
        return wrong("labels", &spec.labels.len().to_string(), "16 at most");
    }
    for (name, value) in spec.labels {
        if name.is_empty() || name.len() > 100 || !is_name(name, false) || name.starts_with("__") {
            return wrong("label", name, "[a-zA-Z_][a-zA-Z0-9_]*, 100 bytes at most, without __ at its start");
        }
        if value.len() > 1024 {
            return wrong(&format!("label {name}"), cut(value, 40), "1024 bytes at most");
        }
        if spec.labels.iter().filter(|(other, _)| other == name).count() > 1 {
            return wrong("label", name, "each label once");
        }
    }
    if spec.kind == Kind::Histogram && spec.labels.iter().any(|(name, _)| *name == "le") {
        return wrong("label", "le", "another name: it is that of a histogram's bounds");
    }
    let grows = spec.bounds.windows(2).all(|pair| pair[0] < pair[1]) && spec.bounds.iter().all(|b| b.is_finite());
    if spec.kind == Kind::Histogram && (spec.bounds.is_empty() || spec.bounds.len() > 128 || !grows) {
        return wrong("buckets", &format!("{:?}", spec.bounds), "1 to 128 finite numbers, each larger than the last");
    }
    Ok(())
}

/// The beginning of a text, so many bytes at most.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn is_name(text: &str, colons: bool) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || colons && c == ':';
    text.chars().all(valid) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// FNV-1a, 64 bits: the same in every process and version.
fn fnv(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in parts.iter().flat_map(|part| part.iter().chain(&[0u8])) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

fn family_hash(name: &str) -> u64 {
    fnv(&[name.as_bytes()]) >> 32
}

fn hash(spec: &Spec<'_>) -> u64 {
    let bounds: Vec<u8> = spec.bounds.iter().flat_map(|bound| bound.to_bits().to_ne_bytes()).collect();
    let mut parts: Vec<&[u8]> = vec![spec.name.as_bytes(), &bounds];
    let kind = [spec.kind as u8, spec.merge as u8];
    parts.push(&kind);
    for (name, value) in spec.labels {
        parts.extend([name.as_bytes(), value.as_bytes()]);
    }
    fnv(&parts)
}

/// A series' text as words: its bytes and bounds (counts), the bounds, the bytes.
fn text_of(spec: &Spec<'_>) -> Vec<u64> {
    let mut text = Vec::new();
    let labels = spec.labels.iter().flat_map(|(name, value)| [*name, *value]);
    for part in [spec.name, spec.unit, cut(spec.help, 400)].into_iter().chain(labels) {
        text.extend(part.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
        text.push(0);
    }
    let mut words = vec![(text.len() as u64) << 32 | spec.bounds.len() as u64];
    words.extend(spec.bounds.iter().map(|bound| bound.to_bits()));
    words.extend(text.chunks(8).map(|chunk| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u64::from_ne_bytes(bytes)
    }));
    words
}
