//! Dates as R4 compares them: each is the stretch of time that it may mean.
//!
//! A date without a zone is UTC's. `ap` is an overlap, with nothing added for the time since:
//! what a stream carries must not depend on the clock.

use super::prefix::Prefix;

/// Nanoseconds since 1970, the end exclusive; `MIN` and `MAX` are open ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) start: i128,
    pub(super) end: i128,
}

const SECOND: i128 = 1_000_000_000;
const DAY: i64 = 86_400;

impl Interval {
    /// All that a date, dateTime or instant may mean. Seconds may be left out, as a query may.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let mut fields = date.split('-');
        let year = digits(fields.next()?, 4)?;
        let month = fields.next().map_or(Some(None), |text| digits(text, 2).map(Some))?;
        let day = fields.next().map_or(Some(None), |text| digits(text, 2).map(Some))?;
        if fields.next().is_some() || year == 0 {
            return None;
        }
        match (month, day, time) {
            (None, None, None) => Some(Self::days(first_of(year, 1)?, first_of(year + 1, 1)?)),
            (Some(month), None, None) => {
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                Some(Self::days(first_of(year, month)?, first_of(next.0, next.1)?))
            }
            (Some(month), Some(day), time) => {
                let first = first_of(year, month)?;
                if day == 0 || day > days_in(year, month) {
                    return None;
                }
                let day = first + day - 1;
                time.map_or(Some(Self::days(day, day + 1)), |time| Self::within(day, time))
            }
            _ => None,
        }
    }

    fn days(start: i64, end: i64) -> Self {
        let at = |day: i64| i128::from(day * DAY) * SECOND;
        Self { start: at(start), end: at(end) }
    }

    /// A time of a day: `hh:mm[:ss[.f…]]`, and a zone or none.
    fn within(day: i64, time: &str) -> Option<Self> {
        let (clock, offset) = zone(time)?;
        let (hms, fraction) = match clock.split_once('.') {
            Some((hms, fraction)) => (hms, Some(fraction)),
            None => (clock, None),
        };
        let mut fields = hms.split(':');
        let hour = digits(fields.next()?, 2).filter(|hour| *hour < 24)?;
        let minute = digits(fields.next()?, 2).filter(|minute| *minute < 60)?;
        let second = match fields.next() {
            // 60 is a leap second.
            Some(text) => Some(digits(text, 2).filter(|second| *second <= 60)?),
            None => None,
        };
        if fields.next().is_some() || second.is_none() && fraction.is_some() {
            return None;
        }
        let at = day * DAY + hour * 3_600 + minute * 60 + second.unwrap_or(0) - offset;
        let (nanos, size) = match (second, fraction) {
            (None, _) => (0, 60 * SECOND),
            (Some(_), None) => (0, SECOND),
            (Some(_), Some(fraction)) => nanoseconds(fraction)?,
        };
        let start = i128::from(at) * SECOND + nanos;
        Some(Self { start, end: start + size })
    }

    /// What lies between the two, open where there is none.
    pub(super) fn between(start: Option<Self>, end: Option<Self>) -> Self {
        let (start, end) = (start.map(|at| at.start), end.map(|at| at.end));
        Self { start: start.unwrap_or(i128::MIN), end: end.unwrap_or(i128::MAX) }
    }

    /// The smallest that holds both.
    pub(super) fn hull(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// Whether a value of a resource fits this value of a query.
    pub(super) fn fits(self, prefix: Prefix, value: Self) -> bool {
        let contained = self.start <= value.start && value.end <= self.end;
        match prefix {
            Prefix::Eq => contained,
            Prefix::Ne => !contained,
            Prefix::Gt => value.end > self.end,
            Prefix::Lt => value.start < self.start,
            Prefix::Ge => value.end > self.end || contained,
            Prefix::Le => value.start < self.start || contained,
            Prefix::Sa => value.start >= self.end,
            Prefix::Eb => value.end <= self.start,
            Prefix::Ap => value.start < self.end && value.end > self.start,
        }
    }
}

/// So many digits, and nothing else.
fn digits(text: &str, count: usize) -> Option<i64> {
    let holds = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    if holds { text.parse().ok() } else { None }
}

/// A time's text without its zone, and the zone's seconds east of UTC.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let hours = digits(hours, 2).filter(|hours| *hours <= 14)?;
    let minutes = digits(minutes, 2).filter(|minutes| *minutes < 60)?;
    let east = hours * 3_600 + minutes * 60;
    Some((&time[..at], if time.as_bytes()[at] == b'-' { -east } else { east }))
}

/// A fraction of a second, and how long the stretch is that it may mean. Beyond nanoseconds
/// digits are read and mean nothing.
fn nanoseconds(fraction: &str) -> Option<(i128, i128)> {
    const SIZE: usize = 9;
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(SIZE)];
    let unit = 10_i128.pow(u32::try_from(SIZE - kept.len()).ok()?);
    Some((kept.parse::<i128>().ok()? * unit, unit))
}

/// The number of a month's first day: days since 1970-01-01 in the Gregorian calendar.
fn first_of(year: i64, month: i64) -> Option<i64> {
    if !(1..=12).contains(&month) {
        return None;
    }
    // Years from March, so that the leap day is a year's last; five months have 153 days.
    let year = year - i64::from(month <= 2);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    const MARCH_OF_YEAR_0: i64 = -719_468;
    Some(MARCH_OF_YEAR_0 + 365 * year + leap_days + of_year)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(text: &str) -> Interval {
        Interval::parse(text).unwrap_or_else(|| panic!("{text} is a date"))
    }

    #[test]
    fn the_calendar_is_the_librarys() {
        for text in ["0001-01-01", "1969-12-31", "2000-02-29", "2024-03-01", "9998-12-31"] {
            let at: jiff::Timestamp = format!("{text}T00:00:00Z").parse().expect("an instant");
            assert_eq!(interval(text).start, at.as_nanosecond(), "{text}");
            assert_eq!(interval(text).end, at.as_nanosecond() + i128::from(DAY) * SECOND);
        }
        for (text, from, to) in [
            ("2012", "2012-01-01", "2013-01-01"),
            ("2012-02", "2012-02-01", "2012-03-01"),
            ("2012-12", "2012-12-01", "2013-01-01"),
            ("2012-02-28T24:00".get(..10).expect("a date"), "2012-02-28", "2012-02-29"),
        ] {
            assert_eq!(
                interval(text),
                Interval { start: interval(from).start, end: interval(to).start }
            );
        }
    }

    #[test]
    fn times_have_the_length_of_their_last_field() {
        let at = |text| interval(text).start;
        for (text, start, size) in [
            ("2015-02-07T13:28", "2015-02-07T13:28:00Z", 60 * SECOND),
            ("2015-02-07T13:28:17+02:00", "2015-02-07T11:28:17Z", SECOND),
            ("2015-02-07T00:30:00+14:00", "2015-02-06T10:30:00Z", SECOND),
            ("2015-02-07T13:28:17.2Z", "2015-02-07T13:28:17.200Z", SECOND / 10),
            ("2015-02-07T13:28:17.239-05:30", "2015-02-07T18:58:17.239Z", SECOND / 1_000),
            ("2015-02-07T13:28:17.1234567891Z", "2015-02-07T13:28:17.123456789Z", 1),
        ] {
            let given = interval(text);
            assert_eq!((given.start, given.end), (at(start), at(start) + size), "{text}");
        }
    }

    #[test]
    fn what_is_no_date() {
        let bad = [
            "",
            "20",
            "2012-",
            "2012-1",
            "2012-13",
            "2012-00",
            "2012-02-30",
            "2011-02-29",
            "2012-02-03T",
            "2012-02-03T10",
            "2012-02-03T1:00",
            "2012-02-03T24:00",
            "2012-02T10:00",
            "2012-02-03T10:00:61",
            "2012-02-03T10:00:00.Z",
            "2012-02-03T10:00.5",
            "0000",
            "2012-02-03T10:00:00+15:00",
            "2012-02-03T10:00:00+0200",
            "2012-02-03 10:00",
            "+2012",
            "-2012",
            "2012-02-03-04",
            "2012-02-03T10:00:00Zx",
            "２０１２",
            "2012-02-03Z",
        ];
        for text in bad {
            assert_eq!(Interval::parse(text), None, "{text}");
        }
    }

    /// The table of R4's page on prefixes, for a value before, across, within and after.
    #[test]
    fn prefixes_follow_the_ranges() {
        let day = interval("2013-03-14");
        let period = |start, end| Interval::between(Some(interval(start)), Some(interval(end)));
        let cases = [
            (interval("2013-03-13"), "ne lt le eb"),
            (interval("2013-03-14T10:00:00Z"), "eq ge le ap"),
            (day, "eq ge le ap"),
            (interval("2013-03"), "ne gt lt ge le ap"),
            (interval("2013-03-15T00:00:00Z"), "ne gt ge sa"),
            (period("2013-03-14", "2013-03-15"), "ne gt ge ap"),
            (Interval::between(Some(interval("2013-03-14")), None), "ne gt ge ap"),
            (Interval::between(None, Some(interval("2013-03-13"))), "ne lt le eb"),
        ];
        for (value, fitting) in cases {
            for (name, prefix) in Prefix::ALL {
                let fits = fitting.split(' ').any(|fit| fit == name);
                assert_eq!(day.fits(prefix, value), fits, "{name} {value:?}");
            }
        }
    }
}
