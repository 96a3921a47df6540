//! What happened between two snapshots as statsd lines, packed into datagrams.
//!
//! Sources: the metric types of statsd's `docs/metric_types.md`, DogStatsD's datagram format (protocol 1.0), and the
//! statsd plugin of Telegraf for tags in the name.

use super::delta::{QUANTILES, count_since, distribution_since, earlier, sum_since};
use super::number::{write_count, write_number};
use super::snapshot::{Distribution, Kind, Series, Snapshot, Value};

/// The most that one interval's datagrams may have together.
pub const PACKETS_BYTES_MAX: usize = 16 << 20;

/// Where labels go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tags {
    /// Into the name: `requests.endpoint.cache:5|c`.
    #[default]
    None,
    /// Behind the type: `requests:5|c|#endpoint:cache`.
    Datadog,
    /// Behind the name: `requests,endpoint=cache:5|c`.
    Influx,
}

/// How lines are written.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Before each name, with a dot between. Empty: nothing.
    pub prefix: String,
    pub tags: Tags,
    /// The most that one datagram may have; lines that are longer are left out.
    pub packet_bytes: usize,
}

/// Datagrams in the order in which they are to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    pub packets: Vec<Vec<u8>>,
    /// Lines that fit in no datagram, or in none that may still be made.
    pub left_out: u64,
    bytes: usize,
}

/// Counters and sums that grew by how much, gauges as they are, and how the interval's values were distributed.
pub fn packets(before: &Snapshot, now: &Snapshot, style: &Style) -> Packets {
    let mut packer = Packer { style, packed: Packets::default(), line: String::new() };
    for family in &now.families {
        for series in &family.series {
            packer.series(&family.name, family.kind, series, earlier(before, family, &series.labels));
        }
    }
    packer.packed
}

struct Packer<'a> {
    style: &'a Style,
    packed: Packets,
    /// What stays together: one line, mostly.
    line: String,
}

impl Packer<'_> {
    fn series(&mut self, name: &str, kind: Kind, series: &Series, before: Option<&Value>) {
        let labels = &series.labels;
        match &series.value {
            Value::Count(now) => self.count(name, "", labels, count_since(*now, before)),
            Value::Number(now) if kind == Kind::Sum => self.sum(name, "", labels, sum_since(*now, before)),
            Value::Number(now) => self.gauge(name, "", labels, *now),
            Value::Distribution(now) => self.distribution(name, labels, &distribution_since(now, before)),
        }
    }

    fn distribution(&mut self, name: &str, labels: &[(String, String)], of: &Distribution) {
        self.count(name, "count", labels, of.count());
        self.sum(name, "sum", labels, of.sum);
        for (share, suffix) in QUANTILES {
            if let Some(value) = of.quantile(share) {
                self.gauge(name, suffix, labels, value);
            }
        }
    }

    fn count(&mut self, name: &str, suffix: &str, labels: &[(String, String)], delta: u64) {
        if delta > 0 {
            self.write(name, suffix, labels, "c", |out| write_count(out, delta));
            self.pack();
        }
    }

    fn sum(&mut self, name: &str, suffix: &str, labels: &[(String, String)], delta: f64) {
        if delta > 0.0 && delta.is_finite() {
            self.write(name, suffix, labels, "c", |out| write_number(out, delta));
            self.pack();
        }
    }

    fn gauge(&mut self, name: &str, suffix: &str, labels: &[(String, String)], value: f64) {
        if !value.is_finite() {
            return;
        }
        // A sign makes a change of what would be a value, but not for Datadog. The two lines stay together.
        if value < 0.0 && self.style.tags != Tags::Datadog {
            self.write(name, suffix, labels, "g", |out| out.push('0'));
            self.line.push('\n');
        }
        self.write(name, suffix, labels, "g", |out| write_number(out, value));
        self.pack();
    }

    fn write(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[(String, String)],
        kind: &str,
        value: impl FnOnce(&mut String),
    ) {
        let out = &mut self.line;
        if !self.style.prefix.is_empty() {
            out.push_str(&self.style.prefix);
            out.push('.');
        }
        push_path(out, name);
        let labels = || labels.iter().filter(|(_, value)| !value.is_empty());
        if self.style.tags == Tags::None {
            push_labels_as_path(out, labels());
        }
        if !suffix.is_empty() {
            out.push('.');
            out.push_str(suffix);
        }
        if self.style.tags == Tags::Influx {
            for (key, value) in labels() {
                out.push(',');
                push_path(out, key);
                out.push('=');
                push_clean(out, value, "_-./");
            }
        }
        out.push(':');
        value(out);
        out.push('|');
        out.push_str(kind);
        if self.style.tags == Tags::Datadog {
            for (at, (key, value)) in labels().enumerate() {
                out.push_str(if at == 0 { "|#" } else { "," });
                push_path(out, key);
                out.push(':');
                push_clean(out, value, "_-./:");
            }
        }
    }

    /// Puts the line into the last datagram, or into another.
    fn pack(&mut self) {
        let packed = &mut self.packed;
        let (line, bytes_max) = (self.line.as_bytes(), self.style.packet_bytes);
        if line.len() > bytes_max || packed.bytes + line.len() > PACKETS_BYTES_MAX {
            packed.left_out += 1;
        } else {
            packed.bytes += line.len() + 1;
            match packed.packets.last_mut().filter(|last| last.len() + 1 + line.len() <= bytes_max) {
                Some(last) => {
                    last.push(b'\n');
                    last.extend_from_slice(line);
                }
                None => packed.packets.push(line.to_vec()),
            }
        }
        self.line.clear();
    }
}

/// Letters, digits and `also`; an underscore for anything else, be it a separator of some dialect or a line's end.
pub fn push_clean(out: &mut String, text: &str, also: &str) {
    out.extend(text.chars().map(|c| if c.is_alphanumeric() || also.contains(c) { c } else { '_' }));
}

/// One part of a dotted path: ASCII without dots.
pub fn push_path(out: &mut String, text: &str) {
    out.extend(text.chars().map(|c| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' }));
}

/// `.name.value` for each label.
pub fn push_labels_as_path<'a>(out: &mut String, labels: impl Iterator<Item = &'a (String, String)>) {
    for (key, value) in labels {
        out.push('.');
        push_path(out, key);
        out.push('.');
        push_path(out, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{counter, gauge, histogram, labelled, snapshot, sum};
    use super::super::snapshot::Family;
    use super::*;

    fn style(tags: Tags) -> Style {
        Style { prefix: String::new(), tags, packet_bytes: 1432 }
    }

    fn lines(before: &Snapshot, now: &Snapshot, style: &Style) -> Vec<String> {
        let packed = packets(before, now, style);
        assert_eq!(packed.left_out, 0);
        let text = |packet: Vec<u8>| String::from_utf8(packet).unwrap();
        packed.packets.into_iter().flat_map(|p| text(p).split('\n').map(String::from).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn counters_are_told_as_what_they_grew_by() {
        let before = snapshot([counter("a", 5), counter("b", 5), counter("c", 9), sum("d_seconds", 1.0)]);
        let now = snapshot([counter("a", 7), counter("b", 5), counter("c", 2), sum("d_seconds", 1.25), sum("e", 3.0)]);
        assert_eq!(lines(&before, &now, &style(Tags::None)), ["a:2|c", "c:2|c", "d_seconds:0.25|c", "e:3|c"]);
    }

    #[test]
    fn gauges_are_told_each_time_and_a_sign_is_no_change() {
        let now = snapshot([gauge("down", -2.5), gauge("none", f64::NAN), gauge("up", 3.0)]);
        assert_eq!(lines(&now, &now, &style(Tags::None)), ["down:0|g", "down:-2.5|g", "up:3|g"]);
        assert_eq!(lines(&now, &now, &style(Tags::Datadog)), ["down:-2.5|g", "up:3|g"]);
    }

    #[test]
    fn histograms_are_told_by_the_interval() {
        let before = snapshot([histogram("h", &[100, 0, 0, 0], 50.0)]);
        let now = snapshot([histogram("h", &[100, 0, 10, 0], 80.0)]);
        let expected = ["h.count:10|c", "h.sum:30|c", "h.p50:3|g", "h.p90:3.8|g", "h.p99:3.98|g", "h.max:4|g"];
        assert_eq!(lines(&before, &now, &style(Tags::None)), expected);
        assert_eq!(lines(&now, &now, &style(Tags::None)), Vec::<String>::new());
    }

    #[test]
    fn labels_go_where_the_dialect_wants_them() {
        let labels: &[(&str, &str)] = &[("empty", ""), ("peer", "10.0.0.1:6379"), ("what", "a|b,c d=é\n#")];
        let now = snapshot([labelled(counter("app:calls", 0), &[(labels, Value::Count(1))])]);
        let of = |tags| lines(&Snapshot::default(), &now, &Style { prefix: "my.app".into(), ..style(tags) });
        assert_eq!(of(Tags::None), ["my.app.app_calls.peer.10_0_0_1_6379.what.a_b_c_d____:1|c"]);
        assert_eq!(of(Tags::Datadog), ["my.app.app_calls:1|c|#peer:10.0.0.1:6379,what:a_b_c_d_é__"]);
        assert_eq!(of(Tags::Influx), ["my.app.app_calls,peer=10.0.0.1_6379,what=a_b_c_d_é__:1|c"]);
        let labels: &[(&str, &str)] = &[("k", "v")];
        let series = histogram("h", &[1, 0], 0.5);
        let now = snapshot([labelled(series.clone(), &[(labels, series.series[0].value.clone())])]);
        let of = |tags| lines(&Snapshot::default(), &now, &style(tags))[0].clone();
        assert_eq!(of(Tags::None), "h.k.v.count:1|c");
        assert_eq!(of(Tags::Datadog), "h.count:1|c|#k:v");
        assert_eq!(of(Tags::Influx), "h.count,k=v:1|c");
    }

    #[test]
    fn a_line_longer_than_a_datagram_is_left_out() {
        let now = snapshot([counter("short", 1), counter(&"x".repeat(99), 1)]);
        let packed = packets(&Snapshot::default(), &now, &Style { packet_bytes: 64, ..style(Tags::None) });
        assert_eq!((packed.packets, packed.left_out), (vec![b"short:1|c".to_vec()], 1));
    }

    fn families() -> impl Strategy<Value = Vec<Family>> {
        let family =
            ("[a-z]{1,12}", any::<u16>(), any::<i16>(), "\\PC{0,20}").prop_map(|(name, count, value, text)| {
                let labels: &[(&str, &str)] = &[("k", &text)];
                [
                    labelled(counter(&format!("{name}_c"), 0), &[(labels, Value::Count(count.into()))]),
                    labelled(gauge(&format!("{name}_g"), 0.0), &[(labels, Value::Number(value.into()))]),
                ]
            });
        proptest::collection::vec(family, 0..40).prop_map(|pairs| pairs.into_iter().flatten().collect())
    }

    proptest! {
        #[test]
        fn datagrams_hold_whole_lines_and_no_more_than_they_may(families in families(), bytes in 80_usize..400) {
            for tags in [Tags::None, Tags::Datadog, Tags::Influx] {
                let style = Style { prefix: "p".into(), tags, packet_bytes: bytes };
                let packed = packets(&Snapshot::default(), &snapshot(families.clone()), &style);
                let mut found = 0;
                for packet in &packed.packets {
                    prop_assert!(packet.len() <= bytes);
                    let text = std::str::from_utf8(packet).unwrap();
                    for line in text.split('\n') {
                        let (name, rest) = line.split_once(':').unwrap();
                        let (value, kind) = rest.split_once('|').unwrap();
                        prop_assert!(name.starts_with("p.") && value.parse::<f64>().is_ok(), "{}", line);
                        prop_assert!(kind.starts_with('c') || kind.starts_with('g'));
                        found += usize::from(!(kind.starts_with('g') && value == "0"));
                    }
                }
                let of = |family: &Family| !matches!(family.series[0].value, Value::Count(0) | Value::Number(0.0));
                let expected = families.iter().filter(|family| of(family)).count();
                prop_assert_eq!(found + packed.left_out as usize, expected);
            }
        }
    }
}
