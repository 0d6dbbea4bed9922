//! A resource on its way into the store: read strictly, kept member by member and digit by digit.
//!
//! Only the write side builds this tree; what goes out is the stored text.

use std::{collections::HashSet, fmt};

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{ResourceType, instant};

/// How deep a resource may nest. MongoDB ends at 100.
pub const MAX_DEPTH: usize = 90;

/// A resource of a known type: its members in the order and with the numbers of its sender.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    ty: ResourceType,
    members: Map<String, Value>,
}

/// Why a text is no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Resource {
    /// Reads JSON text (UTF-8).
    ///
    /// # Errors
    /// Not UTF-8, not JSON, deeper than [`MAX_DEPTH`], a member twice, a member name that no
    /// FHIR element can have, or what [`Resource::from_value`] refuses.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        Self::from_value(parse_json(text)?)
    }

    /// Takes a JSON tree that [`parse_json`] has read.
    ///
    /// # Errors
    /// Not an object, no or an unknown `resourceType`, an illegal `id`, a `meta` that is no
    /// object.
    pub fn from_value(value: Value) -> Result<Self, Invalid> {
        let Value::Object(members) = value else {
            return Err(Invalid("a resource is a JSON object".into()));
        };
        let ty = match members.get("resourceType") {
            Some(Value::String(name)) => ResourceType::parse(name)
                .ok_or_else(|| Invalid(format!("'{name}' is no resource type of FHIR R4")))?,
            Some(_) => return Err(Invalid("resourceType is not a string".into())),
            None => return Err(Invalid("resourceType is missing".into())),
        };
        match members.get("id") {
            None => {}
            Some(Value::String(id)) if is_id(id) => {}
            Some(id) => return Err(Invalid(format!("id {id} is not an id: {ID_RULE}"))),
        }
        if members.get("meta").is_some_and(|meta| !meta.is_object()) {
            return Err(Invalid("meta is not an object".into()));
        }
        Ok(Self { ty, members })
    }

    /// The type.
    #[must_use]
    pub fn ty(&self) -> ResourceType {
        self.ty
    }

    /// The id, if it has one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.members.get("id").and_then(Value::as_str)
    }

    /// The members in order.
    #[must_use]
    pub fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    /// The members in order, to change references in. `resourceType` and `id` must stay.
    pub fn members_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.members
    }

    /// The same resource under this id; a new `id` stands right after `resourceType`.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        let value = Value::String(id.to_owned());
        match self.members.get_mut("id") {
            Some(place) => *place = value,
            None => insert_after(&mut self.members, "resourceType", "id", value),
        }
        self
    }

    /// The same resource as version `version` of `at`: `meta.versionId` and `meta.lastUpdated`
    /// replaced where they stand, else put first in `meta`; a new `meta` stands after `id`.
    #[must_use]
    pub fn stamped(mut self, version: u64, at: Timestamp) -> Self {
        if !self.members.contains_key("meta") {
            let after = if self.members.contains_key("id") { "id" } else { "resourceType" };
            insert_after(&mut self.members, after, "meta", Value::Object(Map::new()));
        }
        if let Some(Value::Object(meta)) = self.members.get_mut("meta") {
            set_first(meta, "lastUpdated", Value::String(instant::text(at)));
            set_first(meta, "versionId", Value::String(version.to_string()));
        }
        self
    }

    /// Compact JSON.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        // A map with string keys has a JSON text: serialization can't fail.
        serde_json::to_vec(&self.members).unwrap_or_default().into()
    }

    /// Whether both hold the same but for the server's own `meta.versionId` and
    /// `meta.lastUpdated`: members in the same order, numbers with the same digits.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.without_stamp().to_json() == other.without_stamp().to_json()
    }

    fn without_stamp(&self) -> Self {
        let mut copy = self.clone();
        if let Some(Value::Object(meta)) = copy.members.get_mut("meta") {
            meta.shift_remove("versionId");
            meta.shift_remove("lastUpdated");
            if meta.is_empty() {
                copy.members.shift_remove("meta");
            }
        }
        copy
    }
}

fn insert_after(members: &mut Map<String, Value>, after: &str, name: &str, value: Value) {
    let at = members.keys().position(|key| key == after).map_or(0, |index| index + 1);
    members.shift_insert(at, name.to_owned(), value);
}

fn set_first(members: &mut Map<String, Value>, name: &str, value: Value) {
    match members.get_mut(name) {
        Some(place) => *place = value,
        None => drop(members.shift_insert(0, name.to_owned(), value)),
    }
}

const ID_RULE: &str = "1 to 64 of A-Z a-z 0-9 '-' '.'";

/// Whether a text is an id (FHIR R4 datatypes, `id`).
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

/// A new id, unlike any other: 24 hex digits that begin with the time, so that what is created
/// together lies together.
#[must_use]
pub fn new_id() -> String {
    mongodb::bson::oid::ObjectId::new().to_hex()
}

/// Reads JSON strictly: UTF-8, at most [`MAX_DEPTH`] deep, no member twice in an object, only
/// member names that FHIR elements can have.
///
/// # Errors
/// Says what is wrong and, for syntax, at which line and column.
pub fn parse_json(text: &[u8]) -> Result<Value, Invalid> {
    let text = std::str::from_utf8(text)
        .map_err(|e| Invalid(format!("the text is not UTF-8 from byte {} on", e.valid_up_to())))?;
    if text.contains(PRIVATE) {
        return Err(Invalid(format!("'{PRIVATE}' is not a member name of FHIR")));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    Shape { depth: 0 }
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

/// serde_json shows a number that keeps its digits as an object with a member of this name; in
/// a sender's text the name would be taken for one.
const PRIVATE: &str = "$serde_json::private::";

/// Checks what a tree can no longer tell: depth, members named twice, names.
struct Shape {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape {
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
        let depth = self.deeper()?;
        while items.next_element_seed(Shape { depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !name.starts_with(PRIVATE) && !is_member_name(&name) {
                return Err(A::Error::custom(format_args!("{name:?} is no member name of FHIR")));
            }
            members.next_value_seed(Shape { depth })?;
            if let Some(twice) = seen.replace(name) {
                return Err(A::Error::custom(format_args!("the member '{twice}' stands twice")));
            }
        }
        Ok(())
    }
}

impl Shape {
    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        // A number is shown as an object too, one level below its own.
        if self.depth > MAX_DEPTH {
            return Err(E::custom(format_args!("it nests deeper than {MAX_DEPTH} levels")));
        }
        Ok(self.depth + 1)
    }
}

fn is_member_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(resource: &Resource) -> String {
        String::from_utf8(resource.to_json().to_vec()).expect("UTF-8")
    }

    #[test]
    fn order_digits_and_unicode_stay() {
        let text = r#"{"resourceType":"Basic","q":"1E5 \\\\\" 2E2","z":1.50,"a":[1E-22,-0.50,0.0000001,1e+5,1e5,0e3,-0,7],"_birthDate":{"id":"ü\u2028😀"}}"#;
        let kept = json(&Resource::parse(text.as_bytes()).expect("valid"));
        assert_eq!(kept, text.replace(r"\u2028", "\u{2028}"));
    }

    #[test]
    fn stamps_stand_where_a_reader_looks_for_them() {
        let at: Timestamp = "2024-02-29T12:00:00.5Z".parse().expect("an instant");
        let stamp = |text: &str| {
            json(&Resource::parse(text.as_bytes()).expect("valid").with_id("7").stamped(2, at))
        };
        let meta = r#""meta":{"versionId":"2","lastUpdated":"2024-02-29T12:00:00.500Z""#;
        assert_eq!(
            stamp(r#"{"x":1,"resourceType":"Basic","y":2}"#),
            format!(r#"{{"x":1,"resourceType":"Basic","id":"7",{meta}}},"y":2}}"#)
        );
        assert_eq!(
            stamp(r#"{"resourceType":"Basic","id":"1","meta":{"tag":[]}}"#),
            format!(r#"{{"resourceType":"Basic","id":"7",{meta},"tag":[]}}}}"#)
        );
    }

    #[test]
    fn same_content_sees_order_and_digits_but_no_stamp() {
        let parse = |text: &str| Resource::parse(text.as_bytes()).expect("valid");
        let plain = parse(r#"{"resourceType":"Basic","id":"1","x":1.0}"#);
        let at = Timestamp::UNIX_EPOCH;
        assert!(plain.same_content(&plain.clone().stamped(4, at)));
        assert!(!plain.same_content(&parse(r#"{"resourceType":"Basic","id":"1","x":1.00}"#)));
        assert!(!plain.same_content(&parse(r#"{"resourceType":"Basic","x":1.0,"id":"1"}"#)));
    }

    #[test]
    fn refuses_what_is_no_resource() {
        let deep = format!(
            r#"{{"resourceType":"Basic","x":{}{}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        let cases: [(&[u8], &str); 13] = [
            (b"", "EOF"),
            (b"[]", "object"),
            (b"null", "object"),
            (b"{}", "resourceType is missing"),
            (br#"{"resourceType":5}"#, "not a string"),
            (br#"{"resourceType":"Patent"}"#, "'Patent'"),
            (br#"{"resourceType":"Patient","id":"a/b"}"#, "a/b"),
            (br#"{"resourceType":"Patient","meta":[]}"#, "meta"),
            (br#"{"resourceType":"Patient","x":1,"x":2}"#, "'x' stands twice"),
            (br#"{"resourceType":"Patient","$where":1}"#, "$where"),
            (br#"{"resourceType":"Patient","x":{"$serde_json::private::Number":"1"}}"#, "private"),
            (b"{\"resourceType\":\"Patient\",\"x\":\"\xff\"}", "UTF-8"),
            (deep.as_bytes(), "deep"),
        ];
        for (text, part) in cases {
            let error = Resource::parse(text).expect_err("no resource").to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_deepest_that_is_taken_can_be_built() {
        let nest = |n: usize| {
            format!(r#"{{"resourceType":"Basic","x":{}1{}}}"#, "[".repeat(n), "]".repeat(n))
        };
        assert!(Resource::parse(nest(MAX_DEPTH - 2).as_bytes()).is_ok());
        assert!(Resource::parse(nest(MAX_DEPTH + 2).as_bytes()).is_err());
    }
}
