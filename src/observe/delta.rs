//! What happened between two snapshots. A value that has shrunk was begun anew: then all of it is of the interval.

use super::snapshot::{Distribution, Family, Snapshot, Value};

/// The shares of an interval's values that push exporters tell, and their names.
pub const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max")];

/// What a series of a family was before. None if it was not there.
pub fn earlier<'a>(before: &'a Snapshot, family: &Family, labels: &[(String, String)]) -> Option<&'a Value> {
    let at = before.families.binary_search_by(|known| known.name.cmp(&family.name)).ok()?;
    let known = &before.families[at];
    let at = known.series.binary_search_by(|series| series.labels[..].cmp(labels)).ok()?;
    (known.kind == family.kind).then(|| &known.series[at].value)
}

pub fn count_since(now: u64, before: Option<&Value>) -> u64 {
    match before {
        Some(Value::Count(before)) => now.checked_sub(*before).unwrap_or(now),
        _ => now,
    }
}

pub fn sum_since(now: f64, before: Option<&Value>) -> f64 {
    match before {
        Some(Value::Number(before)) if *before <= now => now - before,
        _ => now,
    }
}

pub fn distribution_since(now: &Distribution, before: Option<&Value>) -> Distribution {
    let Some(Value::Distribution(before)) = before else { return now.clone() };
    let pairs = || now.counts.iter().zip(&before.counts);
    let grown = before.bounds == now.bounds && before.counts.len() == now.counts.len();
    if !grown || pairs().any(|(now, before)| now < before) {
        return now.clone();
    }
    let counts = pairs().map(|(now, before)| now - before).collect();
    Distribution { bounds: now.bounds.clone(), counts, sum: now.sum - before.sum }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{counter, distribution, labelled, snapshot};
    use super::*;

    #[test]
    fn what_grew_is_a_difference_and_what_shrank_began_anew() {
        assert_eq!(count_since(7, Some(&Value::Count(5))), 2);
        assert_eq!(count_since(3, Some(&Value::Count(5))), 3);
        assert_eq!(count_since(3, None), 3);
        assert_eq!(sum_since(2.5, Some(&Value::Number(1.0))), 1.5);
        assert_eq!(sum_since(0.5, Some(&Value::Number(1.0))), 0.5);
        let (old, new) = (distribution(&[1, 2, 0], 4.0), distribution(&[1, 5, 1], 9.0));
        assert_eq!(distribution_since(&new, Some(&Value::Distribution(old.clone()))), distribution(&[0, 3, 1], 5.0));
        assert_eq!(distribution_since(&old, Some(&Value::Distribution(new))), old);
        let other = Distribution { bounds: vec![1.0], counts: vec![1, 1], sum: 2.0 };
        assert_eq!(distribution_since(&old, Some(&Value::Distribution(other))), old);
    }

    #[test]
    fn a_series_is_found_by_its_name_and_labels() {
        let known = labelled(counter("b", 0), &[(&[("x", "1")], Value::Count(1)), (&[("x", "2")], Value::Count(2))]);
        let before = snapshot([counter("a", 9), known.clone(), counter("c", 8)]);
        let find = |labels: &[(String, String)]| earlier(&before, &known, labels);
        assert_eq!(find(&[("x".into(), "2".into())]), Some(&Value::Count(2)));
        assert_eq!(find(&[("x".into(), "3".into())]), None);
        assert_eq!(earlier(&before, &counter("d", 1), &[]), None);
        let other_kind = Family { kind: super::super::snapshot::Kind::Gauge, ..counter("a", 1) };
        assert_eq!(earlier(&before, &other_kind, &[]), None);
    }
}
