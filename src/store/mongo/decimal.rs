//! Decimals with their digits: JSON number text ↔ BSON Decimal128 (IEEE 754-2008, BID).
//!
//! Unlike a parser that rounds and clamps, this one refuses what 34 digits can't hold exactly.

use std::io::Write as _;

use super::digits;

const BIAS: i64 = 6176;
const EXPONENTS: std::ops::RangeInclusive<i64> = -6176..=6111;
const MAX_DIGITS: usize = 34;
const MAX_COEFFICIENT: u128 = 9_999_999_999_999_999_999_999_999_999_999_999;
const COEFFICIENT_BITS: u32 = 113;

/// A finite decimal: `(-1)^negative · coefficient · 10^exponent`. `1.5` and `1.50` differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    coefficient: u128,
    exponent: i64,
}

impl Decimal {
    /// Reads a JSON number. `None`: more than 34 digits, or an exponent out of range.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0');
        let mut coefficient = 0u128;
        for digit in digits.by_ref().take(MAX_DIGITS) {
            let value = char::from(digit).to_digit(10)?;
            coefficient = coefficient * 10 + u128::from(value);
        }
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let exact = digits.next().is_none() && EXPONENTS.contains(&exponent);
        exact.then_some(Self { negative, coefficient, exponent })
    }

    /// Reads the 16 bytes of a Decimal128. `None`: NaN or infinite.
    pub(super) fn from_bits(bytes: [u8; 16]) -> Option<Self> {
        let bits = u128::from_le_bytes(bytes);
        let negative = bits >> 127 == 1;
        let field = |shift: u32| (bits >> shift & 0x3fff) as i64 - BIAS;
        match bits >> 123 & 0xf {
            0xf => None,
            // The second form only holds coefficients beyond 34 digits: by the standard, zeros.
            0xc..=0xe => Some(Self { negative, coefficient: 0, exponent: field(111) }),
            _ => {
                let coefficient = bits & ((1 << COEFFICIENT_BITS) - 1);
                let coefficient = if coefficient > MAX_COEFFICIENT { 0 } else { coefficient };
                Some(Self { negative, coefficient, exponent: field(COEFFICIENT_BITS) })
            }
        }
    }

    /// The 16 bytes of a Decimal128.
    pub(super) fn to_bits(self) -> [u8; 16] {
        let sign = u128::from(self.negative) << 127;
        let exponent = ((self.exponent + BIAS) as u128) << COEFFICIENT_BITS;
        (sign | exponent | self.coefficient).to_le_bytes()
    }

    /// Appends the canonical text (IEEE to-scientific-string), which is a JSON number.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        let mut buffer = [0; 40];
        let digits = decimal_digits(self.coefficient, &mut buffer);
        let adjusted = self.exponent + digits.len() as i64 - 1;
        if self.exponent > 0 || adjusted < -6 {
            write_scientific(digits, adjusted, out);
        } else {
            write_plain(digits, self.exponent.unsigned_abs() as usize, out);
        }
    }
}

/// The digits of a coefficient, at least one. Those beyond 64 bits, which divide slowly, are rare.
fn decimal_digits(value: u128, buffer: &mut [u8; 40]) -> &[u8] {
    let Ok(value) = u64::try_from(value) else { return wide_digits(value, buffer) };
    digits::fill(value, buffer)
}

fn wide_digits(mut value: u128, buffer: &mut [u8; 40]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &buffer[at..];
        }
    }
}

fn write_scientific(digits: &[u8], exponent: i64, out: &mut Vec<u8>) {
    let (first, rest) = digits.split_at(1);
    out.extend_from_slice(first);
    if !rest.is_empty() {
        out.push(b'.');
        out.extend_from_slice(rest);
    }
    // Writing into a Vec can't fail.
    let _ = write!(out, "E{exponent:+}");
}

fn write_plain(digits: &[u8], decimals: usize, out: &mut Vec<u8>) {
    match digits.len().checked_sub(decimals) {
        _ if decimals == 0 => out.extend_from_slice(digits),
        Some(whole) if whole > 0 => {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        }
        _ => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + decimals - digits.len(), b'0');
            out.extend_from_slice(digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::Decimal128;
    use proptest::prelude::*;

    use super::*;

    fn text(decimal: Decimal) -> String {
        let mut out = Vec::new();
        decimal.write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn known_texts() {
        for same in ["0", "1.50", "-0.50", "1E-22", "-1.000000000000000000E+245", "0.000001", "-0"]
        {
            assert_eq!(text(Decimal::parse(same).expect("fits")), same);
        }
        for (given, canonical) in [("1e5", "1E+5"), ("0.0000001", "1E-7"), ("10e-1", "1.0")] {
            assert_eq!(text(Decimal::parse(given).expect("fits")), canonical);
        }
        let nines = "9".repeat(34);
        assert_eq!(text(Decimal::parse(&nines).expect("fits")), nines);
        for beyond in [&"9".repeat(35), "1e6112", "1e-6177", "0e99999999999999999999", "1.e", "x"] {
            assert_eq!(Decimal::parse(beyond), None, "{beyond}");
        }
    }

    #[test]
    fn what_is_no_number_has_no_value() {
        for special in ["NaN", "Infinity", "-Infinity"] {
            let bits = special.parse::<Decimal128>().expect("special").bytes();
            assert_eq!(Decimal::from_bits(bits), None, "{special}");
        }
    }

    proptest! {
        /// The driver's own Decimal128 is the judge.
        #[test]
        fn agrees_with_an_independent_implementation(
            text_in in "-?(0|[1-9][0-9]{0,16})(\\.[0-9]{1,17})?([eE][+-]?[0-9]{1,4})?"
        ) {
            let Some(ours) = Decimal::parse(&text_in) else { return Ok(()) };
            let theirs: Decimal128 = text_in.parse().expect("it fits");
            prop_assert_eq!(ours.to_bits(), theirs.bytes());
            prop_assert_eq!(Decimal::from_bits(theirs.bytes()), Some(ours));
            prop_assert_eq!(text(ours), theirs.to_string());
        }

        #[test]
        fn any_bits_read_as_they_do_there(bytes in any::<[u8; 16]>()) {
            let theirs = Decimal128::from_bytes(bytes).to_string();
            match Decimal::from_bits(bytes) {
                Some(ours) => prop_assert_eq!(text(ours), theirs),
                None => prop_assert!(theirs.ends_with("NaN") || theirs.ends_with("Infinity")),
            }
        }
    }
}
