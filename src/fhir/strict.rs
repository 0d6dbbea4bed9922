//! JSON of a sender, read strictly, with its numbers as they were written.

use std::{borrow::Cow, cell::Cell, collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// How deep a resource may nest. MongoDB ends at 100.
pub const MAX_DEPTH: usize = 90;

/// How many values any text may hold. A value takes some 26 bytes of FHIR's JSON, and 32 and more of
/// memory: a text of nothing but `0,` would take many times its length.
pub const MANY_VALUES: usize = 256 << 10;

/// Beyond those, so many bytes for each value.
const VALUE_BYTES: usize = 16;

/// Why a text is no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Reads JSON strictly: UTF-8, at most [`MAX_DEPTH`] deep, no member twice in an object, only
/// member names that FHIR elements can have, no more than [`MANY_VALUES`] values or one in 16 bytes.
///
/// # Errors
/// Says what is wrong and, for syntax, at which line and column.
pub fn parse_json(text: &[u8]) -> Result<Value, Invalid> {
    let text = std::str::from_utf8(text)
        .map_err(|e| Invalid(format!("the text is not UTF-8 from byte {} on", e.valid_up_to())))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let left = Cell::new(MANY_VALUES.max(text.len() / VALUE_BYTES));
    Shape { text, depth: 0, left: &left }
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .and_then(|()| serde_json::from_str(text))
        .map(|mut tree| {
            keep_number_texts(&mut tree, &mut number_texts(text));
            tree
        })
        .map_err(|e| Invalid(format!("the text is not JSON of FHIR: {e}")))
}

/// The numbers of a valid JSON text, as written, in order.
fn number_texts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            rest = &rest[start..];
            if let Some(string) = rest.strip_prefix('"') {
                rest = &string[string_end(string)..];
                continue;
            }
            let in_number =
                |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
            let end = rest.find(|c| !in_number(c)).unwrap_or(rest.len());
            let (number, after) = rest.split_at(end);
            rest = after;
            return Some(number);
        }
    })
}

/// Past the closing quote of a string whose opening quote has been read.
fn string_end(string: &str) -> usize {
    let mut escaped = false;
    let closes = |byte: &u8| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    };
    string.as_bytes().iter().position(closes).map_or(string.len(), |at| at + 1)
}

/// serde_json reads `1E5` and `1e5` as `1e+5`; here a sender's spelling stays.
fn keep_number_texts<'t>(tree: &mut Value, texts: &mut impl Iterator<Item = &'t str>) {
    match tree {
        Value::Number(number) => {
            if let Some(text) = texts.next().filter(|text| text.contains(['e', 'E'])) {
                *number = Number::from_string_unchecked(text.to_owned());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| keep_number_texts(item, texts)),
        Value::Object(members) => {
            members.values_mut().for_each(|member| keep_number_texts(member, texts));
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Checks what a tree can no longer tell: depth, members named twice, names. And how large it would
/// be, before there is one.
#[derive(Clone, Copy)]
struct Shape<'t> {
    text: &'t str,
    depth: usize,
    /// How many values there may still be.
    left: &'t Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {
            self.counts()?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key_seed(Name(self.text))? {
            if let Some(wrong) = name.as_deref().filter(|name| !is_member_name(name)) {
                return Err(A::Error::custom(format_args!("{wrong:?} is no member name of FHIR")));
            }
            members.next_value_seed(inner)?;
            self.counts()?;
            if let Some(Some(twice)) = seen.replace(name) {
                return Err(A::Error::custom(format_args!("the member '{twice}' stands twice")));
            }
        }
        Ok(())
    }
}

impl Shape<'_> {
    fn counts<E: serde::de::Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| E::custom("it holds too many values for its length"))?);
        Ok(())
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        // A number is shown as an object too, one level below its own.
        if self.depth > MAX_DEPTH {
            return Err(E::custom(format_args!("it nests deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

/// Reads a member's name in this text; `None`: it is a number. serde_json shows one that keeps
/// its digits as an object, under a name that it lends and that does not lie in the text. So no
/// name that a sender spells passes for it.
struct Name<'t>(&'t str);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        let in_text = self.0.as_bytes().as_ptr_range().contains(&name.as_ptr());
        Ok(in_text.then_some(name.into()))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Some(name.to_owned().into()))
    }
}

fn is_member_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
