//! Numbers with all their digits: compared exactly, whatever their size.

use std::cmp::Ordering;

/// A number: 0.d₁d₂d₃… × 10^`point`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// Without zeros at either end; none: the number is 0.
    digits: Box<[u8]>,
    point: i64,
}

/// A number of a query: so many units of 10^`exponent`, as precise as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    units: i128,
    exponent: i64,
}

/// How many digits a number of a query may have, and how large its exponent may be.
const MOST_DIGITS: usize = 30;
const MOST_EXPONENT: i64 = 1_000;

impl Decimal {
    /// Reads a number as JSON and FHIR write it; a sign and leading zeros are taken too.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Parts { negative, whole, fraction, exponent } = Parts::of(text)?;
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let point = i64::try_from(whole.len()).ok()?.saturating_add(exponent);
        Some(Self::of(negative, &digits, point))
    }

    fn of(negative: bool, digits: &[u8], point: i64) -> Self {
        let is_digit = |digit: &u8| *digit != b'0';
        let start = digits.iter().position(is_digit).unwrap_or(digits.len());
        let end = digits.iter().rposition(is_digit).map_or(start, |last| last + 1);
        if start == end {
            return Self { negative: false, digits: Box::default(), point: 0 };
        }
        let skipped = i64::try_from(start).unwrap_or(i64::MAX);
        Self { negative, digits: digits[start..end].into(), point: point.saturating_sub(skipped) }
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        // Digits begin with one that is not 0, so the longer prefix is the larger.
        let sizes = || self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits));
        match self.sign().cmp(&other.sign()) {
            Ordering::Equal if self.negative => sizes().reverse(),
            Ordering::Equal => sizes(),
            unequal => unequal,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Given {
    /// Reads a number of a query: a decimal of at most 30 digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Parts { negative, whole, fraction, exponent } = Parts::of(text)?;
        let size = whole.len() + fraction.len();
        if size > MOST_DIGITS || exponent.abs() > MOST_EXPONENT {
            return None;
        }
        let units: i128 = [whole, fraction].concat().parse().ok()?;
        let exponent = exponent - i64::try_from(fraction.len()).ok()?;
        Some(Self { units: if negative { -units } else { units }, exponent })
    }

    /// The number itself.
    pub(super) fn exact(self) -> Decimal {
        scaled(self.units, self.exponent)
    }

    /// The range of what rounds to it at its precision, the upper end exclusive: half a unit of
    /// its last digit to either side. `1e2` has one digit: 50 to 150.
    pub(super) fn precision(self) -> (Decimal, Decimal) {
        self.around(5)
    }

    /// A tenth to either side, both ends inclusive.
    pub(super) fn about(self) -> (Decimal, Decimal) {
        self.around(self.units.abs())
    }

    fn around(self, tenths: i128) -> (Decimal, Decimal) {
        let end = |tenths| scaled(self.units * 10 + tenths, self.exponent - 1);
        (end(-tenths), end(tenths))
    }
}

fn scaled(units: i128, exponent: i64) -> Decimal {
    let digits = units.unsigned_abs().to_string();
    let point = i64::try_from(digits.len()).unwrap_or(i64::MAX).saturating_add(exponent);
    Decimal::of(units < 0, digits.as_bytes(), point)
}

/// The parts of a number's text.
struct Parts<'t> {
    negative: bool,
    whole: &'t str,
    fraction: &'t str,
    exponent: i64,
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Self::exponent(exponent)?),
            None => (rest, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let holds = !whole.is_empty() && are_digits(whole) && are_digits(fraction);
        holds.then_some(Self { negative, whole, fraction, exponent })
    }

    /// What is beyond any bound is at the bound: no two such numbers are told apart.
    fn exponent(text: &str) -> Option<i64> {
        const BOUND: i64 = 1 << 40;
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let size = digits.parse().unwrap_or(BOUND).min(BOUND);
        Some(if text.starts_with('-') { -size } else { size })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|| panic!("{text} is a number"))
    }

    #[test]
    fn order_is_that_of_numbers() {
        let rising = [
            "-1e400",
            "-100.5",
            "-100",
            "-1e-7",
            "0",
            "1e-400",
            "0.1",
            "0.10000000000000000001",
            "5.4",
            "5.40000001",
            "10",
            "99.5",
            "100",
            "1e3",
            "123456789012345678901234567890",
            "1e9999999999999999999",
        ];
        for (at, less) in rising.iter().enumerate() {
            for more in &rising[at + 1..] {
                assert!(decimal(less) < decimal(more), "{less} < {more}");
            }
        }
        let same = [("1e2", "100.00"), ("-0", "0.0"), ("0.0054", "5.40e-3"), ("007", "7")];
        for (one, other) in same {
            assert_eq!(decimal(one), decimal(other));
        }
        for text in ["", "-", ".5", "5.", "1e", "1e+", "0x1", "1,5", "NaN", " 1", "１"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
            assert_eq!(Given::parse(text), None, "{text}");
        }
    }

    #[test]
    fn precision_is_half_of_the_last_digit() {
        let cases = [
            ("100", "99.5", "100.5"),
            ("100.00", "99.995", "100.005"),
            ("1e2", "50", "150"),
            ("5.40e-3", "0.005395", "0.005405"),
            ("-5.4", "-5.45", "-5.35"),
            ("0", "-0.5", "0.5"),
        ];
        for (text, low, high) in cases {
            let given = Given::parse(text).expect("a number");
            assert_eq!(given.precision(), (decimal(low), decimal(high)), "{text}");
            assert_eq!(given.exact(), decimal(text));
        }
        let about = Given::parse("-5.4").expect("a number").about();
        assert_eq!(about, (decimal("-5.94"), decimal("-4.86")));
        assert_eq!(Given::parse(&"1".repeat(31)), None);
        assert_eq!(Given::parse("1e1001"), None);
    }

    proptest! {
        #[test]
        fn agrees_with_integers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000,
                                a_digits in 0usize..6, b_digits in 0usize..6) {
            let text = |n: i64, digits: usize| format!("{n}e-{digits}");
            let scaled = |n: i64, digits: usize| n * 10i64.pow(6 - digits as u32);
            let order = decimal(&text(a, a_digits)).cmp(&decimal(&text(b, b_digits)));
            prop_assert_eq!(order, scaled(a, a_digits).cmp(&scaled(b, b_digits)));
        }
    }
}
