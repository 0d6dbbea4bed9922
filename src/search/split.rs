//! A parameter's value, apart at its commas and bars; `\` before `,` `|` `$` `\` takes their
//! meaning away.

/// The alternatives of a value: what stands between commas, still escaped.
pub(super) fn alternatives(value: &str) -> Vec<&str> {
    at(value, ',')
}

/// The parts of one alternative: what stands between bars.
///
/// # Errors
/// What is wrong with an escape.
pub(super) fn parts(alternative: &str) -> Result<Vec<String>, String> {
    at(alternative, '|').into_iter().map(plain).collect()
}

fn at(text: &str, separator: char) -> Vec<&str> {
    let mut escaped = false;
    let divides = |character| {
        let divides = character == separator && !escaped;
        escaped = character == '\\' && !escaped;
        divides
    };
    text.split(divides).collect()
}

/// A text without its escapes.
///
/// # Errors
/// A `\` stands before something else, or before nothing.
pub(super) fn plain(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some(meant @ (',' | '|' | '$' | '\\')) => plain.push(meant),
            _ => {
                return Err("has a '\\' that escapes nothing. Write '\\\\' for the character \
                            itself, and put '\\' only before ',', '|', '$' and '\\'"
                    .into());
            }
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_take_meaning_away() {
        assert_eq!(alternatives(r"a,b\,c,\\,d"), ["a", r"b\,c", r"\\", "d"]);
        assert_eq!(alternatives(""), [""]);
        assert_eq!(parts(r"s\|t|c\,d\$|\\"), Ok(vec!["s|t".into(), "c,d$".into(), r"\".into()]));
        assert!(parts(r"a\b").is_err());
        assert!(plain(r"a\").is_err());
    }
}
