//! Numbers as text, as Go prints them: what Prometheus, OpenMetrics, statsd and Graphite all read back exactly.

use std::fmt::Write as _;

/// Whole numbers below this are printed as such.
const PLAIN_BELOW: f64 = 9_007_199_254_740_992.0;

/// A sample's value: `5`, `0.25`, `1e-09`, `+Inf`, `-Inf`, `NaN`.
pub fn write_number(out: &mut String, value: f64) {
    if value.fract() == 0.0 && value.abs() < PLAIN_BELOW {
        let _ = write!(out, "{}", value as i64);
    } else {
        write_go(out, value);
    }
}

/// A whole number.
pub fn write_count(out: &mut String, count: u64) {
    let _ = write!(out, "{count}");
}

/// The shortest text that reads back as the same number, as Go's `strconv.FormatFloat(value, 'g', -1, 64)`.
pub fn write_go(out: &mut String, value: f64) {
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    let begin = out.len();
    let _ = write!(out, "{value:e}");
    let Some(at) = out[begin..].find('e').map(|at| begin + at) else { return };
    let exponent: i32 = out[at + 1..].parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        out.truncate(begin);
        let _ = write!(out, "{value}");
    } else {
        out.truncate(at);
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
    }
}

/// OpenMetrics 1.0.0, "Canonical Numbers": like Go, with `.0` where nothing else says that it is no whole number.
pub fn write_canonical(out: &mut String, value: f64) {
    let begin = out.len();
    write_go(out, value);
    if value.is_finite() && !out[begin..].contains(['.', 'e']) {
        out.push_str(".0");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(write: fn(&mut String, f64), value: f64) -> String {
        let mut out = String::new();
        write(&mut out, value);
        out
    }

    #[test]
    fn numbers_look_as_go_prints_them() {
        let examples = [
            (0.0, "0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (0.25, "0.25"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (2.5e-9, "2.5e-09"),
            (123_456.5, "123456.5"),
            (1_234_567.5, "1.2345675e+06"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in examples {
            assert_eq!(text(write_go, value), expected);
        }
        assert_eq!(text(write_number, 1_234_567.0), "1234567");
        assert_eq!(text(write_number, 1e15), "1000000000000000");
        assert_eq!(text(write_number, 1e16), "1e+16");
    }

    // The examples of the OpenMetrics specification.
    #[test]
    fn bounds_look_as_openmetrics_wants_them() {
        let examples = "0.0 0.001 0.002 0.01 0.1 0.9 0.95 0.99 0.999 1.0 1.7 10.0 1e-10 1e-09 1e-05 0.0001 0.1 1.0 100000.0 1e+06 1e+10 +Inf";
        for expected in examples.split(' ') {
            let value: f64 = expected.trim_start_matches('+').parse().unwrap();
            assert_eq!(text(write_canonical, value), expected);
        }
    }

    proptest! {
        #[test]
        fn every_number_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            for write in [write_number, write_go, write_canonical] {
                let back: f64 = text(write, value).parse().unwrap();
                prop_assert!(back == value || back.is_nan() && value.is_nan());
            }
        }
    }
}
