//! The bytes of a search's answer: lines, or one Bundle that is written as the result comes. Pure.

use std::fmt::{self, Write as _};

use super::subset::Subset;
use crate::fhir::outcome;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A resource a line.
    Ndjson,
    /// A Bundle of type `searchset`.
    Bundle,
}

impl Shape {
    /// One word, for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Bundle => "bundle",
        }
    }
}

/// Writes an answer, part by part.
#[derive(Debug)]
pub struct Answer {
    /// How.
    pub shape: Shape,
    /// What stands before a resource's id in its `fullUrl`.
    pub full_url: String,
    /// Which part of each resource.
    pub subset: Option<Subset>,
    /// Only the number of resources is told.
    pub counts: bool,
    /// How many resources have been found.
    pub found: u64,
    /// An entry has been written.
    begun: bool,
}

impl Answer {
    /// An answer of which nothing is written.
    #[must_use]
    pub fn new(shape: Shape, full_url: String, subset: Option<Subset>, counts: bool) -> Self {
        Self { shape, full_url, subset, counts, found: 0, begun: false }
    }

    /// Its head: `link` is the search as it was understood, `ignored` what was not.
    pub fn open(&mut self, out: &mut Vec<u8>, link: &str, ignored: &[String]) {
        if self.shape == Shape::Ndjson {
            return;
        }
        out.extend_from_slice(
            br#"{"resourceType":"Bundle","type":"searchset","link":[{"relation":"self","url":"#,
        );
        quote(out, link);
        out.extend_from_slice(b"}]");
        if !ignored.is_empty() {
            let text = format!("ignored, since this server does not do it: {}", ignored.join(", "));
            self.entry(out);
            out.extend_from_slice(br#"{"resource":"#);
            out.extend_from_slice(&outcome::warning(&text));
            out.extend_from_slice(br#","search":{"mode":"outcome"}}"#);
        }
    }

    /// A resource that is found.
    pub fn resource(&mut self, out: &mut Vec<u8>, id: impl fmt::Display, json: &[u8]) {
        self.found += 1;
        if self.counts {
            return;
        }
        if self.shape == Shape::Ndjson {
            self.part(out, json);
            return out.push(b'\n');
        }
        self.entry(out);
        out.extend_from_slice(br#"{"fullUrl":"#);
        self.write_full_url(out, id);
        out.extend_from_slice(br#","resource":"#);
        self.part(out, json);
        out.extend_from_slice(br#","search":{"mode":"match"}}"#);
    }

    /// Its end: all that is found has been written.
    pub fn close(&self, out: &mut Vec<u8>) {
        if self.shape == Shape::Ndjson {
            return;
        }
        if self.begun {
            out.push(b']');
        }
        if self.counts {
            out.extend_from_slice(format!(r#","total":{}"#, self.found).as_bytes());
        }
        out.push(b'}');
    }

    fn write_full_url(&mut self, out: &mut Vec<u8>, id: impl fmt::Display) {
        let base = self.full_url.len();
        // Writing into a text can't fail.
        let _ = write!(self.full_url, "{id}");
        quote(out, &self.full_url);
        self.full_url.truncate(base);
    }

    fn entry(&mut self, out: &mut Vec<u8>) {
        // An empty array is not FHIR's JSON, so the first entry opens it.
        let before: &[u8] = match std::mem::replace(&mut self.begun, true) {
            true => b",",
            false => br#","entry":["#,
        };
        out.extend_from_slice(before);
    }

    fn part(&self, out: &mut Vec<u8>, json: &[u8]) {
        match &self.subset {
            Some(subset) => subset.write(out, json),
            None => out.extend_from_slice(json),
        }
    }
}

/// Writes a text as JSON.
fn quote(out: &mut Vec<u8>, text: &str) {
    // Writing a text into memory can't fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(shape: Shape, counts: bool, ids: &[&str], ignored: &[String]) -> String {
        let mut answer = Answer::new(shape, "http://x/fhir/Basic/".into(), None, counts);
        let mut out = Vec::new();
        answer.open(&mut out, "http://x/fhir/Basic?a=\"", ignored);
        ids.iter().for_each(|id| answer.resource(&mut out, id, b"{\"x\":1.50}"));
        answer.close(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_bundle_is_json_with_any_number_of_entries() {
        let link = json!([{"relation": "self", "url": "http://x/fhir/Basic?a=\""}]);
        let head = json!({"resourceType": "Bundle", "type": "searchset", "link": link});
        let empty: Value =
            serde_json::from_str(&written(Shape::Bundle, false, &[], &[])).expect("JSON");
        assert_eq!(empty, head);
        let text = written(Shape::Bundle, false, &["1", "2"], &["odd".into()]);
        let bundle: Value = serde_json::from_str(&text).expect("JSON");
        let modes: Vec<_> = (0..3).map(|at| &bundle["entry"][at]["search"]["mode"]).collect();
        assert_eq!(modes, ["outcome", "match", "match"]);
        assert_eq!(bundle["entry"][2]["fullUrl"], "http://x/fhir/Basic/2");
        assert!(text.contains("1.50"), "digits stay");
        let counted = written(Shape::Bundle, true, &["1", "2"], &[]);
        let counted: Value = serde_json::from_str(&counted).expect("JSON");
        assert_eq!((&counted["total"], counted.get("entry")), (&json!(2), None));
        let lines = written(Shape::Ndjson, false, &["1", "2"], &["odd".into()]);
        assert_eq!(lines, "{\"x\":1.50}\n{\"x\":1.50}\n");
    }
}
