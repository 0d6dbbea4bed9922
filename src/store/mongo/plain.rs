//! Texts that JSON takes as they are: ASCII without quotes, backslashes and control characters.
//!
//! Nearly all texts of a resource are such, and short. One look at each byte, eight at a time,
//! tells it; a copy of a fixed size is much cheaper than one of any size, so a short text is
//! copied as its first and its last part, which may overlap. (Both measured, as is what is
//! inlined here and in `walk`: together a third of the time of a typical resource.)

/// Appends a text if it needs no escape; `false`: it does, and nothing is appended.
#[inline(always)]
pub(super) fn plain(text: &[u8], out: &mut Vec<u8>) -> bool {
    match text.len() {
        0..=3 => tiny(text, out),
        4..=7 => ends::<4>(text, out),
        8..=15 => ends::<8>(text, out),
        16..=32 => ends::<16>(text, out),
        _ => long(text, out),
    }
}

fn tiny(text: &[u8], out: &mut Vec<u8>) -> bool {
    let is_plain = text.iter().all(|byte| special(u64::from(*byte) | FILL << 8) == 0);
    if is_plain {
        text.iter().for_each(|byte| out.push(*byte));
    }
    is_plain
}

/// A text of N to 2 N bytes.
#[inline]
fn ends<const N: usize>(text: &[u8], out: &mut Vec<u8>) -> bool {
    let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>()) else {
        return false;
    };
    let is_plain = specials(first) | specials(last) == 0;
    if is_plain {
        let end = out.len() + text.len();
        out.extend_from_slice(first);
        out.truncate(end - N);
        out.extend_from_slice(last);
    }
    is_plain
}

fn long(text: &[u8], out: &mut Vec<u8>) -> bool {
    let (words, _) = text.as_chunks::<8>();
    let last = text.last_chunk::<8>().map_or(0, |last| specials(last));
    let all = words.iter().fold(last, |all, word| all | specials(word));
    if all == 0 {
        out.extend_from_slice(text);
    }
    all == 0
}

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;
/// Eight letters.
const FILL: u64 = ONES * b'a' as u64;

/// Not zero if one of at least four bytes is special.
#[inline]
fn specials(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let word = |all, word: &[u8; 8]| all | special(u64::from_le_bytes(*word));
    let half = |half: &[u8; 4]| special(u64::from(u32::from_le_bytes(*half)) | FILL << 32);
    words.iter().fold(rest.first_chunk().map_or(0, half), word)
}

/// Not zero if one of eight bytes is a control character, a quote, a backslash or no ASCII.
/// Which of them it is can't be told: a borrow may run on from the lowest.
#[inline]
const fn special(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_backslash = backslash.wrapping_sub(ONES) & !backslash;
    (below_space | is_quote | is_backslash | word) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plain(text: &[u8]) -> bool {
        let is_special = |byte: &u8| *byte < 0x20 || *byte >= 0x80 || b"\"\\".contains(byte);
        !text.iter().any(is_special)
    }

    /// Every byte at every place of texts of every length that is treated differently.
    #[test]
    fn tells_every_special_byte_and_copies_the_rest() {
        for length in 0..70 {
            let text: Vec<u8> = (0..length).map(|n| b'A' + n % 26).collect();
            let mut out = b"before".to_vec();
            assert!(plain(&text, &mut out));
            assert_eq!(out, [b"before", &text[..]].concat());
            for at in 0..text.len() {
                for byte in 0..=u8::MAX {
                    let mut text = text.clone();
                    text[at] = byte;
                    let mut out = Vec::new();
                    assert_eq!(plain(&text, &mut out), is_plain(&text), "{text:?}");
                    assert_eq!(out.is_empty(), !is_plain(&text));
                }
            }
        }
    }
}
