//! Families for tests.

use super::snapshot::{Distribution, Family, Kind, Series, Snapshot, Value};

pub fn snapshot(families: impl IntoIterator<Item = Family>) -> Snapshot {
    Snapshot { families: families.into_iter().collect() }
}

pub fn family(name: &str, kind: Kind, value: Value) -> Family {
    let series = vec![Series { labels: Vec::new(), value }];
    Family { name: name.into(), kind, help: String::new(), unit: String::new(), series }
}

pub fn counter(name: &str, count: u64) -> Family {
    family(name, Kind::Counter, Value::Count(count))
}

pub fn sum(name: &str, total: f64) -> Family {
    family(name, Kind::Sum, Value::Number(total))
}

pub fn gauge(name: &str, value: f64) -> Family {
    family(name, Kind::Gauge, Value::Number(value))
}

pub fn histogram(name: &str, counts: &[u64], sum: f64) -> Family {
    family(name, Kind::Histogram, Value::Distribution(distribution(counts, sum)))
}

/// Bounds 1, 2, 4, ...: one less than counts.
pub fn distribution(counts: &[u64], sum: f64) -> Distribution {
    let bounds = (1..counts.len()).map(|at| f64::from(1 << (at - 1))).collect();
    Distribution { bounds, counts: counts.to_vec(), sum }
}

/// The family with these series.
pub fn labelled(family: Family, series: &[(&[(&str, &str)], Value)]) -> Family {
    let series = series.iter().map(|(labels, value)| Series {
        labels: labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        value: value.clone(),
    });
    Family { series: series.collect(), ..family }
}
