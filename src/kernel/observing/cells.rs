//! Cells and markers of the program: series by their descriptions, and a slot of markers for each thread.
//!
//! A description is configuration: `kind=histogram&name=took_seconds&help=...&label.shop=a&buckets=0.1,1`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{ConfigError, Options};
use crate::kernel::Failure;
use crate::observe::area::{Area, Spec};
use crate::observe::markers::{ACTIVE, FRAME_WORDS, FRAMES, SLOT_BYTES, SLOT_WORDS, TEXT_BYTES};
use crate::observe::snapshot::{Kind, Merge};
use crate::ring::layout::*;
use crate::status::{IOK_STATUS_BAD_CONFIG, IOK_STATUS_OVERLOADED};
use crate::sys::{fork, marker, thread};

const _: () = assert!(SLOT_BYTES == size_of::<MarkerSlot>() && FRAMES == IOK_MARKER_PLACES as usize);
const _: () = assert!(ACTIVE == IOK_MARKER_ACTIVE && TEXT_BYTES == IOK_MARKER_TEXT_BYTES as usize);

/// Upper bounds of a histogram that names none: for times in seconds.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

const KINDS: [Kind; 4] = [Kind::Counter, Kind::Sum, Kind::Gauge, Kind::Histogram];

/// The cells of the series that a description names: the same ones each time.
pub fn cells(area: Area, spec: &str) -> Result<&'static [AtomicU64], Failure> {
    let mut options = Options::parse(spec)?;
    let kind = options.word("kind", "counter", &KINDS.map(Kind::name))?;
    let kind = KINDS.into_iter().find(|known| known.name() == kind).unwrap_or(Kind::Counter);
    let given = options.text("name").unwrap_or_default();
    let unit = options.text("unit").unwrap_or_default();
    let help = options.text("help").unwrap_or_default();
    let merge = match options.word("merge", "sum", &["sum", "max", "min"])? {
        "max" => Merge::Max,
        "min" => Merge::Min,
        _ => Merge::Sum,
    };
    let bounds = match options.text("buckets") {
        Some(text) => bounds(&text)?,
        None => BUCKETS.to_vec(),
    };
    let labels = options.prefixed("label.");
    options.finish()?;
    if kind != Kind::Gauge && merge != Merge::Sum {
        return Err(ConfigError::new("merge", "max, min", "a gauge: what others hold is summed").into());
    }
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let name = name_of(kind, &given, &unit);
    let bounds = if kind == Kind::Histogram { bounds.as_slice() } else { &[] };
    let spec = Spec { kind, name: &name, help: &help, unit: &unit, labels: &labels, bounds, merge };
    // One at a time within the process, so that the same series is made once.
    fork::exclusive(|| area.series(&spec)).map_err(|error| {
        let status = if error.full { IOK_STATUS_OVERLOADED } else { IOK_STATUS_BAD_CONFIG };
        Failure { status, message: error.message }
    })
}

/// A name as areas have it: without the `_total` of what counts, with its unit at its end.
fn name_of(kind: Kind, given: &str, unit: &str) -> String {
    let counts = matches!(kind, Kind::Counter | Kind::Sum);
    let name = given.strip_suffix("_total").filter(|_| counts).unwrap_or(given);
    match unit.is_empty() || name.ends_with(&format!("_{unit}")) {
        true => name.to_string(),
        false => format!("{name}_{unit}"),
    }
}

/// `0.1,1,10`; an infinite last one is what every histogram has.
fn bounds(text: &str) -> Result<Vec<f64>, ConfigError> {
    let parsed: Option<Vec<f64>> = text.split(',').map(|bound| bound.trim().parse().ok()).collect();
    let mut bounds =
        parsed.ok_or_else(|| ConfigError::new("buckets", text, "numbers between commas, as in 0.1,1,10"))?;
    if bounds.last() == Some(&f64::INFINITY) {
        bounds.pop();
    }
    Ok(bounds)
}

/// The slot of the thread that asks: the one it has, or one that nobody has, or whose thread has ended.
pub fn marker_slot(area: Area) -> Result<&'static [AtomicU64], Failure> {
    let words = area.markers();
    let tid = thread::id();
    let own = marker::word(words).filter(|word| word.load(Ordering::Relaxed) as u32 == tid);
    if let Some(slot) = own.and_then(|own| words.chunks_exact(SLOT_WORDS).find(|slot| std::ptr::eq(&slot[0], own))) {
        return Ok(slot);
    }
    let claimed = fork::exclusive(|| claim(words, tid));
    let Some(slot) = claimed else {
        let message = format!("markers: {} threads have them already", words.len() / SLOT_WORDS);
        return Err(Failure { status: IOK_STATUS_OVERLOADED, message });
    };
    marker::set(words, &slot[0]);
    Ok(slot)
}

fn claim(words: &'static [AtomicU64], tid: u32) -> Option<&'static [AtomicU64]> {
    let owner = |slot: &[AtomicU64]| slot[0].load(Ordering::Relaxed) as u32;
    let slots = || words.chunks_exact(SLOT_WORDS).enumerate();
    // A slot with this thread's number was left by one that had the number before.
    let found = slots()
        .find(|(_, slot)| owner(slot) == tid)
        .or_else(|| slots().find(|(_, slot)| owner(slot) == 0))
        .or_else(|| slots().find(|(_, slot)| !thread::is_alive(owner(slot))));
    let (index, slot) = found?;
    slot[0].store(u64::from(tid), Ordering::Relaxed);
    for place in slot.chunks_exact(FRAME_WORDS).skip(1) {
        let head = place[0].load(Ordering::Relaxed);
        place[0].store(head & !(u64::from(ACTIVE) << 32), Ordering::Relaxed);
    }
    let count = slot[1].load(Ordering::Relaxed) as u32 & IOK_MARKER_COUNT_MASK;
    let last = (index as u32) << IOK_MARKER_COUNT_MASK.count_ones() | count;
    slot[1].store(u64::from(last), Ordering::Relaxed);
    Some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::markers;
    use crate::observe::read::Whose;

    #[test]
    fn a_description_names_the_same_cells_each_time() {
        let area = Area::open(None).unwrap();
        let one = cells(area, "name=orders_total&label.shop=a%26b&label.kind=x&help=How%20many.").unwrap();
        let two = cells(area, "kind=counter&name=orders&label.kind=x&label.shop=a%26b").unwrap();
        assert!(std::ptr::eq(one, two) && one.len() == 1);
        one[0].store(3, Ordering::Relaxed);
        assert_eq!(cells(area, "kind=histogram&name=took&unit=seconds&buckets=0.1,1,inf").unwrap().len(), 4);
        assert_eq!(cells(area, "kind=histogram&name=wait").unwrap().len(), BUCKETS.len() + 2);
        let snapshot = area.snapshot(Whose::All).unwrap();
        let names: Vec<&str> = snapshot.families.iter().map(|family| family.name.as_str()).collect();
        assert_eq!(names, ["orders", "took_seconds", "wait"]);
        assert_eq!(snapshot.families[0].series[0].labels[1], ("shop".into(), "a&b".into()));
        assert_eq!(snapshot.families[0].help, "How many.");
    }

    #[test]
    fn a_wrong_description_says_what_was_expected() {
        let area = Area::open(None).unwrap();
        let wrong = |spec: &str| {
            let failure = cells(area, spec).unwrap_err();
            assert_eq!(failure.status, IOK_STATUS_BAD_CONFIG, "{}", failure.message);
            failure.message
        };
        assert!(wrong("kind=meter&name=a").contains("one of counter, sum, gauge, histogram"));
        assert!(wrong("").starts_with("name:"));
        assert!(wrong("name=a&colour=b").contains("a known option"));
        assert!(wrong("kind=histogram&name=a&buckets=1,x").starts_with("buckets:"));
        assert!(wrong("kind=histogram&name=a&buckets=2,1").starts_with("buckets:"));
        assert!(wrong("name=a&merge=max").starts_with("merge:"));
        assert!(wrong("name=a&label.0=x").starts_with("label:"));
    }

    #[test]
    fn a_full_area_is_an_overload() {
        let area = Area::open(None).unwrap();
        let full = (0..2000).find_map(|at| {
            let buckets: Vec<String> = (0..120).map(|bound| bound.to_string()).collect();
            cells(area, &format!("kind=histogram&name=h{at}&buckets={}", buckets.join(","))).err()
        });
        assert_eq!(full.map(|failure| failure.status), Some(IOK_STATUS_OVERLOADED));
    }

    /// Enters a marker as a binding does.
    fn enter(slot: &[AtomicU64], text: &str) -> u32 {
        let last = slot[1].load(Ordering::Relaxed) as u32 + 1;
        slot[1].store(u64::from(last), Ordering::Relaxed);
        let mut bytes = [0u8; 8];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        slot[9].store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        let head = u64::from(last) | u64::from(text.len() as u32 | ACTIVE) << 32;
        slot[8].store(head, Ordering::Release);
        let tid = u64::from(slot[0].load(Ordering::Relaxed) as u32);
        slot[0].store(tid | u64::from(last) << 32, Ordering::Relaxed);
        last
    }

    #[test]
    fn a_thread_keeps_its_slot_and_leaves_it_when_it_ends() {
        let area = Area::open(None).unwrap();
        let slot = marker_slot(area).unwrap();
        assert!(std::ptr::eq(slot, marker_slot(area).unwrap()));
        let serial = enter(slot, "one");
        assert_eq!(marker::current(area.markers()), serial);
        assert_eq!(markers::active(area.markers(), thread::id()), ["one"]);
        for round in 0..200 {
            let (theirs, tid) = std::thread::spawn(move || {
                let slot = marker_slot(area).unwrap();
                (enter(slot, "two"), thread::id())
            })
            .join()
            .unwrap();
            assert_ne!(theirs, serial);
            assert_eq!(markers::text_of(area.markers(), theirs).as_deref(), Some("two"), "{round}");
            assert!(!thread::is_alive(tid) || tid != thread::id());
        }
        assert_eq!(marker::current(area.markers()), serial, "others changed nothing here");
    }

    #[test]
    fn more_threads_than_slots_are_told_so() {
        let area = Area::open(None).unwrap();
        let gate = std::sync::Barrier::new(80);
        let refused = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..80 {
                scope.spawn(|| {
                    if let Err(failure) = marker_slot(area) {
                        assert_eq!(failure.status, IOK_STATUS_OVERLOADED);
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    gate.wait();
                });
            }
        });
        assert_eq!(refused.load(Ordering::Relaxed), 16);
        marker_slot(area).unwrap();
    }
}
