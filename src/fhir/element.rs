//! What a stored value holds, read from its JSON text where a test asks for it. Text of another
//! shape than FHIR's holds nothing.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The text of a JSON string.
pub(crate) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    match inner.contains('\\') {
        false => Some(Cow::Borrowed(inner)),
        true => serde_json::from_str(raw).ok().map(Cow::Owned),
    }
}

/// The text of a member that may be missing.
pub(crate) fn text_of(raw: Option<&str>) -> Option<Cow<'_, str>> {
    raw.and_then(text)
}

/// Whether any item of an array (or a value that is no array) passes; null never does, nor does
/// an array in an array, which FHIR has not: MongoDB looks into no such either.
pub(crate) fn any(raw: &str, mut passes: impl FnMut(&str) -> bool) -> bool {
    match raw.as_bytes().first() {
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
            let item = |item: &RawValue| !item.get().starts_with(['[', 'n']) && passes(item.get());
            items.into_iter().any(item)
        }
        None | Some(b'n') => false,
        Some(_) => passes(raw),
    }
}

/// The same for a member that may be missing.
pub(crate) fn any_of(raw: Option<&str>, passes: impl FnMut(&str) -> bool) -> bool {
    raw.is_some_and(|raw| any(raw, passes))
}

/// The members of these names, as text.
pub(crate) fn members<'t, const N: usize>(
    object: &'t str,
    names: [&str; N],
) -> [Option<&'t str>; N] {
    serde_json::Deserializer::from_str(object).deserialize_map(Members(names)).unwrap_or([None; N])
}

struct Members<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(at) = members.next_key_seed(Among(&self.0))? {
            match at.and_then(|at| found.get_mut(at)) {
                Some(place) => *place = Some(members.next_value::<&RawValue>()?.get()),
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// A member's name, as its place among some.
struct Among<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Among<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Among<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_items_are_read_and_odd_shapes_hold_nothing() {
        let object = r#"{"a":1.50,"b":[null,"x",["z"],"y"],"\u0063":"\u00fc\n","d":null}"#;
        let [a, b, c, e] = members(object, ["a", "b", "c", "e"]);
        assert_eq!((a, e), (Some("1.50"), None));
        assert_eq!(text_of(c).as_deref(), Some("ü\n"));
        let mut seen = Vec::new();
        assert!(any_of(b, |item| {
            seen.push(item.to_owned());
            item == r#""y""#
        }));
        assert_eq!(seen, [r#""x""#, r#""y""#]);
        for odd in ["[]", "null", "1", r#""x""#, "{", ""] {
            assert_eq!(members(odd, ["a"]), [None], "{odd}");
        }
        assert!(!any("[null,[]]", |_| true) && !any("null", |_| true));
        assert_eq!(text("1"), None);
    }
}
