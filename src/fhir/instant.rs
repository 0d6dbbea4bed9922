//! FHIR's `instant`: a point in time with at least seconds and a zone.

use jiff::{Timestamp, fmt::temporal};

/// The text of an instant: UTC, milliseconds, `Z`.
#[must_use]
pub fn text(at: Timestamp) -> String {
    from_millis(at.as_millisecond()).map_or_else(|| at.to_string(), |ms| format!("{ms:.3}"))
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
    use super::*;

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
