//! numeric: base 10,000 on the wire (`numeric_send` in PostgreSQL's `utils/adt/numeric.c`), exact decimal text here.
//!
//! On the wire: the count of digits, the weight of the first (a power of 10,000), the sign, the count of decimal digits
//! that are shown after the point, the digits; each takes 16 bits.

use std::borrow::Cow;

use super::cursor::Cursor;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Decimal digits after the point at most (documentation, 8.1.2).
const SCALE_MAX: i64 = 16_383;
/// Weight of the first digit at most, which makes 131,072 decimal digits before the point.
const WEIGHT_MAX: i64 = 32_767;
/// Decimal digits in one digit of the wire.
const DIGITS: i64 = 4;

/// Appends the text of a numeric. `grown_max`: how many bytes it may take.
pub fn decode(bytes: &[u8], grown_max: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let mut cursor = Cursor::new("numeric", bytes);
    let count = cursor.i16()? as u16;
    let weight = cursor.i16()?;
    let sign = cursor.i16()? as u16;
    let scale = cursor.i16()?;
    let digits = cursor.rest();
    if usize::from(count) * 2 != digits.len() {
        return Err(format!("numeric: {count} digits given in {} bytes", digits.len()));
    }
    let word = match sign {
        POSITIVE | NEGATIVE => "",
        NAN => "NaN",
        INFINITY => "Infinity",
        NEGATIVE_INFINITY => "-Infinity",
        _ => return Err(format!("numeric: {sign:#06x} given as its sign")),
    };
    if !word.is_empty() {
        out.extend_from_slice(word.as_bytes());
        return Ok(());
    }
    let scale = match u32::try_from(scale) {
        Ok(scale) if i64::from(scale) <= SCALE_MAX => scale as usize,
        _ => return Err(format!("numeric: {scale} digits after the point given, 0 to {SCALE_MAX} expected")),
    };
    let before = (i64::from(weight) + 1).max(0) as usize * DIGITS as usize;
    if before + scale > grown_max {
        return Err(format!("numeric: its {before} digits and those around it take too much as text"));
    }
    if sign == NEGATIVE {
        out.push(b'-');
    }
    let digit = |place: i64| -> Result<u16, String> {
        let Some(pair) = usize::try_from(place).ok().and_then(|place| digits.chunks_exact(2).nth(place)) else {
            return Ok(0);
        };
        match u16::from_be_bytes([pair[0], pair[1]]) {
            digit @ 0..10_000 => Ok(digit),
            digit => Err(format!("numeric: {digit} given as a digit, 0 to 9999 expected")),
        }
    };
    let start = out.len();
    for place in 0..=i64::from(weight) {
        push_digit(out, digit(place)?);
    }
    if weight < 0 {
        out.push(b'0');
    }
    let zeros = out[start..].iter().take_while(|byte| **byte == b'0').count().min(out.len() - start - 1);
    out.drain(start..start + zeros);
    if scale > 0 {
        out.push(b'.');
        let end = out.len() + scale;
        // Below 0 where zeros stand between the point and the first digit.
        let mut place = i64::from(weight) + 1;
        while out.len() < end {
            push_digit(out, digit(place)?);
            place += 1;
        }
        out.truncate(end);
    }
    Ok(())
}

fn push_digit(out: &mut Vec<u8>, digit: u16) {
    let decimal = |unit: u16| b'0' + (digit / unit % 10) as u8;
    out.extend_from_slice(&[decimal(1000), decimal(100), decimal(10), decimal(1)]);
}

/// Whether this is the text of a numeric.
pub fn is_valid(text: &[u8]) -> bool {
    special(text).is_some() || Decimal::parse(text).is_some()
}

/// Appends the binary form of a decimal text: `-12.50`, `1.5E+3`, `NaN`, `-Infinity`.
pub fn encode(text: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    if let Some(sign) = special(text) {
        head(out, 0, 0, sign, 0);
        return Ok(());
    }
    let decimal = Decimal::parse(text).ok_or_else(|| {
        let shown = String::from_utf8_lossy(&text[..text.len().min(40)]);
        format!("numeric: {shown:?} given, a decimal number expected")
    })?;
    if decimal.scale > SCALE_MAX {
        return Err(format!("numeric: {} digits after the point given, at most {SCALE_MAX} expected", decimal.scale));
    }
    // Decimal digits before the point; the weight follows from where the first stands.
    let zeros = decimal.digits.iter().take_while(|digit| **digit == b'0').count();
    let digits = &decimal.digits[zeros..];
    let digits = &digits[..digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1)];
    if digits.is_empty() {
        head(out, 0, 0, POSITIVE, decimal.scale as u16);
        return Ok(());
    }
    let first = decimal.point - zeros as i64 - 1;
    let weight = first.div_euclid(DIGITS);
    if weight > WEIGHT_MAX {
        let before_max = (WEIGHT_MAX + 1) * DIGITS;
        return Err(format!("numeric: {} digits before the point given, at most {before_max} expected", first + 1));
    }
    let in_first = first.rem_euclid(DIGITS) as usize + 1;
    let (front, rest) = digits.split_at(in_first.min(digits.len()));
    let count = 1 + rest.len().div_ceil(DIGITS as usize);
    head(out, count as u16, weight as i16, if decimal.negative { NEGATIVE } else { POSITIVE }, decimal.scale as u16);
    let value = |group: &[u8]| group.iter().fold(0, |value: u16, digit| value * 10 + u16::from(digit - b'0'));
    let pad = |group: &[u8], width: usize| value(group) * 10_u16.pow((width - group.len()) as u32);
    out.extend_from_slice(&pad(front, in_first).to_be_bytes());
    for group in rest.chunks(DIGITS as usize) {
        out.extend_from_slice(&pad(group, DIGITS as usize).to_be_bytes());
    }
    Ok(())
}

fn head(out: &mut Vec<u8>, count: u16, weight: i16, sign: u16, scale: u16) {
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&scale.to_be_bytes());
}

/// The sign field of what is no number.
fn special(text: &[u8]) -> Option<u16> {
    let (negative, word) = match text {
        [b'-', word @ ..] => (true, word),
        [b'+', word @ ..] => (false, word),
        word => (false, word),
    };
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if is("nan") {
        return Some(NAN);
    }
    (is("infinity") || is("inf")).then_some(if negative { NEGATIVE_INFINITY } else { INFINITY })
}

/// A decimal number as it was written.
struct Decimal<'a> {
    negative: bool,
    /// ASCII digits, without the point.
    digits: Cow<'a, [u8]>,
    /// How many of the digits stand before the point; may be negative, or more than there are.
    point: i64,
    /// Digits shown after the point.
    scale: i64,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (mantissa, exponent) = match rest.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&rest[..at], exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (before, after) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &[][..]),
        };
        if before.len() + after.len() == 0 || !before.iter().chain(after).all(u8::is_ascii_digit) {
            return None;
        }
        let digits = if after.is_empty() { Cow::Borrowed(before) } else { Cow::Owned([before, after].concat()) };
        let point = before.len() as i64 + exponent;
        Some(Decimal { negative, digits, point, scale: (after.len() as i64 - exponent).max(0) })
    }
}

/// Bounded far beyond what a numeric holds, so that sums with it do not overflow.
fn exponent(text: &[u8]) -> Option<i64> {
    let number: i32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(i64::from(number))
}
