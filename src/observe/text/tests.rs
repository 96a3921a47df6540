use proptest::prelude::*;

use super::super::samples::{counter, distribution, gauge, histogram, labelled, snapshot, sum};
use super::*;

fn every_kind() -> Snapshot {
    let calls: &[(&[(&str, &str)], Value)] =
        &[(&[("peer", "a\"b\\c\nd"), ("zone", "é")], Value::Count(5)), (&[("peer", "z")], Value::Count(u64::MAX))];
    let calls = Family { help: "Calls \"so far\"\nwith \\.".into(), ..labelled(counter("calls", 0), calls) };
    let busy = Family { unit: "seconds".into(), help: "Time.".into(), ..sum("busy_seconds", 0.25) };
    let took: &[(&[(&str, &str)], Value)] = &[(&[("peer", "z")], Value::Distribution(distribution(&[2, 0, 1], 7.5)))];
    let took = Family { unit: "seconds".into(), ..labelled(histogram("took_seconds", &[0], 0.0), took) };
    snapshot([busy, calls, gauge("level", f64::NEG_INFINITY), took])
}

const PROMETHEUS: &str = r#"# HELP busy_seconds_total Time.
# TYPE busy_seconds_total counter
busy_seconds_total 0.25
# HELP calls_total Calls "so far"\nwith \\.
# TYPE calls_total counter
calls_total{peer="a\"b\\c\nd",zone="é"} 5
calls_total{peer="z"} 18446744073709551615
# TYPE level gauge
level -Inf
# TYPE took_seconds histogram
took_seconds_bucket{peer="z",le="1"} 2
took_seconds_bucket{peer="z",le="2"} 2
took_seconds_bucket{peer="z",le="+Inf"} 3
took_seconds_sum{peer="z"} 7.5
took_seconds_count{peer="z"} 3
"#;

const OPEN_METRICS: &str = r#"# TYPE busy_seconds counter
# UNIT busy_seconds seconds
# HELP busy_seconds Time.
busy_seconds_total 0.25
# TYPE calls counter
# HELP calls Calls \"so far\"\nwith \\.
calls_total{peer="a\"b\\c\nd",zone="é"} 5
calls_total{peer="z"} 18446744073709551615
# TYPE level gauge
level -Inf
# TYPE took_seconds histogram
# UNIT took_seconds seconds
took_seconds_bucket{peer="z",le="1.0"} 2
took_seconds_bucket{peer="z",le="2.0"} 2
took_seconds_bucket{peer="z",le="+Inf"} 3
took_seconds_sum{peer="z"} 7.5
took_seconds_count{peer="z"} 3
# EOF
"#;

#[test]
fn every_kind_is_told_in_both_formats() {
    assert_eq!(render(&every_kind(), Format::Prometheus), PROMETHEUS);
    assert_eq!(render(&every_kind(), Format::OpenMetrics), OPEN_METRICS);
    assert_eq!(render(&Snapshot::default(), Format::Prometheus), "");
    assert_eq!(render(&Snapshot::default(), Format::OpenMetrics), "# EOF\n");
}

#[test]
fn a_sum_that_could_shrink_is_not_told_to_openmetrics() {
    let mut below = histogram("h", &[1, 0], -3.0);
    below.series[0].value =
        Value::Distribution(Distribution { bounds: vec![-1.0, 0.0], counts: vec![1, 0, 0], sum: -3.0 });
    let text = render(&snapshot([below.clone()]), Format::OpenMetrics);
    assert!(
        text.contains("h_bucket{le=\"-1.0\"} 1\n") && !text.contains("h_sum") && !text.contains("h_count"),
        "{text}"
    );
    assert!(render(&snapshot([below]), Format::Prometheus).contains("h_sum -3\nh_count 1\n"));
}

#[test]
fn what_no_parser_would_take_is_left_out_and_counted() {
    let wrong_bounds = Distribution { bounds: vec![2.0, 1.0], counts: vec![0, 0, 0], sum: 0.0 };
    let wrong = [
        counter("9lives", 1),
        counter("with space", 1),
        counter("", 1),
        sum("shrunk", -1.0),
        sum("unknown", f64::NAN),
        labelled(counter("label", 0), &[(&[("a:b", "")], Value::Count(1))]),
        labelled(counter("twice", 0), &[(&[("a", "1"), ("a", "2")], Value::Count(1))]),
        labelled(histogram("le", &[0], 0.0), &[(&[("le", "1")], Value::Distribution(distribution(&[1], 1.0)))]),
        labelled(histogram("bounds", &[0], 0.0), &[(&[], Value::Distribution(wrong_bounds))]),
        Family { kind: Kind::Gauge, ..counter("kind", 1) },
        gauge(DROPPED, 1.0),
    ];
    let help = format!("# HELP {DROPPED} {DROPPED_HELP}\n# TYPE {DROPPED} gauge\n");
    let expected = format!("# TYPE fine_total counter\nfine_total 1\n{help}{DROPPED} {}\n", wrong.len());
    let families = wrong.into_iter().chain([counter("fine", 1), Family { series: Vec::new(), ..counter("none", 0) }]);
    assert_eq!(render(&snapshot(families), Format::Prometheus), expected);
}

#[test]
fn two_families_never_share_a_name() {
    let families = [histogram("x", &[1, 0], 1.0), gauge("x_count", 1.0), gauge("y", 1.0)];
    let text = render(&snapshot(families), Format::OpenMetrics);
    assert!(
        !text.contains("# TYPE x_count gauge") && text.contains("\ny 1\n") && text.contains("dropped 1\n"),
        "{text}"
    );
}

#[test]
fn a_text_ends_before_it_is_too_long() {
    let families = (0..100).map(|at| counter(&format!("family_{at:03}"), 1));
    let text = render_within(&snapshot(families), Format::OpenMetrics, 2000);
    assert!(text.len() <= 2000, "{}", text.len());
    let told = text.matches("_total 1\n").count();
    assert!(told > 10 && text.ends_with(&format!("{DROPPED} {}\n# EOF\n", 100 - told)), "{text}");
}

#[test]
fn accept_decides() {
    use Format::{OpenMetrics, Prometheus};
    let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let cases = [
        ("", Prometheus),
        ("*/*", Prometheus),
        ("text/html, application/xhtml+xml, */*;q=0.8", Prometheus),
        (prometheus_2, OpenMetrics),
        (prometheus_3, OpenMetrics),
        ("application/openmetrics-text", OpenMetrics),
        ("Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=1", OpenMetrics),
        ("application/openmetrics-text;q=0", Prometheus),
        ("application/openmetrics-text;q=2", Prometheus),
        ("application/openmetrics-text;q=nan", Prometheus),
        ("application/openmetrics-text;version=2.0.0", Prometheus),
        ("application/openmetrics-text;q=0.4, text/plain;q=0.5", Prometheus),
        ("application/openmetrics-text;q=0.5, text/plain;q=0.5", OpenMetrics),
        ("application/openmetrics-text;q=0.5, text/*", Prometheus),
    ];
    for (accept, expected) in cases {
        assert_eq!(Format::accepted(accept), expected, "{accept}");
    }
}

/// Name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// A reader of the 0.0.4 format, to the letter.
fn parse(text: &str) -> Vec<Sample> {
    let lines = text.strip_suffix('\n').unwrap_or("").split('\n');
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(parse_sample).collect()
}

fn parse_sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    while !rest.starts_with(['}', ' ']) {
        let (label, value) = rest[1..].split_once("=\"").unwrap();
        let mut out = String::new();
        let mut chars = value.char_indices();
        loop {
            match chars.next().unwrap() {
                (at, '"') => {
                    rest = &value[at + 1..];
                    break;
                }
                (_, '\\') => out.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => out.push(other),
            }
        }
        labels.push((label.to_string(), out));
    }
    let value = rest.rsplit_once(' ').unwrap().1;
    (name.to_string(), labels, value.parse().unwrap())
}

proptest! {
    #[test]
    fn any_text_and_number_reads_back(help: String, label: String, number: f64, count: u32) {
        let labels: &[(&str, &str)] = &[("a", &label), ("b", "")];
        let calls = Family { help, ..labelled(counter("calls", 0), &[(labels, Value::Count(count.into()))]) };
        let level = labelled(gauge("level", 0.0), &[(labels, Value::Number(number))]);
        let snapshot = snapshot([calls, level]);
        let labels = vec![("a".to_string(), label), ("b".to_string(), String::new())];
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let told = parse(&render(&snapshot, format));
            prop_assert_eq!(&told[0], &("calls_total".to_string(), labels.clone(), f64::from(count)));
            prop_assert_eq!(&told[1], &("level".to_string(), labels.clone(), number));
        }
    }

    #[test]
    fn buckets_only_grow(counts in proptest::collection::vec(0_u64..1000, 1..20)) {
        let told = parse(&render(&snapshot([histogram("h", &counts, 1.0)]), Format::Prometheus));
        let buckets: Vec<f64> = told.iter().filter(|sample| sample.0 == "h_bucket").map(|sample| sample.2).collect();
        prop_assert_eq!(buckets.len(), counts.len());
        prop_assert!(buckets.is_sorted());
        prop_assert_eq!(*buckets.last().unwrap(), counts.iter().sum::<u64>() as f64);
    }
}
