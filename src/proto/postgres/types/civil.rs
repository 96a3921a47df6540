//! Dates and times in ISO spelling, as PostgreSQL writes and reads them (documentation, 8.5).
//!
//! The calendar is the proleptic Gregorian one. There is no year 0: 1 BC is year 0 in sums.

use std::io::Write as _;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL's count begins.
pub const EPOCH_DAYS: i32 = 10_957;
pub const SECOND_US: i64 = 1_000_000;
pub const DAY_US: i64 = 86_400 * SECOND_US;
pub const EPOCH_US: i64 = EPOCH_DAYS as i64 * DAY_US;

const CYCLE_YEARS: i64 = 400;
const CYCLE_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const MARCH_DAYS: i64 = 719_468;

/// An interval as it is kept: its parts do not add up, since months and days differ in length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub us: i64,
}

/// Days since 1970-01-01. Month and day are not judged.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March, so that the leap day is their last.
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year_of_cycle) = (year.div_euclid(CYCLE_YEARS), year.rem_euclid(CYCLE_YEARS));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    cycle * CYCLE_DAYS + year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year - MARCH_DAYS
}

/// Year, month and day of days since 1970-01-01.
fn civil_of(days: i64) -> (i64, i64, i64) {
    let since = days + MARCH_DAYS;
    let (cycle, day_of_cycle) = (since.div_euclid(CYCLE_DAYS), since.rem_euclid(CYCLE_DAYS));
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (cycle * CYCLE_YEARS + year_of_cycle + i64::from(month <= 2), month, day)
}

/// `2024-02-29`, `0044-03-15 BC`, `infinity`.
pub fn write_date(out: &mut Vec<u8>, days: i32) {
    if !write_infinity(out, days == i32::MAX, days == i32::MIN) {
        let (year, month, day) = civil_of(i64::from(days));
        put(out, format_args!("{:04}-{month:02}-{day:02}", era(year)));
        write_era(out, year);
    }
}

/// Microseconds since 1970-01-01 00:00: `2024-02-29 12:00:00.5`, `infinity`. `utc`: with the offset `+00`.
pub fn write_timestamp(out: &mut Vec<u8>, us: i64, utc: bool) {
    if !write_infinity(out, us == i64::MAX, us == i64::MIN) {
        write_moment(out, i128::from(us), utc);
    }
}

/// The same without infinity, and wide enough for all that PostgreSQL has.
pub fn write_moment(out: &mut Vec<u8>, us: i128, utc: bool) {
    let (days, rest) = (us.div_euclid(i128::from(DAY_US)) as i64, us.rem_euclid(i128::from(DAY_US)) as i64);
    let (year, month, day) = civil_of(days);
    put(out, format_args!("{:04}-{month:02}-{day:02} ", era(year)));
    write_time(out, rest);
    if utc {
        out.extend_from_slice(b"+00");
    }
    write_era(out, year);
}

/// `12:00:00.5`, `24:00:00`.
pub fn write_time(out: &mut Vec<u8>, us: i64) {
    if us < 0 {
        out.push(b'-');
    }
    let us = us.unsigned_abs();
    let (seconds, fraction) = (us / SECOND_US as u64, us % SECOND_US as u64);
    put(out, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    if fraction > 0 {
        put(out, format_args!(".{fraction:06}"));
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// A time and seconds east of UTC: `12:00:00+05:30`.
pub fn write_timetz(out: &mut Vec<u8>, us: i64, east_s: i32) {
    write_time(out, us);
    let offset = east_s.unsigned_abs();
    let sign = if east_s < 0 { '-' } else { '+' };
    put(out, format_args!("{sign}{:02}:{:02}:{:02}", offset / 3600, offset / 60 % 60, offset % 60));
}

/// `14 mons -3 days 04:05:06.7`.
pub fn write_interval(out: &mut Vec<u8>, interval: Interval) {
    put(out, format_args!("{} mons {} days ", interval.months, interval.days));
    write_time(out, interval.us);
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into a Vec does not fail.
    let _ = out.write_fmt(text);
}

fn write_infinity(out: &mut Vec<u8>, positive: bool, negative: bool) -> bool {
    match (positive, negative) {
        (true, _) => out.extend_from_slice(b"infinity"),
        (_, true) => out.extend_from_slice(b"-infinity"),
        _ => return false,
    }
    true
}

/// The year as it is spelled.
fn era(year: i64) -> i64 {
    if year > 0 { year } else { 1 - year }
}

fn write_era(out: &mut Vec<u8>, year: i64) {
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

/// Days since 1970-01-01; None for other spellings.
pub fn read_date(text: &[u8]) -> Option<i32> {
    match text {
        b"infinity" => return Some(i32::MAX),
        b"-infinity" => return Some(i32::MIN),
        _ => {}
    }
    let (text, is_bc) = strip_era(text);
    let mut scan = Scan(text);
    let days = scan.date(is_bc)?;
    if scan.0.is_empty() { i32::try_from(days).ok() } else { None }
}

/// Microseconds since midnight.
pub fn read_time(text: &[u8]) -> Option<i64> {
    let mut scan = Scan(text);
    let us = scan.time()?;
    scan.0.is_empty().then_some(us)
}

/// Microseconds since midnight, seconds east of UTC.
pub fn read_timetz(text: &[u8]) -> Option<(i64, i32)> {
    let mut scan = Scan(text);
    let (us, east_s) = (scan.time()?, scan.offset()?);
    scan.0.is_empty().then_some((us, i32::try_from(east_s).ok()?))
}

/// Microseconds since 1970-01-01 00:00, in UTC where the text has an offset. `zoned`: it must have one.
pub fn read_timestamp(text: &[u8], zoned: bool) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, is_bc) = strip_era(text);
    let mut scan = Scan(text);
    let days = scan.date(is_bc)?;
    scan.byte(b' ')?;
    let us = scan.time()?;
    let east_s = if zoned { scan.offset()? } else { 0 };
    let sum = i128::from(days) * i128::from(DAY_US) + i128::from(us) - i128::from(east_s) * i128::from(SECOND_US);
    // The ends of the range stand for infinity.
    scan.0.is_empty().then_some(i64::try_from(sum).ok()?).filter(|us| !matches!(*us, i64::MAX | i64::MIN))
}

/// `1 year 2 mons -3 days +04:05:06.7`: `IntervalStyle` postgres.
pub fn read_interval(text: &[u8]) -> Option<Interval> {
    let mut interval = Interval::default();
    let mut words = text.split(|byte| *byte == b' ');
    let mut is_empty = true;
    while let Some(word) = words.next() {
        is_empty = false;
        let (negative, digits) = match word {
            [b'-', digits @ ..] => (true, digits),
            [b'+', digits @ ..] => (false, digits),
            digits => (false, digits),
        };
        let mut scan = Scan(digits);
        if digits.contains(&b':') {
            let us = i128::from(scan.number()?) * 3600 * i128::from(SECOND_US) + i128::from(scan.minutes()?);
            interval.us = i64::try_from(if negative { -us } else { us }).ok()?;
            if !scan.0.is_empty() || words.next().is_some() {
                return None;
            }
            break;
        }
        let number = i32::try_from(if negative { -scan.number()? } else { scan.number()? }).ok()?;
        if !scan.0.is_empty() {
            return None;
        }
        match words.next()? {
            b"year" | b"years" => interval.months = interval.months.checked_add(number.checked_mul(12)?)?,
            b"mon" | b"mons" => interval.months = interval.months.checked_add(number)?,
            b"day" | b"days" => interval.days = interval.days.checked_add(number)?,
            _ => return None,
        }
    }
    (!is_empty).then_some(interval)
}

fn strip_era(text: &[u8]) -> (&[u8], bool) {
    text.strip_suffix(b" BC").map_or((text, false), |text| (text, true))
}

/// What is left of a text.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn byte(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// Digits, as many as an i64 surely holds.
    fn number(&mut self) -> Option<i64> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=18).contains(&length) {
            return None;
        }
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    fn within(&mut self, max: i64) -> Option<i64> {
        self.number().filter(|number| *number <= max)
    }

    fn date(&mut self, is_bc: bool) -> Option<i64> {
        // The last year that PostgreSQL has is 5874897. The day of another style may stand first; a year has four digits.
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let year = self.within(9_999_999)?;
        self.byte(b'-')?;
        let month = self.within(12)?;
        self.byte(b'-')?;
        let day = self.within(31)?;
        let valid = digits >= 4 && year > 0 && month > 0 && day > 0;
        valid.then(|| days_of(if is_bc { 1 - year } else { year }, month, day))
    }

    fn time(&mut self) -> Option<i64> {
        Some(self.within(24)? * 3600 * SECOND_US + self.minutes()?)
    }

    /// `:05:06.7`, in microseconds.
    fn minutes(&mut self) -> Option<i64> {
        self.byte(b':')?;
        let minutes = self.within(59)?;
        self.byte(b':')?;
        let seconds = self.within(60)?;
        let mut fraction = 0;
        if self.byte(b'.').is_some() {
            let digits = self.0.len();
            fraction = self.within(999_999)?;
            let digits = digits - self.0.len();
            fraction *= 10_i64.pow(6_u32.checked_sub(digits as u32)?);
        }
        Some((minutes * 60 + seconds) * SECOND_US + fraction)
    }

    /// `+05`, `-03:30`, `+01:15:30`, in seconds east of UTC.
    fn offset(&mut self) -> Option<i64> {
        let negative = match self.0.first()? {
            b'-' => true,
            b'+' => false,
            _ => return None,
        };
        self.0 = &self.0[1..];
        let mut seconds = self.within(99)? * 3600;
        for unit in [60, 1] {
            if self.byte(b':').is_some() {
                seconds += self.within(59)? * unit;
            }
        }
        Some(if negative { -seconds } else { seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// Days as `date '…' - date '1970-01-01'` has them.
    #[test]
    fn dates_are_spelled_and_read() {
        for (days, text) in [
            (0, "1970-01-01"),
            (EPOCH_DAYS, "2000-01-01"),
            (11_016, "2000-02-29"),
            (-1, "1969-12-31"),
            (-719_162, "0001-01-01"),
            (-719_163, "0001-12-31 BC"),
            (-735_160, "0044-03-15 BC"),
            (2_145_042_905, "5874897-12-31"),
            (-2_440_588, "4714-11-24 BC"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(shown(|out| write_date(out, days)), text);
            assert_eq!(read_date(text.as_bytes()), Some(days), "{text}");
        }
        for text in ["", "03/15/2024", "15-03-2024", "2024-13-01", "2024-01-01 ", "0000-01-01", "99999999-01-01"] {
            assert_eq!(read_date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn timestamps_are_spelled_and_read() {
        for (us, text) in [
            (0, "1970-01-01 00:00:00"),
            (-1, "1969-12-31 23:59:59.999999"),
            (EPOCH_US + 500_000, "2000-01-01 00:00:00.5"),
            (i64::MAX, "infinity"),
            (i64::MIN, "-infinity"),
        ] {
            assert_eq!(shown(|out| write_timestamp(out, us, false)), text);
            assert_eq!(read_timestamp(text.as_bytes(), false), Some(us), "{text}");
        }
        assert_eq!(read_timestamp(b"1970-01-01 05:30:15+05:30:15", true), Some(0));
        assert_eq!(read_timestamp(b"1969-12-31 20:00:00-04", true), Some(0));
        assert_eq!(read_timestamp(b"1969-12-31 20:00:00", true), None);
        assert_eq!(read_timestamp(b"294276-12-31 23:59:59", false), None);
        assert_eq!(read_timestamp(b"Sat Jan 01 00:00:00 2000", false), None);
    }

    #[test]
    fn times_are_spelled_and_read() {
        for (us, text) in [(0, "00:00:00"), (DAY_US, "24:00:00"), (1, "00:00:00.000001"), (1_500_000, "00:00:01.5")] {
            assert_eq!(shown(|out| write_time(out, us)), text);
            assert_eq!(read_time(text.as_bytes()), Some(us));
        }
        assert_eq!(shown(|out| write_timetz(out, 0, -12_600)), "00:00:00-03:30:00");
        assert_eq!(read_timetz(b"00:00:00-03:30"), Some((0, -12_600)));
        assert_eq!(read_time(b"00:00:00.1234567"), None);
    }

    #[test]
    fn intervals_are_read() {
        let expected = |months, days, us| Some(Interval { months, days, us });
        assert_eq!(read_interval(b"00:00:00"), expected(0, 0, 0));
        assert_eq!(read_interval(b"1 year 2 mons -3 days +04:05:06.7"), expected(14, -3, 14_706_700_000));
        assert_eq!(read_interval(b"-1 days"), expected(0, -1, 0));
        assert_eq!(read_interval(b"-2562047788:00:54.775808"), expected(0, 0, i64::MIN));
        assert_eq!(read_interval(b"P1Y"), None);
        assert_eq!(read_interval(b"1 days 2"), None);
        assert_eq!(read_interval(b""), None);
    }
}
