//! Links within a transaction: references to what its own entries create.
//!
//! From <https://hl7.org/fhir/R4/http.html#trules> and
//! <https://hl7.org/fhir/R4/bundle.html#references>. Without the definition of each element a
//! tree does not tell a `uri` from a `string`, so this is what is rewritten to `Type/id`:
//!
//! - `reference` members, at any depth, that hold the `fullUrl` of an entry, or are relative and
//!   give it when put below the base of the `fullUrl` of their own entry;
//! - any other text that is exactly an entry's `fullUrl`, where that is a `urn:uuid:` or
//!   `urn:oid:`, except in members that hold an identity or a canonical URL and not a link
//!   ([`KEPT`], `…Canonical`, a resource's own `url`);
//! - `href` and `src` attributes of a narrative (`div`) that hold such a `fullUrl`.
//!
//! What names no entry of the Bundle stays as it is. A Bundle within the Bundle keeps its own
//! links.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    ResourceType,
    resource::{Resource, is_id},
};

/// Members whose text is no link even if it looks like one: ids, `Identifier.value`, code
/// systems, profiles, plain strings.
const KEPT: [&str; 6] = ["id", "value", "system", "profile", "valueString", "resourceType"];

/// What the entries of a transaction are called within it, and where they go.
#[derive(Debug, Default)]
pub struct Links(HashMap<String, String>);

impl Links {
    /// The entry with this `fullUrl` becomes `Type/id`. Returns false if another has the same.
    #[must_use]
    pub fn insert(&mut self, full_url: &str, ty: ResourceType, id: &str) -> bool {
        self.0.insert(full_url.to_owned(), format!("{ty}/{id}")).is_none()
    }

    /// Rewrites the links in a resource whose own entry has this `fullUrl`.
    pub fn resolve(&self, resource: &mut Resource, full_url: Option<&str>) {
        if resource.ty().name() == "Bundle" {
            return;
        }
        let within = Within { links: self, base: full_url.and_then(base_of) };
        for (name, value) in resource.members_mut() {
            if name != "url" {
                within.member(name, value);
            }
        }
    }

    fn urn(&self, text: &str) -> Option<&String> {
        let is_urn = text.starts_with("urn:uuid:") || text.starts_with("urn:oid:");
        self.0.get(text).filter(|_| is_urn)
    }
}

/// The base of a RESTful URL `{base}/{Type}/{id}`.
fn base_of(full_url: &str) -> Option<&str> {
    let (rest, id) = full_url.rsplit_once('/')?;
    let (base, ty) = rest.rsplit_once('/')?;
    (is_id(id) && ResourceType::parse(ty).is_some()).then_some(base)
}

struct Within<'l> {
    links: &'l Links,
    base: Option<&'l str>,
}

impl Within<'_> {
    fn member(&self, name: &str, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(resolved) = self.resolved(name, text) {
                    *text = resolved;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.member(name, item)),
            Value::Object(members) => self.members(members),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn members(&self, members: &mut Map<String, Value>) {
        members.iter_mut().for_each(|(name, value)| self.member(name, value));
    }

    fn resolved(&self, name: &str, text: &str) -> Option<String> {
        match name {
            "reference" => self.reference(text).cloned(),
            "div" => self.narrative(text),
            name if KEPT.contains(&name) || name.ends_with("Canonical") => None,
            _ => self.links.urn(text).cloned(),
        }
    }

    fn reference(&self, text: &str) -> Option<&String> {
        let relative = || self.links.0.get(&format!("{}/{text}", self.base?));
        self.links.0.get(text).or_else(relative)
    }

    /// A narrative with its attributes rewritten, if there are any to rewrite.
    fn narrative(&self, html: &str) -> Option<String> {
        let mut out = String::with_capacity(html.len());
        let mut is_link = false;
        for piece in html.split_inclusive(['"', '\'']) {
            let text = piece.strip_suffix(['"', '\'']).unwrap_or(piece);
            let link = self.links.urn(text).filter(|_| is_link);
            out.push_str(link.map_or(text, String::as_str));
            out.push_str(&piece[text.len()..]);
            is_link = text.ends_with("href=") || text.ends_with("src=");
        }
        (out != html).then_some(out)
    }
}

/// The first conditional reference (`Patient?identifier=…`) in a resource.
#[must_use]
pub fn conditional_reference(resource: &Resource) -> Option<&str> {
    resource.members().iter().find_map(|(name, value)| conditional(name, value))
}

fn conditional<'v>(name: &str, value: &'v Value) -> Option<&'v str> {
    match value {
        Value::String(text) if name == "reference" => {
            let (ty, _) = text.split_once('?')?;
            ResourceType::parse(ty).map(|_| text.as_str())
        }
        Value::Array(items) => items.iter().find_map(|item| conditional(name, item)),
        Value::Object(members) => members.iter().find_map(|(name, value)| conditional(name, value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9";

    fn resolved(text: &str, full_url: Option<&str>) -> String {
        let ty = |name| ResourceType::parse(name).expect("a type");
        let mut links = Links::default();
        assert!(links.insert(A, ty("Patient"), "7"));
        assert!(links.insert("http://x/fhir/Patient/9", ty("Patient"), "new"));
        assert!(!links.insert(A, ty("Patient"), "7"));
        let mut resource = Resource::parse(text.as_bytes()).expect("a resource");
        links.resolve(&mut resource, full_url);
        String::from_utf8(resource.to_json().to_vec()).expect("UTF-8")
    }

    #[test]
    fn links_are_rewritten() {
        let cases = [
            (
                format!(r#""subject":{{"reference":"{A}"}}"#),
                r#""subject":{"reference":"Patient/7"}"#,
            ),
            (
                format!(r#""a":[{{"b":{{"reference":"{A}"}}}}]"#),
                r#""a":[{"b":{"reference":"Patient/7"}}]"#,
            ),
            (format!(r#""valueUri":"{A}""#), r#""valueUri":"Patient/7""#),
            (format!(r#""content":[{{"url":"{A}"}}]"#), r#""content":[{"url":"Patient/7"}]"#),
            (
                format!(r#""text":{{"div":"<div><a href=\"{A}\">{A}</a><img src='{A}'/></div>"}}"#),
                &format!(
                    r#""text":{{"div":"<div><a href=\"Patient/7\">{A}</a><img src='Patient/7'/></div>"}}"#
                ),
            ),
            (
                r#""s":{"reference":"http://x/fhir/Patient/9"}"#.to_owned(),
                r#""s":{"reference":"Patient/new"}"#,
            ),
            (r#""s":{"reference":"Patient/9"}"#.to_owned(), r#""s":{"reference":"Patient/new"}"#),
        ];
        for (given, expected) in cases {
            let whole = |member: &str| format!(r#"{{"resourceType":"Basic",{member}}}"#);
            let full_url = Some("http://x/fhir/Basic/1");
            assert_eq!(resolved(&whole(&given), full_url), whole(expected));
        }
    }

    #[test]
    fn all_else_stays() {
        let cases = [
            format!(r#""identifier":[{{"system":"{A}","value":"{A}"}}]"#),
            format!(r#""instantiatesCanonical":["{A}"]"#),
            format!(r#""url":"{A}""#),
            format!(r#""s":{{"reference":"{A}x"}},"note":"see {A}""#),
            r##""s":{"reference":"#9"},"t":{"reference":"Patient/9"}"##.to_owned(),
            r#""source":"http://x/fhir/Patient/9""#.to_owned(),
            r#""text":{"div":"<div><a href=\"x'>y</a> src='"}"#.to_owned(),
        ];
        for member in cases {
            let text = format!(r#"{{"resourceType":"Basic",{member}}}"#);
            assert_eq!(resolved(&text, Some(A)), text);
        }
        let nested = format!(
            r#"{{"resourceType":"Bundle","entry":[{{"fullUrl":"{A}","resource":{{"s":{{"reference":"{A}"}}}}}}]}}"#
        );
        assert_eq!(resolved(&nested, None), nested);
    }

    #[test]
    fn conditional_references_are_found() {
        let find = |text: &str| {
            let resource = Resource::parse(text.as_bytes()).expect("a resource");
            conditional_reference(&resource).map(str::to_owned)
        };
        let conditional =
            r#"{"resourceType":"Basic","a":[{"reference":"Patient?identifier=x|1"}]}"#;
        assert_eq!(find(conditional).as_deref(), Some("Patient?identifier=x|1"));
        assert_eq!(find(r#"{"resourceType":"Basic","a":{"reference":"http://x/y?z=1"}}"#), None);
    }
}
