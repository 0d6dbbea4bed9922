//! Text as R4 compares strings: without case, accents and superfluous white space. Punctuation
//! counts.

use std::{collections::HashMap, sync::LazyLock};

/// Letters that become one text, and that text: see `tests/tools/fold.py`.
const TABLE: &str = include_str!("fold.txt");

static PLAIN: LazyLock<HashMap<char, &str>> = LazyLock::new(|| {
    let rows = TABLE.lines().filter_map(|line| line.split_once(' '));
    rows.flat_map(|(letters, plain)| letters.chars().map(move |letter| (letter, plain))).collect()
});

/// The text without case and accents, each stretch of white space one space, none at the ends.
#[must_use]
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut space = false;
    for character in text.chars() {
        if character.is_whitespace() {
            space = true;
            continue;
        }
        if std::mem::take(&mut space) && !folded.is_empty() {
            folded.push(' ');
        }
        if character.is_ascii() {
            folded.push(character.to_ascii_lowercase());
            continue;
        }
        for lower in character.to_lowercase().filter(|c| !is_accent(*c)) {
            match PLAIN.get(&lower) {
                Some(plain) => folded.push_str(plain),
                None => folded.push(lower),
            }
        }
    }
    folded
}

/// The blocks of combining marks that stand for accents.
fn is_accent(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_white_space_are_gone() {
        let cases = [
            ("Ångström", "angstrom"),
            ("A\u{30a}NGSTRO\u{308}M", "angstrom"),
            ("  Van\tder \n Berg ", "van der berg"),
            ("STRAẞE", "strasse"),
            ("Straße", "strasse"),
            ("ΟΔΥΣΣΕΎΣ", "οδυσσευσ"),
            ("İstanbul", "istanbul"),
            ("Ёлка", "елка"),
            ("Nguyễn", "nguyen"),
            ("山田", "山田"),
            ("が", "が"),
            ("O'Brien-Smith, Jr.", "o'brien-smith, jr."),
            (" \t", ""),
        ];
        for (text, folded) in cases {
            assert_eq!(fold(text), folded, "{text}");
            assert_eq!(fold(folded), folded);
        }
    }
}
