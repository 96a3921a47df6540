//! A snapshot as lines of Graphite's plaintext protocol: `path value seconds`.
//!
//! Sources: "Feeding In Your Data" and "Graphite Tag Support" of the Graphite documentation.

use super::delta::{QUANTILES, distribution_since, earlier};
use super::number::{write_count, write_number};
use super::snapshot::{Series, Snapshot, Value};
use super::statsd::{push_clean, push_labels_as_path, push_path};

/// The most that one interval's text may have; lines beyond are left out.
pub const LINES_BYTES_MAX: usize = 16 << 20;

/// How lines are written.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Before each path, with a dot between. Empty: nothing.
    pub prefix: String,
    /// Labels as tags (`name;key=value`); else as parts of the path (`name.key.value`).
    pub tags: bool,
}

/// Counters and sums as they stand, for Graphite's own functions to make rates of; quantiles are those of the interval
/// since `before`.
pub fn lines(before: &Snapshot, now: &Snapshot, style: &Style, unix_s: u64) -> String {
    let mut lines = Lines { out: String::new(), style, unix_s };
    for family in &now.families {
        for series in &family.series {
            if lines.out.len() > LINES_BYTES_MAX {
                return lines.out;
            }
            lines.series(&family.name, series, earlier(before, family, &series.labels));
        }
    }
    lines.out
}

struct Lines<'a> {
    out: String,
    style: &'a Style,
    unix_s: u64,
}

impl Lines<'_> {
    fn series(&mut self, name: &str, series: &Series, before: Option<&Value>) {
        let labels = &series.labels;
        match &series.value {
            Value::Count(count) => self.count(name, "", labels, *count),
            Value::Number(number) => self.number(name, "", labels, *number),
            Value::Distribution(now) => {
                self.count(name, "count", labels, now.count());
                self.number(name, "sum", labels, now.sum);
                let fresh = distribution_since(now, before);
                for (share, suffix) in QUANTILES {
                    if let Some(value) = fresh.quantile(share) {
                        self.number(name, suffix, labels, value);
                    }
                }
            }
        }
    }

    fn count(&mut self, name: &str, suffix: &str, labels: &[(String, String)], count: u64) {
        self.path(name, suffix, labels);
        write_count(&mut self.out, count);
        self.end();
    }

    fn number(&mut self, name: &str, suffix: &str, labels: &[(String, String)], number: f64) {
        // Graphite stores no other; some of its versions close the conn.
        if number.is_finite() {
            self.path(name, suffix, labels);
            write_number(&mut self.out, number);
            self.end();
        }
    }

    fn end(&mut self) {
        self.out.push(' ');
        write_count(&mut self.out, self.unix_s);
        self.out.push('\n');
    }

    fn path(&mut self, name: &str, suffix: &str, labels: &[(String, String)]) {
        let out = &mut self.out;
        if !self.style.prefix.is_empty() {
            out.push_str(&self.style.prefix);
            out.push('.');
        }
        push_path(out, name);
        let labels = || labels.iter().filter(|(_, value)| !value.is_empty());
        if !self.style.tags {
            push_labels_as_path(out, labels());
        }
        if !suffix.is_empty() {
            out.push('.');
            out.push_str(suffix);
        }
        if self.style.tags {
            for (key, value) in labels() {
                out.push(';');
                push_path(out, key);
                out.push('=');
                push_clean(out, value, "_-./:,@+");
            }
        }
        out.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{counter, gauge, histogram, labelled, snapshot, sum};
    use super::*;

    fn written(before: &Snapshot, now: &Snapshot, tags: bool) -> String {
        lines(before, now, &Style { prefix: "app".into(), tags }, 1_700_000_000)
    }

    #[test]
    fn values_stand_as_they_are() {
        let now = snapshot([counter("a", 7), gauge("g", -0.5), gauge("n", f64::INFINITY), sum("s_seconds", 1e-9)]);
        let expected = "app.a 7 1700000000\napp.g -0.5 1700000000\napp.s_seconds 1e-09 1700000000\n";
        assert_eq!(written(&Snapshot::default(), &now, false), expected);
        assert_eq!(lines(&Snapshot::default(), &now, &Style::default(), 5).lines().next(), Some("a 7 5"));
    }

    #[test]
    fn quantiles_are_those_of_the_interval() {
        let before = snapshot([histogram("h", &[100, 0, 0, 0], 50.0)]);
        let now = snapshot([histogram("h", &[100, 0, 10, 0], 80.0)]);
        let expected = ["h.count 110", "h.sum 80", "h.p50 3", "h.p90 3.8", "h.p99 3.98", "h.max 4"];
        let expected: String = expected.iter().map(|line| format!("app.{line} 1700000000\n")).collect();
        assert_eq!(written(&before, &now, false), expected);
        assert_eq!(written(&now, &now, false), "app.h.count 110 1700000000\napp.h.sum 80 1700000000\n");
    }

    #[test]
    fn labels_are_tags_or_parts_of_the_path() {
        let labels: &[(&str, &str)] = &[("empty", ""), ("peer", "10.0.0.1:6379"), ("what", "~a;b c\n=")];
        let now = snapshot([labelled(counter("calls", 0), &[(labels, Value::Count(1))])]);
        let path = written(&Snapshot::default(), &now, false);
        assert_eq!(path, "app.calls.peer.10_0_0_1_6379.what._a_b_c__ 1 1700000000\n");
        let tags = written(&Snapshot::default(), &now, true);
        assert_eq!(tags, "app.calls;peer=10.0.0.1:6379;what=_a_b_c__ 1 1700000000\n");
    }

    proptest! {
        #[test]
        fn any_label_leaves_a_line_of_three_words(value: String, tags: bool) {
            let labels: &[(&str, &str)] = &[("k", &value)];
            let now = snapshot([labelled(counter("calls", 0), &[(labels, Value::Count(1))])]);
            let text = written(&Snapshot::default(), &now, tags);
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(!line.contains(|c: char| c.is_control()));
            let words: Vec<&str> = line.split_whitespace().collect();
            prop_assert_eq!(&words[1..], ["1", "1700000000"]);
        }
    }
}
