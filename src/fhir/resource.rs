//! A resource on its way into the store: read strictly ([`super::strict`]), kept member by member
//! and digit by digit.
//!
//! Only the write side builds this tree; what goes out is the stored text.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{ResourceType, instant};

pub use super::strict::{Invalid, MANY_VALUES, MAX_DEPTH, parse_json};

/// A resource of a known type: its members in the order and with the numbers of its sender.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    ty: ResourceType,
    members: Map<String, Value>,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn json(resource: &Resource) -> String {
        String::from_utf8(resource.to_json().to_vec()).expect("UTF-8")
    }

    #[test]
    fn order_digits_and_unicode_stay() {
        let text = r#"{"resourceType":"Basic","p":"$serde_json::private::Number","q":"1E5 \\\\\" 2E2","z":1.50,"a":[1E-22,-0.50,0.0000001,1e+5,1e5,0e3,-0,7],"_birthDate":{"id":"ü\u2028😀"}}"#;
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
        let cases: [(&[u8], &str); 16] = [
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
            (br#"{"resourceType":"Basic","x":{"\u0024serde_json::private::Number":"5"},"y":1E5}"#, "no member"),
            (br#"{"resourceType":"Patient","x":{"":1}}"#, "no member"),
            (br#"{"resourceType":"Basic","x":{"$serde_json::privat\u0065::RawValue":"{}"}}"#, "no member"),
            (b"{\"resourceType\":\"Patient\",\"x\":\"\xff\"}", "UTF-8"),
            (deep.as_bytes(), "deep"),
        ];
        for (text, part) in cases {
            let error = Resource::parse(text).expect_err("no resource").to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_text_with_more_values_than_fhir_has_is_never_built() {
        let of = |value: &str, count: usize| {
            format!(r#"{{"resourceType":"Basic","x":[{}0]}}"#, value.repeat(count))
        };
        let taken = |text: String| Resource::parse(text.as_bytes()).map(drop);
        // With `resourceType`, `x` and the last.
        assert_eq!(taken(of("0,", MANY_VALUES - 3)), Ok(()));
        let Invalid(why) = taken(of("0,", MANY_VALUES - 2)).expect_err("too many");
        assert!(why.contains("too many values"), "{why}");
        // As many as there are in a text of that length, and more than that.
        assert_eq!(taken(of("          123456,", MANY_VALUES)), Ok(()));
        assert!(taken(of("      123456,", 2 * MANY_VALUES)).is_err());
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
