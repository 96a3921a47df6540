//! Numbers as RESP writes them: decimal text.
use super::wire::broken;
use crate::proto::Fault;

/// The number in the first line of a bulk or an aggregate.
#[derive(Debug, PartialEq, Eq)]
pub enum Header {
    Need,
    /// `?`; bytes of the line.
    Streamed(usize),
    /// Bytes of the line, and its number.
    Number(usize, i64),
}

/// The digits of the longest number that a header may have.
const DIGITS_MAX: usize = 18;

/// Reads `$123\r\n` or the like; the first byte is the type.
#[inline]
pub fn header(input: &[u8]) -> Result<Header, Fault> {
    let mut number: i64 = 0;
    let mut at = 1;
    while let Some(digit) = input.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit <= 9) {
        if at > DIGITS_MAX {
            return Err(broken("a length of more than 18 digits"));
        }
        number = number * 10 + i64::from(digit);
        at += 1;
    }
    match input[at..] {
        [b'\r', b'\n', ..] if at > 1 => Ok(Header::Number(at + 2, number)),
        [] | [b'\r'] if at > 1 || input.len() == 1 => Ok(Header::Need),
        _ => special_header(input),
    }
}

/// `$-1`, `*?`.
#[cold]
fn special_header(input: &[u8]) -> Result<Header, Fault> {
    for (text, header) in [(b"-1\r\n".as_slice(), Header::Number(5, -1)), (b"?\r\n", Header::Streamed(4))] {
        if input[1..].starts_with(text) {
            return Ok(header);
        }
        if text.starts_with(&input[1..]) {
            return Ok(Header::Need);
        }
    }
    Err(broken("a length that is no number"))
}

/// A 64-bit integer: an optional sign and digits.
pub fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A double: also `inf`, `-inf` and `nan`.
pub fn float(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An optional sign and at least one digit.
pub fn is_decimal(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// An integer's text, on the stack.
pub struct Decimal {
    bytes: [u8; 20],
    start: usize,
}

impl Decimal {
    #[inline]
    pub fn new(value: i64) -> Self {
        let mut decimal = Decimal::unsigned(value.unsigned_abs());
        if value < 0 {
            decimal.start -= 1;
            decimal.bytes[decimal.start] = b'-';
        }
        decimal
    }

    #[inline]
    pub fn unsigned(mut value: u64) -> Self {
        let mut bytes = [0; 20];
        let mut start = bytes.len();
        loop {
            start -= 1;
            bytes[start] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return Decimal { bytes, start };
            }
        }
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// The shortest decimal that reads back as the same double: `1`, `0.1`, `1e300`, `inf`, `nan`.
pub fn float_text(value: f64) -> String {
    let plain = value == 0.0 || (1e-5..1e17).contains(&value.abs());
    match value {
        _ if value.is_nan() => "nan".into(),
        _ if plain || value.is_infinite() => format!("{value}"),
        _ => format!("{value:e}"),
    }
}

/// `$5\r\nhello\r\n`.
#[inline(always)]
pub fn bulk(out: &mut Vec<u8>, body: &[u8]) {
    head(out, b'$', body.len() as u64);
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// The first line of a bulk or an aggregate.
#[inline(always)]
pub fn head(out: &mut Vec<u8>, kind: u8, number: u64) {
    // Copies of a known length are a few instructions; others are calls.
    if number < 10 {
        return out.extend_from_slice(&[kind, b'0' + number as u8, b'\r', b'\n']);
    }
    if number < 100 {
        let (tens, ones) = (number as u8 / 10, number as u8 % 10);
        return out.extend_from_slice(&[kind, b'0' + tens, b'0' + ones, b'\r', b'\n']);
    }
    out.push(kind);
    out.extend_from_slice(Decimal::unsigned(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_at_every_cut() {
        for (text, expected) in [
            (b"$0\r\n".as_slice(), Header::Number(4, 0)),
            (b"*123\r\n", Header::Number(6, 123)),
            (b"$-1\r\n", Header::Number(5, -1)),
            (b"*?\r\n", Header::Streamed(4)),
        ] {
            assert_eq!(header(text).unwrap(), expected);
            for end in 1..text.len() {
                assert_eq!(header(&text[..end]).unwrap(), Header::Need, "{:?}", text[..end].escape_ascii());
            }
        }
        for bad in [
            b"$x".as_slice(),
            b"$\r\n",
            b"$1\rx",
            b"$-2\r\n",
            b"$9999999999999999999\r\n",
            b"$1000000000000000000\r\n",
            b"$1x",
            b"$+1\r\n",
        ] {
            assert!(header(bad).is_err(), "{:?}", bad.escape_ascii());
        }
    }

    #[test]
    fn numbers_become_text() {
        for value in [0, 7, 10, -1, i64::MAX, i64::MIN] {
            assert_eq!(Decimal::new(value).as_bytes(), value.to_string().as_bytes());
        }
        assert_eq!(Decimal::unsigned(u64::MAX).as_bytes(), u64::MAX.to_string().as_bytes());
        for (value, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e300, "1e300"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (-f64::NAN, "nan"),
            (0.0, "0"),
        ] {
            assert_eq!(float_text(value), text);
        }
    }
}
