//! A part of a resource: some of its own elements, as `_elements` and `_summary` ask for them.
//!
//! What must be there, and what changes the meaning, stays; `meta` says that it is a part.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::options::{Options, Summary};
use crate::fhir::ResourceType;

/// See its head.
const TABLE: &str = include_str!("elements.txt");

static ROWS: LazyLock<BTreeMap<&str, Row>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let mut columns = line.split(' ');
        let mut next = || columns.next();
        Some((next()?, Row { kept: next()?, summary: next()?, choices: next()? }))
    };
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
});

/// What the table says of a type: lists with commas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Row {
    kept: &'static str,
    summary: &'static str,
    choices: &'static str,
}

/// What every part of a resource has.
const ALWAYS: &str = "resourceType,id,meta";

/// Names of elements. Whoever asks for them shares them.
pub type Names = Arc<BTreeSet<String>>;

/// What marks a resource as a part of one.
const SUBSETTED: &str = concat!(
    r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","#,
    r#""code":"SUBSETTED"}"#
);

/// Which elements of a resource are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Those of these lists; or, for `data`, all but these.
    lists: [&'static str; 3],
    all_but: bool,
    /// And those of these names.
    named: [Option<Names>; 2],
    /// The names that stand for several members, `value` for `valueString` and others.
    choices: &'static str,
}

impl Subset {
    /// What the options ask for; `None`: whole resources.
    #[must_use]
    pub fn of(ty: ResourceType, options: &Options) -> Option<Self> {
        let row = row(ty);
        let with = |list| {
            let lists = [ALWAYS, row.kept, list];
            Some(Self { lists, all_but: false, named: [None, None], choices: row.choices })
        };
        match (&options.elements, options.summary) {
            (Some(elements), _) => Some(Self::named(ty, [Some(elements.clone()), None])),
            (None, Some(Summary::True)) => with(row.summary),
            (None, Some(Summary::Text)) => with("text"),
            (None, Some(Summary::Data)) => {
                let (lists, named) = (["text", "", ""], [None, None]);
                Some(Self { lists, all_but: true, named, choices: row.choices })
            }
            (None, Some(Summary::Count | Summary::False) | None) => None,
        }
    }

    /// The elements of these names, and what must be there.
    #[must_use]
    pub fn named(ty: ResourceType, named: [Option<Names>; 2]) -> Self {
        let Row { kept, choices, .. } = row(ty);
        Self { lists: [ALWAYS, kept, ""], all_but: false, named, choices }
    }

    /// The part of a stored resource.
    #[must_use]
    pub fn of_resource(&self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len());
        self.write(&mut out, json);
        out
    }

    /// Writes the part of a stored resource. What is no JSON object is written as it is.
    pub fn write(&self, out: &mut Vec<u8>, json: &[u8]) {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let Ok(members) = reader.deserialize_map(InOrder) else {
            out.extend_from_slice(json);
            return;
        };
        let has_meta = members.iter().any(|(name, _)| name == "meta");
        let mut before = b'{';
        let mut put = |name: &str, text: &[&str]| {
            out.push(before);
            before = b',';
            out.extend_from_slice(quoted(name).as_bytes());
            out.push(b':');
            text.iter().for_each(|text| out.extend_from_slice(text.as_bytes()));
        };
        for (name, value) in &members {
            if name == "meta" {
                put(name, &[&marked(value)]);
            } else if self.has(name) {
                put(name, &[value]);
            }
        }
        if !has_meta {
            put("meta", &[r#"{"tag":["#, SUBSETTED, "]}"]);
        }
        out.push(b'}');
    }

    /// A primitive's own members (`_birthDate`) go with it.
    fn has(&self, member: &str) -> bool {
        let name = member.strip_prefix('_').unwrap_or(member);
        let listed = self.lists.iter().any(|list| list.split(',').any(|known| known == name));
        listed != self.all_but || self.named.iter().flatten().any(|names| self.is_of(names, name))
    }

    /// Whether a member is named, or the choice that it is one of.
    fn is_of(&self, names: &Names, member: &str) -> bool {
        let is_choice = |choice: &str| {
            let ty = member.strip_prefix(choice).unwrap_or_default();
            ty.starts_with(|c: char| c.is_ascii_uppercase()) && names.contains(choice)
        };
        names.contains(member) || self.choices.split(',').any(is_choice)
    }
}

fn row(ty: ResourceType) -> Row {
    ROWS.get(ty.name()).copied().unwrap_or_default()
}

/// A `meta` with the mark among its tags.
fn marked(meta: &str) -> String {
    let mut reader = serde_json::Deserializer::from_str(meta);
    let members = reader.deserialize_map(InOrder).unwrap_or_default();
    let mut marked = String::from("{");
    for (name, value) in members.iter().filter(|(name, _)| name != "tag") {
        marked.push_str(&format!("{}:{value},", quoted(name)));
    }
    let tags = members.iter().find(|(name, _)| name == "tag").map_or("", |(_, tags)| {
        tags.strip_prefix('[').and_then(|tags| tags.strip_suffix(']')).unwrap_or("").trim()
    });
    let comma = if tags.is_empty() { "" } else { "," };
    marked.push_str(&format!(r#""tag":[{tags}{comma}{SUBSETTED}]}}"#));
    marked
}

/// A name as JSON: another writer's may need escapes.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

/// An object's members in their order, each as its text.
struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Vec<(String, &'de str)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some((name, value)) = members.next_entry::<String, &RawValue>()? {
            all.push((name, value.get()));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"resourceType":"Observation","id":"1","meta":{"versionId":"2","tag":
        [{"code":"x"}]},"text":{"div":"<div/>"},"status":"final","_status":{"id":"s"},"code":{},
        "note":[{"text":"n"}],"valueQuantity":{"value":1.50}}"#;

    fn part(options: Options, json: &str) -> String {
        let part = Subset::of(ty("Observation"), &options).expect("a part");
        text(part.of_resource(json.as_bytes()))
    }

    fn ty(name: &str) -> ResourceType {
        ResourceType::parse(name).expect("a type")
    }

    fn text(json: Vec<u8>) -> String {
        String::from_utf8(json).expect("UTF-8")
    }

    fn of_names(names: &[&str]) -> Options {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Options { elements: Some(Arc::new(names)), ..Options::default() }
    }

    fn names(json: &str) -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
        value.as_object().expect("an object").keys().cloned().collect()
    }

    #[test]
    fn parts_keep_what_must_be_there_and_say_what_they_are() {
        let elements = of_names(&["note"]);
        let given = part(elements.clone(), JSON);
        let kept = ["resourceType", "id", "meta", "status", "_status", "code", "note"];
        assert_eq!(names(&given), kept);
        assert!(given.contains(r#"{"code":"x"},{"system":"#), "{given}");
        let summary = |summary| Options { summary: Some(summary), ..Options::default() };
        let given = part(summary(Summary::True), JSON);
        assert!(given.contains("1.50") && !given.contains("note"), "{given}");
        assert!(!names(&part(summary(Summary::Data), JSON)).contains(&"text".to_owned()));
        let given = names(&part(summary(Summary::Text), JSON));
        assert_eq!(given, ["resourceType", "id", "meta", "text", "status", "_status", "code"]);
        let odd = part(summary(Summary::Data), r#"{"a\"b":1,"meta":{"c\"d":2}}"#);
        assert!(odd.starts_with(r#"{"a\"b":1,"meta":{"c\"d":2,"tag""#), "{odd}");
        assert_eq!(names(&odd), ["a\"b", "meta"]);
        let bare = part(elements, r#"{"resourceType":"Observation"}"#);
        assert_eq!(
            bare,
            format!(r#"{{"resourceType":"Observation","meta":{{"tag":[{SUBSETTED}]}}}}"#)
        );
        assert_eq!(
            Subset::of(ResourceType::parse("Basic").expect("a type"), &Options::default()),
            None
        );
    }

    #[test]
    fn a_choice_is_named_without_its_type() {
        let given = |name: &str, element: &str, json: &str| {
            let part = Subset::of(ty(name), &of_names(&[element])).expect("a part");
            names(&text(part.of_resource(json.as_bytes())))
        };
        let json = r#"{"valueset":1,"valueQuantity":2,"_valueQuantity":{"id":"x"},"code":{}}"#;
        let kept = ["valueQuantity", "_valueQuantity", "code", "meta"];
        assert_eq!(given("Observation", "value", json), kept);
        let json = r#"{"billable":1,"billablePeriod":{}}"#;
        assert_eq!(given("Claim", "billable", json), ["billable", "meta"], "that is no choice");
    }

    #[test]
    fn every_type_has_a_row() {
        let missing: Vec<_> =
            ResourceType::all().filter(|ty| !ROWS.contains_key(ty.name())).collect();
        assert_eq!(missing, []);
    }
}
