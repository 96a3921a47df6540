//! The civil calendar of a moment, in UTC.

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const DAY_S: u64 = 86_400;

/// A second of the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: u64,
    /// From 1.
    pub month: u64,
    pub day: u64,
    pub hour: u64,
    pub minute: u64,
    pub second: u64,
    /// Sunday is 0.
    pub weekday: u64,
}

impl Civil {
    /// Of seconds since 1970, without leap seconds, as POSIX counts them.
    pub fn of_unix(seconds: u64) -> Self {
        let (days, rest) = (seconds / DAY_S, seconds % DAY_S);
        // Years that begin in March, in cycles of 400 years, which are 146,097 days.
        let since = days + 719_468;
        let cycle = since / 146_097;
        let day_of_cycle = since % 146_097;
        let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
        let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = 400 * cycle + year_of_cycle + u64::from(month <= 2);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        Civil { year, month, day, hour, minute, second, weekday: (days + 4) % 7 }
    }

    pub fn month_name(&self) -> &'static str {
        MONTHS[self.month as usize - 1]
    }

    pub fn day_name(&self) -> &'static str {
        DAYS[self.weekday as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seconds: u64) -> String {
        let at = Civil::of_unix(seconds);
        let Civil { year, month, day, hour, minute, second, .. } = at;
        format!("{} {year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}", at.day_name())
    }

    /// As `date -u -d @…` says.
    #[test]
    fn moments_have_their_dates() {
        for (seconds, text) in [
            (0, "Thu 1970-01-01 00:00:00"),
            (784_111_777, "Sun 1994-11-06 08:49:37"),
            (951_782_399, "Mon 2000-02-28 23:59:59"),
            (951_782_400, "Tue 2000-02-29 00:00:00"),
            (1_709_164_800, "Thu 2024-02-29 00:00:00"),
            (4_107_542_399, "Sun 2100-02-28 23:59:59"),
            (4_107_542_400, "Mon 2100-03-01 00:00:00"),
            (253_402_300_799, "Fri 9999-12-31 23:59:59"),
        ] {
            assert_eq!(shown(seconds), text);
        }
    }
}
