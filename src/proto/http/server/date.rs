//! The Date header: IMF-fixdate (RFC 9110, 5.6.7), made once a second.

use std::time::{Duration, Instant};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The header line of this second. Without a wall clock there is none, as RFC 9110 (6.6.1) wants it.
#[derive(Debug, Default)]
pub struct Clock {
    wall: Option<(Instant, Duration)>,
    second: u64,
    line: String,
}

impl Clock {
    pub fn new(wall: Option<(Instant, Duration)>) -> Self {
        Clock { wall, second: 0, line: String::new() }
    }

    /// `Date: ...` with its line end, or nothing.
    pub fn line(&mut self, now: Instant) -> &[u8] {
        let Some((at, since_epoch)) = self.wall else { return b"" };
        let second = (since_epoch + now.saturating_duration_since(at)).as_secs();
        if second != self.second || self.line.is_empty() {
            self.second = second;
            self.line = format!("Date: {}\r\n", date(second));
        }
        self.line.as_bytes()
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn date(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Days to years, months and days of the proleptic Gregorian calendar, counted from 1 March of the year 0, so that
    // a leap day is the last of its year: 400 years are 146097 days, and months from March on repeat every five.
    let from_march = days + 719_468;
    let (era, of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(date(951_868_800), "Wed, 01 Mar 2000 00:00:00 GMT");
        assert_eq!(date(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(date(1_735_689_599), "Tue, 31 Dec 2024 23:59:59 GMT");
    }

    #[test]
    fn the_line_changes_with_the_second() {
        let start = Instant::now();
        let mut clock = Clock::new(Some((start, Duration::from_millis(784_111_777_500))));
        assert_eq!(clock.line(start), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        let later = start + Duration::from_millis(500);
        assert_eq!(clock.line(later), b"Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
        assert_eq!(Clock::new(None).line(start), b"");
    }
}
