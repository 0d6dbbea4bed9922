//! Bundles on their way in: what a batch or transaction asks for, entry by entry.
//!
//! Each entry is read for itself, so that a batch can refuse one and do the others.

use serde_json::{Map, Value};

use super::resource::{Invalid, Resource, parse_json};

/// `Bundle.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleKind {
    /// Interactions, each for itself.
    Batch,
    /// Interactions, all or none.
    Transaction,
    /// Some resources.
    Collection,
    /// The answer to a search.
    Searchset,
    /// Versions.
    History,
    /// A document.
    Document,
    /// A message.
    Message,
    /// The answer to a batch.
    BatchResponse,
    /// The answer to a transaction.
    TransactionResponse,
}

impl BundleKind {
    /// The kind of this code.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Some(match code {
            "batch" => Self::Batch,
            "transaction" => Self::Transaction,
            "collection" => Self::Collection,
            "searchset" => Self::Searchset,
            "history" => Self::History,
            "document" => Self::Document,
            "message" => Self::Message,
            "batch-response" => Self::BatchResponse,
            "transaction-response" => Self::TransactionResponse,
            _ => return None,
        })
    }
}

/// A Bundle that was sent to us.
#[derive(Debug)]
pub struct Bundle {
    /// `type`.
    pub kind: BundleKind,
    entries: Vec<Value>,
}

/// `Bundle.entry`.
#[derive(Debug, Default)]
pub struct Entry {
    /// `fullUrl`: what references within the Bundle call the resource.
    pub full_url: Option<String>,
    /// `resource`.
    pub resource: Option<Resource>,
    /// `request`.
    pub request: Option<EntryRequest>,
}

/// `Bundle.entry.request`.
#[derive(Debug, Default)]
pub struct EntryRequest {
    /// `method`, as sent.
    pub method: String,
    /// `url`, relative to the base.
    pub url: String,
    /// `ifMatch`.
    pub if_match: Option<String>,
    /// `ifNoneMatch`.
    pub if_none_match: Option<String>,
    /// `ifNoneExist`.
    pub if_none_exist: Option<String>,
}

/// Why an entry can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadEntry {
    /// The element below the entry (`request.url`); empty for the entry itself.
    pub at: &'static str,
    /// A sentence.
    pub why: String,
}

impl BadEntry {
    fn new(at: &'static str, why: impl Into<String>) -> Self {
        Self { at, why: why.into() }
    }
}

impl Bundle {
    /// Reads JSON text (UTF-8).
    ///
    /// # Errors
    /// What [`parse_json`] refuses, no Bundle, no known `type`, an `entry` that is no array.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let Value::Object(mut members) = parse_json(text)? else {
            return Err(Invalid("a Bundle is a JSON object".into()));
        };
        if members.get("resourceType").and_then(Value::as_str) != Some("Bundle") {
            return Err(Invalid("resourceType is not Bundle".into()));
        }
        let kind = match members.get("type") {
            Some(Value::String(code)) => BundleKind::parse(code)
                .ok_or_else(|| Invalid(format!("'{code}' is no type of a Bundle")))?,
            Some(_) => return Err(Invalid("Bundle.type is not a string".into())),
            None => return Err(Invalid("Bundle.type is missing".into())),
        };
        let entries = match members.remove("entry") {
            None => Vec::new(),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(Invalid("Bundle.entry is not an array".into())),
        };
        Ok(Self { kind, entries })
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// `entry`, in order; in the place of one that can't be read, why.
    pub fn entries(self) -> impl Iterator<Item = Result<Entry, BadEntry>> {
        self.entries.into_iter().map(Entry::read)
    }
}

impl Entry {
    fn read(value: Value) -> Result<Self, BadEntry> {
        let Value::Object(mut members) = value else {
            return Err(BadEntry::new("", "an entry is a JSON object"));
        };
        let read = |resource| {
            Resource::from_value(resource).map_err(|Invalid(why)| BadEntry::new("resource", why))
        };
        Ok(Self {
            full_url: text(&mut members, "fullUrl", "fullUrl")?,
            resource: members.remove("resource").map(read).transpose()?,
            request: members.remove("request").map(EntryRequest::read).transpose()?,
        })
    }
}

impl EntryRequest {
    fn read(value: Value) -> Result<Self, BadEntry> {
        let Value::Object(mut members) = value else {
            return Err(BadEntry::new("request", "request is not an object"));
        };
        let missing = |at| BadEntry::new(at, "it is missing");
        Ok(Self {
            method: text(&mut members, "method", "request.method")?
                .ok_or_else(|| missing("request.method"))?,
            url: text(&mut members, "url", "request.url")?.ok_or_else(|| missing("request.url"))?,
            if_match: text(&mut members, "ifMatch", "request.ifMatch")?,
            if_none_match: text(&mut members, "ifNoneMatch", "request.ifNoneMatch")?,
            if_none_exist: text(&mut members, "ifNoneExist", "request.ifNoneExist")?,
        })
    }
}

fn text(
    members: &mut Map<String, Value>,
    name: &str,
    at: &'static str,
) -> Result<Option<String>, BadEntry> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(BadEntry::new(at, "it is not a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_entry_for_itself() {
        let text = br#"{"resourceType":"Bundle","type":"batch","entry":[
            {"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient"},
             "request":{"method":"POST","url":"Patient","ifNoneExist":"a=b"}},
            {"resource":{"resourceType":"Patent"}},
            {"request":{"method":"DELETE"}},
            {"request":{"method":"DELETE","url":7}},
            {"request":{"method":"PUT","url":"Patient/1","ifMatch":"W/\"1\""}},
            5]}"#;
        let bundle = Bundle::parse(text).expect("a Bundle");
        assert_eq!(bundle.kind, BundleKind::Batch);
        let entries: Vec<_> = bundle.entries().collect();
        let at: Vec<_> = entries.iter().map(|e| e.as_ref().err().map(|bad| bad.at)).collect();
        let (url, resource, entry) = (Some("request.url"), Some("resource"), Some(""));
        assert_eq!(at, [None, resource, url, url, None, entry]);
        let first = entries[0].as_ref().expect("an entry");
        assert_eq!(first.full_url.as_deref(), Some("urn:uuid:1"));
        let request = first.request.as_ref().expect("a request");
        assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", "Patient"));
        assert_eq!(request.if_none_exist.as_deref(), Some("a=b"));
    }

    #[test]
    fn refuses_what_is_no_bundle() {
        let cases = [
            ("[]", "object"),
            (r#"{"resourceType":"Patient"}"#, "not Bundle"),
            (r#"{"resourceType":"Bundle"}"#, "type is missing"),
            (r#"{"resourceType":"Bundle","type":"parcel"}"#, "'parcel'"),
            (r#"{"resourceType":"Bundle","type":"batch","entry":{}}"#, "not an array"),
        ];
        for (text, part) in cases {
            let error = Bundle::parse(text.as_bytes()).expect_err("no Bundle").to_string();
            assert!(error.contains(part), "{error}");
        }
        let empty = Bundle::parse(br#"{"resourceType":"Bundle","type":"batch"}"#);
        assert_eq!(empty.expect("a Bundle").count(), 0);
    }
}
