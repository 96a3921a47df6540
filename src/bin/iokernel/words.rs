//! Numbers and texts as people read them.

use serde_json::Value;

/// Without what could move a terminal's cursor or change its state: such characters become `·`.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_bidi(c) { '·' } else { c }).collect()
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `width` characters, the last of them `…` if some were cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// `3ms`, `2.5s`, `12m08s`, `3h05m`, `2d03h`.
pub fn span(ms: f64) -> String {
    let seconds = (ms / 1e3) as u64;
    match ms {
        ms if !ms.is_finite() || ms < 0.0 => "-".into(),
        ms if ms < 10.0 && ms.fract() != 0.0 => format!("{ms:.1}ms"),
        ms if ms < 1e3 => format!("{ms:.0}ms"),
        ms if ms < 60e3 => format!("{:.1}s", (ms / 100.0).floor() / 10.0),
        ms if ms < 3_600e3 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        ms if ms < 86_400e3 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `950us`, `1.2ms`: like [`span`], from microseconds.
pub fn span_us(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0}us") } else { span(us / 1e3) }
}

/// `999`, `12.3k`, `4.0M`.
pub fn count(number: f64) -> String {
    match number {
        number if number < 1e4 && number.fract() == 0.0 => format!("{number:.0}"),
        number if number < 1e3 => format!("{number:.1}"),
        number if number < 1e4 => format!("{number:.0}"),
        number if number < 1e6 => format!("{:.1}k", number / 1e3),
        number if number < 1e9 => format!("{:.1}M", number / 1e6),
        _ => format!("{:.1}G", number / 1e9),
    }
}

/// `512B`, `16.0KiB`.
pub fn bytes(number: f64) -> String {
    match number {
        number if number < 1024.0 => format!("{number:.0}B"),
        number if number < 1_048_576.0 => format!("{:.1}KiB", number / 1024.0),
        number if number < 1_073_741_824.0 => format!("{:.1}MiB", number / 1_048_576.0),
        _ => format!("{:.1}GiB", number / 1_073_741_824.0),
    }
}

/// What a field says, on one line; empty if it is not there.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => clean(&other.to_string()),
    }
}

/// A number as `say` says it; empty if there is none.
pub fn number(value: &Value, say: impl Fn(f64) -> String) -> String {
    value.as_f64().map(say).unwrap_or_default()
}

/// The items of a list; none if it is not there.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_short() {
        for (ms, expected) in [
            (0.0, "0ms"),
            (0.25, "0.2ms"),
            (999.0, "999ms"),
            (59_999.0, "59.9s"),
            (728_000.0, "12m08s"),
            (11_100_000.0, "3h05m"),
            (183_600_000.0, "2d03h"),
        ] {
            assert_eq!(span(ms), expected);
        }
        assert_eq!([span_us(950.0), span_us(1_200.0)], ["950us", "1.2ms"]);
        assert_eq!([count(7.0), count(0.5), count(12_345.0), count(4e6)], ["7", "0.5", "12.3k", "4.0M"]);
        assert_eq!([bytes(512.0), bytes(16_384.0), bytes(3e9)], ["512B", "16.0KiB", "2.8GiB"]);
    }

    #[test]
    fn no_text_moves_the_cursor() {
        assert_eq!(text(&json!("a\x1b[2Jb\r\n\u{9b}1m\u{202e}")), "a·[2Jb···1m·");
        assert_eq!(text(&json!(["render\n", 7])), "render·, 7");
        assert_eq!([cut("redis", 5), cut("redis", 4), cut("redis", 0)], ["redis", "red…", ""]);
    }
}
