//! FHIR's `instant`: a point in time with at least seconds and a zone.

use jiff::{Timestamp, fmt::temporal};

/// The text of an instant: UTC, milliseconds, `Z`.
#[must_use]
pub fn text(at: Timestamp) -> String {
    from_millis(at.as_millisecond()).map_or_else(|| at.to_string(), |ms| format!("{ms:.3}"))
}

/// The same text for so many milliseconds after 1970, without a call of a formatter. `None`:
/// beyond the years 1 to 9999, which an instant can't tell.
#[must_use]
pub fn ascii(ms: i64) -> Option<[u8; 24]> {
    const YEAR_1: i64 = -62_135_596_800_000;
    const YEAR_10000: i64 = 253_402_300_800_000;
    const DAY: i64 = 86_400_000;
    if !(YEAR_1..YEAR_10000).contains(&ms) {
        return None;
    }
    let ([year, month, day], of_day) = (date(ms.div_euclid(DAY)), ms.rem_euclid(DAY));
    let (minutes, of_minute) = (of_day / 60_000, of_day % 60_000);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], minutes / 60);
    put(&mut text[14..16], minutes % 60);
    put(&mut text[17..19], of_minute / 1_000);
    put(&mut text[20..23], of_minute % 1_000);
    Some(text)
}

/// Fills a field with digits, from its end.
fn put(field: &mut [u8], mut value: i64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of the day that many days after 1970-01-01, in the Gregorian calendar.
/// Years are counted from March, so that the leap day is a year's last: a cycle of 400 years has
/// 146,097 days, and from March on five months have 153.
const fn date(days: i64) -> [i64; 3] {
    const FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + FROM_MARCH_OF_YEAR_0;
    let (cycle, of_cycle) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let leaps = of_cycle / 1_460 - of_cycle / 36_524 + of_cycle / 146_096;
    let year = (of_cycle - leaps) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let next = (month >= 10) as i64;
    [cycle * 400 + year + next, month + 3 - 12 * next, day]
}

/// The instant that many milliseconds after 1970, if a calendar has it.
#[must_use]
pub fn from_millis(ms: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(ms).ok()
}

/// Reads an instant: `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`, a day that exists.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    static PARSER: temporal::DateTimeParser = temporal::DateTimeParser::new();
    let shape_holds = has_shape(text.as_bytes());
    shape_holds.then(|| PARSER.parse_timestamp(text).ok()).flatten()
}

/// The shape that FHIR R4 gives for instant, which ISO 8601 alone would not demand.
fn has_shape(text: &[u8]) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    if text.len() <= FORM.len() || !text.iter().zip(FORM).all(fits) {
        return false;
    }
    let mut rest = &text[FORM.len()..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return false;
        }
        rest = &fraction[digits..];
    }
    match rest {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The library's last: it leaves room for every offset in the year 9999.
    const LAST: i64 = 253_402_207_200_999;

    proptest! {
        /// The calendar's library is the judge.
        #[test]
        fn both_writers_agree(ms in -62_135_596_800_000..=LAST) {
            let ascii = ascii(ms).map(|text| String::from_utf8(text.to_vec()).unwrap());
            prop_assert_eq!(ascii, from_millis(ms).map(text));
        }
    }

    #[test]
    fn every_day_of_the_calendar_is_told() {
        for day in -719_162..=LAST / 86_400_000 {
            let ms = day * 86_400_000;
            let ascii = ascii(ms).map(|text| String::from_utf8(text.to_vec()).unwrap());
            assert_eq!(ascii, from_millis(ms).map(text));
        }
        let last = ascii(253_402_300_799_999).unwrap();
        assert_eq!(&last, b"9999-12-31T23:59:59.999Z");
        assert_eq!(ascii(-62_135_596_800_001), None);
        assert_eq!(ascii(253_402_300_800_000), None);
    }

    #[test]
    fn takes_instants_and_nothing_else() {
        let good = [
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z"),
            ("2015-02-07T13:28:17.239+02:00", "2015-02-07T11:28:17.239Z"),
            ("1969-12-31T23:59:59.999-00:00", "1969-12-31T23:59:59.999Z"),
        ];
        for (given, utc) in good {
            assert_eq!(parse(given).map(text).as_deref(), Some(utc), "{given}");
        }
        let bad = [
            "",
            "2024",
            "2024-02",
            "2024-02-03",
            "2024-02-30T00:00:00Z",
            "2024-02-03T00:00:00",
            "2024-02-03T00:00Z",
            "2024-02-03 00:00:00Z",
            "2024-02-03T00:00:00z",
            "now",
            "2024-02-03T25:00:00Z",
            "2024-02-03T00:00:00.Z",
            "2024-02-03T00:00:00+0200",
            "2024-02-03T00:00:00Z[UTC]",
            "99999-02-03T00:00:00Z",
            " 2024-02-03T00:00:00Z",
        ];
        for given in bad {
            assert_eq!(parse(given), None, "{given}");
        }
    }
}
