//! Reading an area: its entries and the blocks of all its processes become a [`Snapshot`]. Nothing is mapped and nothing
//! that is read is trusted, so that any process may read any area, whoever wrote it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::area::*;
use super::snapshot::{Distribution, Family, Kind, Merge, Series, Snapshot, Value};
use crate::sys::shared::is_locked;

/// Whose cells are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of all processes.
    All,
    /// Those of this process alone.
    Own,
}

impl Area {
    /// What is counted at this moment.
    pub fn snapshot(&self, whose: Whose) -> io::Result<Snapshot> {
        let shared = self.shared();
        let entries = entries(shared.file())?;
        let mut merged: Vec<Vec<u64>> = vec![Vec::new(); entries.len()];
        match (whose, shared.block()) {
            (Whose::All, Some(own)) => merge_all(shared.file(), Some(own), &entries, &mut merged)?,
            _ => {
                let words = shared.own()[..MARKERS_AT].iter();
                let words: Vec<u64> = words.map(|word| word.load(std::sync::atomic::Ordering::Relaxed)).collect();
                entries.iter().zip(&mut merged).for_each(|(entry, into)| entry.merge(&words, true, into));
            }
        }
        Ok(assemble(entries, merged))
    }
}

/// What the area of a file holds at this moment, whoever's it is.
pub fn read_file(file: &File) -> io::Result<Snapshot> {
    let entries = entries(file)?;
    let mut merged: Vec<Vec<u64>> = vec![Vec::new(); entries.len()];
    merge_all(file, None, &entries, &mut merged)?;
    Ok(assemble(entries, merged))
}

/// One series as the common part tells it.
struct Entry {
    kind: Kind,
    merge: Merge,
    place: Place,
    name: String,
    unit: String,
    help: String,
    labels: Vec<(String, String)>,
    bounds: Vec<f64>,
}

fn read_words(file: &File, at: usize, count: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0u8; count * 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], (at * 8 + filled) as u64) {
            // What lies beyond the end was never written.
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default())).collect())
}

fn entries(file: &File) -> io::Result<Vec<Entry>> {
    let head = read_words(file, 0, ENTRIES_AT)?;
    if head[0] != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not an area"));
    }
    let used = (head[ENTRIES_USED_AT] as usize).min(ENTRIES_MAX);
    let text_used = (head[TEXT_USED_AT] as usize).min(TEXT_WORDS_MAX);
    let table = read_words(file, ENTRIES_AT, used * ENTRY_WORDS)?;
    let texts = read_words(file, TEXTS_AT, text_used)?;
    Ok(table.chunks_exact(ENTRY_WORDS).filter_map(|words| Entry::read(words, &texts)).collect())
}

fn merge_all(file: &File, own: Option<u32>, entries: &[Entry], merged: &mut [Vec<u64>]) -> io::Result<()> {
    let head = read_words(file, 0, ENTRIES_AT)?;
    let used = (head[BLOCKS_USED_AT] as u32).min(BLOCKS_MAX);
    let ends = |gauge: bool| {
        let of = entries.iter().filter(|entry| (entry.kind == Kind::Gauge) == gauge);
        of.map(|entry| (entry.place.0 >> 32) as usize + entry.place.0 as u32 as usize).max().unwrap_or(0)
    };
    let (cells_end, gauges_end) = (ends(false).min(GAUGES_AT), ends(true).clamp(GAUGES_AT, MARKERS_AT));
    for block in 0..used {
        let at = LAYOUT.common_bytes / 8 + block as usize * BLOCK_WORDS;
        let is_live = own == Some(block) || is_locked(file, block);
        let mut words = read_words(file, at, cells_end)?;
        if is_live {
            words.resize(GAUGES_AT, 0);
            words.extend(read_words(file, at + GAUGES_AT, gauges_end - GAUGES_AT)?);
        }
        entries.iter().zip(&mut *merged).for_each(|(entry, into)| entry.merge(&words, is_live, into));
    }
    Ok(())
}

impl Entry {
    fn read(words: &[u64], texts: &[u64]) -> Option<Entry> {
        let state = words[0];
        let kind = Kind::of(state).filter(|_| state & READY != 0)?;
        let merge = match (state >> 16) as u8 {
            1 => Merge::Max,
            2 => Merge::Min,
            _ => Merge::Sum,
        };
        let text = texts.get(words[2] as usize..)?;
        let (bytes, bounds) = ((*text.first()? >> 32) as usize, *text.first()? as u32 as usize);
        let bounds_of = text.get(1..)?.get(..bounds)?;
        let text: Vec<u8> =
            text.get(1 + bounds..)?.iter().take(bytes.div_ceil(8)).flat_map(|w| w.to_ne_bytes()).collect();
        let mut parts =
            text.get(..bytes)?.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        let (name, unit, help) = (parts.next()?, parts.next()?, parts.next()?);
        let mut labels = Vec::new();
        while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
            labels.push((label, value));
        }
        let entry = Entry {
            kind,
            merge,
            place: Place(words[1]),
            name,
            unit,
            help,
            labels,
            bounds: bounds_of.iter().map(|bound| f64::from_bits(*bound)).collect(),
        };
        let cells = entry.place.0 as u32 as usize;
        (cells == if kind == Kind::Histogram { bounds + 2 } else { 1 }).then_some(entry)
    }

    /// Adds what one block holds of this series.
    fn merge(&self, block: &[u64], is_live: bool, into: &mut Vec<u64>) {
        let Some(cells) = self.place.of(block).filter(|_| is_live || self.kind != Kind::Gauge) else { return };
        if into.is_empty() {
            return into.extend_from_slice(cells);
        }
        let floats = match self.kind {
            Kind::Counter => 1..1,
            Kind::Sum | Kind::Gauge => 0..1,
            Kind::Histogram => cells.len() - 1..cells.len(),
        };
        for (at, (sum, cell)) in into.iter_mut().zip(cells).enumerate() {
            *sum = match floats.contains(&at) {
                false => sum.wrapping_add(*cell),
                true => self.merge_numbers(f64::from_bits(*sum), f64::from_bits(*cell)).to_bits(),
            };
        }
    }

    fn merge_numbers(&self, one: f64, other: f64) -> f64 {
        match self.merge {
            Merge::Max if self.kind == Kind::Gauge => one.max(other),
            Merge::Min if self.kind == Kind::Gauge => one.min(other),
            _ => one + other,
        }
    }

    fn value(&self, cells: &[u64]) -> Option<Value> {
        let number = f64::from_bits(*cells.first()?);
        Some(match self.kind {
            Kind::Counter => Value::Count(cells[0]),
            Kind::Sum | Kind::Gauge => Value::Number(number),
            Kind::Histogram => {
                let (sum, counts) = cells.split_last()?;
                let (bounds, counts) = (self.bounds.clone(), counts.to_vec());
                Value::Distribution(Distribution { bounds, counts, sum: f64::from_bits(*sum) })
            }
        })
    }
}

/// The series of a family.
type ByLabels = BTreeMap<Vec<(String, String)>, Value>;

/// Series of one name become a family; the same series, made twice at the same moment, becomes one.
fn assemble(entries: Vec<Entry>, merged: Vec<Vec<u64>>) -> Snapshot {
    let mut families: BTreeMap<String, (Family, ByLabels)> = BTreeMap::new();
    for (entry, cells) in entries.into_iter().zip(merged) {
        let Some(value) = entry.value(&cells) else { continue };
        let (family, series) = families.entry(entry.name.clone()).or_insert_with(|| {
            let Entry { name, unit, help, kind, .. } = &entry;
            let (name, unit, help) = (name.clone(), unit.clone(), help.clone());
            (Family { name, kind: *kind, help, unit, series: Vec::new() }, BTreeMap::new())
        });
        // The first to come says what a name means.
        if family.kind != entry.kind {
            continue;
        }
        match series.get_mut(&entry.labels) {
            Some(known) => add(known, &value),
            None => drop(series.insert(entry.labels, value)),
        }
    }
    let families = families.into_values().map(|(family, series)| {
        let series = series.into_iter().map(|(labels, value)| Series { labels, value }).collect();
        Family { series, ..family }
    });
    Snapshot { families: families.collect() }
}

fn add(to: &mut Value, value: &Value) {
    match (to, value) {
        (Value::Count(to), Value::Count(more)) => *to = to.wrapping_add(*more),
        (Value::Number(to), Value::Number(more)) => *to += more,
        (Value::Distribution(to), Value::Distribution(more)) if to.bounds == more.bounds => {
            to.counts.iter_mut().zip(&more.counts).for_each(|(to, more)| *to = to.wrapping_add(*more));
            to.sum += more.sum;
        }
        _ => {}
    }
}
