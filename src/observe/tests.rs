//! Areas, written and read back.

use std::sync::atomic::Ordering;

use super::area::{Area, SERIES_MAX, Spec};
use super::read::{Whose, read_file};
use super::snapshot::{Kind, Merge, Snapshot, Value};

fn area() -> Area {
    Area::open(None).unwrap()
}

fn value(snapshot: &Snapshot, name: &str, labels: &[(&str, &str)]) -> Option<Value> {
    let family = snapshot.families.iter().find(|family| family.name == name)?;
    let same = |(ours, theirs): (&(String, String), &(&str, &str))| (ours.0.as_str(), ours.1.as_str()) == *theirs;
    let found = family
        .series
        .iter()
        .find(|series| series.labels.len() == labels.len() && series.labels.iter().zip(labels).all(same));
    found.map(|series| series.value.clone())
}

#[test]
fn what_is_counted_is_read_back() {
    let area = area();
    let counter = area.series(&Spec::new(Kind::Counter, "orders", &[("shop", "a\"b\n"), ("kind", "x")])).unwrap();
    counter[0].store(7, Ordering::Relaxed);
    let gauge = area.series(&Spec::new(Kind::Gauge, "depth", &[])).unwrap();
    gauge[0].store((-2.5f64).to_bits(), Ordering::Relaxed);
    let spec = Spec {
        bounds: &[0.1, 1.0],
        unit: "seconds",
        help: "How long.",
        ..Spec::new(Kind::Histogram, "took_seconds", &[])
    };
    let histogram = area.series(&spec).unwrap();
    assert_eq!(histogram.len(), 4);
    histogram[1].store(3, Ordering::Relaxed);
    histogram[3].store(1.5f64.to_bits(), Ordering::Relaxed);
    for snapshot in [area.snapshot(Whose::All), area.snapshot(Whose::Own)] {
        let snapshot = snapshot.unwrap();
        let labels = [("kind", "x"), ("shop", "a\"b\n")];
        assert_eq!(value(&snapshot, "orders", &labels), Some(Value::Count(7)));
        assert_eq!(
            snapshot.families.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
            ["depth", "orders", "took_seconds"]
        );
        let Some(Value::Distribution(took)) = value(&snapshot, "took_seconds", &[]) else { panic!("{snapshot:?}") };
        assert_eq!((took.bounds, took.counts, took.sum), (vec![0.1, 1.0], vec![0, 3, 0], 1.5));
        assert_eq!((snapshot.families[2].unit.as_str(), snapshot.families[2].help.as_str()), ("seconds", "How long."));
    }
    // Whoever only has the file sees the same, but for the gauges of the process that asks: its locks do not show to it.
    let snapshot = read_file(area.shared().file()).unwrap();
    assert_eq!(value(&snapshot, "orders", &[("kind", "x"), ("shop", "a\"b\n")]), Some(Value::Count(7)));
    assert_eq!(value(&area.snapshot(Whose::All).unwrap(), "depth", &[]), Some(Value::Number(-2.5)));
}

#[test]
fn the_same_series_has_the_same_cells_whatever_the_order_of_its_labels() {
    let area = area();
    let one = area.series(&Spec::new(Kind::Counter, "a", &[("x", "1"), ("y", "2")])).unwrap();
    let two = area.series(&Spec::new(Kind::Counter, "a", &[("y", "2"), ("x", "1")])).unwrap();
    let other = area.series(&Spec::new(Kind::Counter, "a", &[("y", "1"), ("x", "2")])).unwrap();
    assert!(std::ptr::eq(one, two) && !std::ptr::eq(one, other));
}

#[test]
fn labels_without_end_are_counted_as_one() {
    let area = area();
    for user in 0..SERIES_MAX + 500 {
        let user = user.to_string();
        let cell = area.series(&Spec::new(Kind::Counter, "visits", &[("user", &user)])).unwrap();
        cell[0].fetch_add(1, Ordering::Relaxed);
    }
    let snapshot = area.snapshot(Whose::All).unwrap();
    assert_eq!(snapshot.families[0].series.len(), SERIES_MAX + 1);
    assert_eq!(value(&snapshot, "visits", &[("overflow", "true")]), Some(Value::Count(500)));
}

#[test]
fn a_full_area_says_so_and_goes_on() {
    let area = area();
    let bounds: Vec<f64> = (0..120).map(f64::from).collect();
    let mut refused = 0;
    for at in 0..1000 {
        let name = format!("h{at}");
        let spec = Spec { bounds: &bounds, ..Spec::new(Kind::Histogram, &name, &[]) };
        refused += usize::from(area.series(&spec).is_err_and(|error| error.full));
    }
    assert!(refused > 0 && area.refused() == refused as u64);
    area.series(&Spec::new(Kind::Gauge, "still", &[])).unwrap();
    assert_eq!(area.snapshot(Whose::All).unwrap().families.len(), 1000 - refused + 1);
}

#[test]
fn wrong_names_are_refused_with_what_was_expected() {
    let area = area();
    let message = |spec: &Spec<'_>| area.series(spec).unwrap_err().message;
    assert!(message(&Spec::new(Kind::Counter, "a b", &[])).starts_with("name: \"a b\": expected"));
    assert!(message(&Spec::new(Kind::Counter, "a_total", &[])).contains("no _total"));
    assert!(message(&Spec::new(Kind::Counter, "a", &[("__x", "")])).contains("label: \"__x\""));
    assert!(message(&Spec::new(Kind::Counter, "a", &[("x", ""), ("x", "")])).contains("each label once"));
    assert!(message(&Spec { unit: "bytes", ..Spec::new(Kind::Counter, "a", &[]) }).contains("_bytes at its end"));
    assert!(message(&Spec { bounds: &[2.0, 1.0], ..Spec::new(Kind::Histogram, "h", &[]) }).contains("larger"));
    area.series(&Spec::new(Kind::Counter, "a", &[])).unwrap();
    assert!(message(&Spec::new(Kind::Gauge, "a", &[("x", "1")])).contains("it is a counter"));
}

#[test]
fn gauges_merge_as_they_say() {
    let area = area();
    let gauge = |name, merge| area.series(&Spec { merge, ..Spec::new(Kind::Gauge, name, &[]) }).unwrap();
    let (sum, max, min) = (gauge("s", Merge::Sum), gauge("m", Merge::Max), gauge("n", Merge::Min));
    let set = |number: f64| [sum, max, min].map(|cells| cells[0].store(number.to_bits(), Ordering::Relaxed));
    set(3.0);
    let word = &area.shared().common()[super::area::TEXTS_AT + super::area::TEXT_WORDS_MAX - 1];
    crate::sys::shared::beside_a_child(
        word,
        || {
            set(4.0);
        },
        || {
            let snapshot = area.snapshot(Whose::All).unwrap();
            let number = |name| value(&snapshot, name, &[]);
            assert_eq!(number("s"), Some(Value::Number(7.0)));
            assert_eq!(number("m"), Some(Value::Number(4.0)));
            assert_eq!(number("n"), Some(Value::Number(3.0)));
        },
    );
    let snapshot = area.snapshot(Whose::All).unwrap();
    assert_eq!(value(&snapshot, "s", &[]), Some(Value::Number(3.0)), "a dead process has no gauges");
}

#[test]
fn a_corrupt_area_is_read_without_harm() {
    let area = area();
    for at in 0..50 {
        area.series(&Spec::new(Kind::Counter, &format!("c{at}"), &[("l", "v")])).unwrap();
    }
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..300 {
        let common = area.shared().common();
        for _ in 0..20 {
            let at = if rng.bool() {
                rng.usize(2..400)
            } else {
                rng.usize(super::area::TEXTS_AT..super::area::TEXTS_AT + 400)
            };
            let value = if rng.bool() { rng.u64(..) } else { rng.u64(..) >> rng.u32(0..64) };
            common[at].store(value, Ordering::Relaxed);
        }
        let _ = area.snapshot(Whose::All).unwrap();
        let _ = area.series(&Spec::new(Kind::Counter, "more", &[("l", &rng.u8(..).to_string())]));
    }
}
