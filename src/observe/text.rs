//! A snapshot as the text that scrapers read: Prometheus' exposition format 0.0.4, or OpenMetrics 1.0.0.
//!
//! Sources: "Exposition formats" of the Prometheus documentation ("Text-based format"), and the OpenMetrics 1.0.0
//! specification, whose ABNF decides about escaping.

use std::collections::HashSet;

use super::number::{write_canonical, write_count, write_go, write_number};
use super::snapshot::{Distribution, Family, Kind, Series, Snapshot, Value};

/// The most that one text may have. Families that do not fit are left out and counted.
pub const TEXT_BYTES_MAX: usize = 16 << 20;
/// What is kept free for the last family, which counts those that were left out, and for the end.
const TAIL_BYTES: usize = 512;
const DROPPED: &str = "iokernel_export_families_dropped";
const DROPPED_HELP: &str =
    "Families left out of this text: they did not fit, or their names or values are not allowed.";

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// What the `Accept` of a request asks for (RFC 9110, section 12.5.1). OpenMetrics only if it is named, and not less
    /// wanted than plain text.
    pub fn accepted(accept: &str) -> Format {
        let (mut open, mut plain) = (0.0_f32, 0.0_f32);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let Some((weight, version)) = parameters(parts) else { continue };
            match (&name[..], &version[..]) {
                ("application/openmetrics-text", "" | "1.0.0") => open = open.max(weight),
                ("text/plain", "" | "0.0.4") | ("text/*" | "*/*", _) => plain = plain.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Format::OpenMetrics } else { Format::Prometheus }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The weight and the version of a media range; None if the weight is none.
fn parameters<'a>(parts: impl Iterator<Item = &'a str>) -> Option<(f32, String)> {
    let (mut weight, mut version) = (1.0, String::new());
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match &key.trim().to_ascii_lowercase()[..] {
            "q" => weight = value.trim().parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?,
            "version" => version = value.trim().trim_matches('"').into(),
            _ => {}
        }
    }
    Some((weight, version))
}

/// The whole text, at most [`TEXT_BYTES_MAX`].
pub fn render(snapshot: &Snapshot, format: Format) -> String {
    render_within(snapshot, format, TEXT_BYTES_MAX)
}

fn render_within(snapshot: &Snapshot, format: Format, bytes_max: usize) -> String {
    let mut text = Text { out: String::new(), format, bytes_max: bytes_max.saturating_sub(TAIL_BYTES) };
    let mut claimed = HashSet::from([DROPPED.to_string()]);
    let mut dropped = 0;
    let mut full = false;
    for family in snapshot.families.iter().filter(|family| !family.series.is_empty()) {
        let names = claims(family);
        if full || !is_metric_name(&family.name) || names.iter().any(|name| claimed.contains(name)) {
            dropped += 1;
            continue;
        }
        match text.family(family) {
            Written::All => claimed.extend(names),
            Written::Nothing => dropped += 1,
            Written::TooMuch => (full, dropped) = (true, dropped + 1),
        }
    }
    if dropped > 0 {
        text.head(DROPPED, Kind::Gauge, DROPPED_HELP, "");
        text.count_sample(DROPPED, "", &[], dropped);
    }
    if format == Format::OpenMetrics {
        text.out.push_str("# EOF\n");
    }
    text.out
}

/// The names that a family takes, in either format: another's sample of such a name would be read as this family's.
fn claims(family: &Family) -> Vec<String> {
    let suffixes: &[&str] = match family.kind {
        Kind::Counter | Kind::Sum => &["", "_total", "_created"],
        Kind::Gauge => &[""],
        Kind::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
    };
    suffixes.iter().map(|suffix| format!("{}{suffix}", family.name)).collect()
}

fn is_metric_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    name.bytes().all(valid) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn is_label_name(name: &str) -> bool {
    is_metric_name(name) && !name.contains(':')
}

/// What became of a family.
enum Written {
    All,
    /// None of its series can be told.
    Nothing,
    TooMuch,
}

struct Text {
    out: String,
    format: Format,
    bytes_max: usize,
}

impl Text {
    /// Writes a family as a whole, or leaves no trace of it.
    fn family(&mut self, family: &Family) -> Written {
        let begin = self.out.len();
        self.head(&family.name, family.kind, &family.help, &family.unit);
        let samples = self.out.len();
        for series in &family.series {
            if is_tellable(family.kind, series) {
                self.series(&family.name, family.kind, series);
            }
            if self.out.len() > self.bytes_max {
                self.out.truncate(begin);
                return Written::TooMuch;
            }
        }
        if self.out.len() > samples {
            return Written::All;
        }
        self.out.truncate(begin);
        Written::Nothing
    }

    fn head(&mut self, name: &str, kind: Kind, help: &str, unit: &str) {
        let word = match kind {
            Kind::Counter | Kind::Sum => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        match self.format {
            // Here a family has the name of its samples.
            Format::Prometheus => {
                let suffix = if word == "counter" { "_total" } else { "" };
                self.help(name, suffix, help);
                self.line(&["# TYPE ", name, suffix, " ", word, "\n"]);
            }
            Format::OpenMetrics => {
                self.line(&["# TYPE ", name, " ", word, "\n"]);
                if name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')) && is_metric_name(unit) {
                    self.line(&["# UNIT ", name, " ", unit, "\n"]);
                }
                self.help(name, "", help);
            }
        }
    }

    fn help(&mut self, name: &str, suffix: &str, help: &str) {
        if help.is_empty() {
            return;
        }
        self.line(&["# HELP ", name, suffix, " "]);
        // Prometheus' own format leaves quotes of a help as they are; OpenMetrics' ABNF has one kind of escaping.
        self.escaped(help, self.format == Format::OpenMetrics);
        self.out.push('\n');
    }

    fn line(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.out.push_str(part));
    }

    fn escaped(&mut self, text: &str, quotes: bool) {
        let mut rest = text;
        while let Some(at) = rest.find(|c| c == '\\' || c == '\n' || (quotes && c == '"')) {
            self.out.push_str(&rest[..at]);
            self.out.push_str(match rest.as_bytes()[at] {
                b'\n' => "\\n",
                b'"' => "\\\"",
                _ => "\\\\",
            });
            rest = &rest[at + 1..];
        }
        self.out.push_str(rest);
    }

    fn series(&mut self, name: &str, kind: Kind, series: &Series) {
        match &series.value {
            Value::Count(count) => self.count_sample(name, "_total", &series.labels, *count),
            Value::Number(number) => {
                let suffix = if kind == Kind::Sum { "_total" } else { "" };
                self.number_sample(name, suffix, &series.labels, *number);
            }
            Value::Distribution(distribution) => self.histogram(name, &series.labels, distribution),
        }
    }

    fn histogram(&mut self, name: &str, labels: &[(String, String)], distribution: &Distribution) {
        let mut below = 0_u64;
        for (at, count) in distribution.counts.iter().enumerate() {
            below = below.saturating_add(*count);
            let bound = distribution.bounds.get(at).copied().unwrap_or(f64::INFINITY);
            self.line(&[name, "_bucket"]);
            self.labels(labels, Some(bound));
            write_count(&mut self.out, below);
            self.out.push('\n');
        }
        // OpenMetrics, "Histogram": a sum that could shrink must not be there, and a count only beside a sum.
        let shrinks = distribution.bounds.first().is_some_and(|bound| *bound < 0.0) || !is_growing(distribution.sum);
        if self.format == Format::Prometheus || !shrinks {
            self.number_sample(name, "_sum", labels, distribution.sum);
            self.count_sample(name, "_count", labels, below);
        }
    }

    fn count_sample(&mut self, name: &str, suffix: &str, labels: &[(String, String)], count: u64) {
        self.line(&[name, suffix]);
        self.labels(labels, None);
        write_count(&mut self.out, count);
        self.out.push('\n');
    }

    fn number_sample(&mut self, name: &str, suffix: &str, labels: &[(String, String)], number: f64) {
        self.line(&[name, suffix]);
        self.labels(labels, None);
        write_number(&mut self.out, number);
        self.out.push('\n');
    }

    /// The labels, with the upper bound of a bucket, and the space before the value.
    fn labels(&mut self, labels: &[(String, String)], bound: Option<f64>) {
        let mut before = '{';
        for (name, value) in labels {
            self.out.push(before);
            self.line(&[name, "=\""]);
            self.escaped(value, true);
            self.out.push('"');
            before = ',';
        }
        if let Some(bound) = bound {
            self.out.push(before);
            self.out.push_str("le=\"");
            match self.format {
                Format::Prometheus => write_go(&mut self.out, bound),
                Format::OpenMetrics => write_canonical(&mut self.out, bound),
            }
            self.out.push('"');
            before = ',';
        }
        self.out.push_str(if before == ',' { "} " } else { " " });
    }
}

/// A counter's total: neither negative nor not a number.
fn is_growing(total: f64) -> bool {
    total >= 0.0
}

/// A parser takes this series as one of that kind.
fn is_tellable(kind: Kind, series: &Series) -> bool {
    let names: Vec<&str> = series.labels.iter().map(|(name, _)| &name[..]).collect();
    let unique = names.iter().enumerate().all(|(at, name)| !names[..at].contains(name));
    let labels = unique && names.iter().all(|name| is_label_name(name));
    labels
        && match (kind, &series.value) {
            (Kind::Counter, Value::Count(_)) | (Kind::Gauge, Value::Number(_)) => true,
            (Kind::Sum, Value::Number(total)) => is_growing(*total),
            (Kind::Histogram, Value::Distribution(of)) => {
                let growing = of.bounds.windows(2).all(|pair| pair[0] < pair[1]);
                let finite = of.bounds.iter().all(|bound| bound.is_finite());
                growing && finite && of.counts.len() == of.bounds.len() + 1 && !names.contains(&"le")
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests;
