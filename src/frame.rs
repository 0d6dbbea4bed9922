//! Bytes of frames: SSE (WHATWG HTML, "Server-sent events") and NDJSON. Pure.
//!
//! Stored resources are compact JSON: no line break can stand in `data`.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::json;

use crate::fhir::{ResourceType, instant};

/// The events that are no resource. Lower case, so that none can be a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The client's copy is whole.
    CaughtUp,
    /// The client was slower than the live ring is long.
    FellBehind,
    /// The client's copy is worth nothing; the history starts again.
    Reset,
}

impl Control {
    const fn name(self) -> &'static str {
        match self {
            Self::CaughtUp => "caught-up",
            Self::FellBehind => "fell-behind",
            Self::Reset => "reset",
        }
    }
}

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/event-stream`.
    Sse,
    /// `application/fhir+ndjson`.
    Ndjson,
}

impl Format {
    /// One word, for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
        }
    }

    /// The media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Ndjson => "application/fhir+ndjson",
        }
    }

    /// A resource. `id` is the position after it.
    pub fn resource(self, out: &mut BytesMut, ty: ResourceType, id: &str, json: &[u8]) {
        self.write(out, ty.name(), id, json);
    }

    /// A resource of a scan, given as a line that ends in a line feed. `opening` is what
    /// [`opening`](Self::opening) gives; `id` writes the position after the resource behind it.
    pub fn scanned(
        self,
        out: &mut BytesMut,
        opening: &[u8],
        id: impl Fn(&mut BytesMut) -> fmt::Result,
        line: &[u8],
    ) {
        if self == Self::Sse {
            out.put_slice(opening);
            // Writing into a buffer can't fail.
            let _ = id(out);
            out.put_slice(b"\ndata: ");
            out.put_slice(line);
            out.put_u8(b'\n');
        } else {
            out.put_slice(line);
        }
    }

    /// What the frames of one type's scan begin with: `stem` begins their positions.
    #[must_use]
    pub fn opening(ty: ResourceType, stem: &str) -> Vec<u8> {
        format!("event: {ty}\nid: {stem}").into_bytes()
    }

    /// A resource that is gone: what a Bulk Data `deleted` file holds.
    pub fn deleted(self, out: &mut BytesMut, ty: ResourceType, resource: &str, id: &str) {
        self.write(out, "deleted", id, &deletion(ty, resource, None));
    }

    /// A resource that is there, and no longer the stream's: a deletion that says so.
    pub fn left(self, out: &mut BytesMut, ty: ResourceType, resource: &str, id: &str) {
        self.write(out, "deleted", id, &deletion(ty, resource, Some(LEFT)));
    }

    /// A control event; NDJSON has none.
    pub fn control(self, out: &mut BytesMut, control: Control, id: &str, json: &[u8]) {
        if self == Self::Sse {
            self.write(out, control.name(), id, json);
        }
    }

    /// Moves the client's position without an event; NDJSON has no positions.
    pub fn checkpoint(self, out: &mut BytesMut, id: &str) {
        if self == Self::Sse {
            put(out, &[b"id: ", id.as_bytes(), b"\n\n"]);
        }
    }

    fn write(self, out: &mut BytesMut, event: &str, id: &str, json: &[u8]) {
        match self {
            Self::Ndjson => put(out, &[json, b"\n"]),
            Self::Sse => put(
                out,
                &[
                    b"event: ",
                    event.as_bytes(),
                    b"\nid: ",
                    id.as_bytes(),
                    b"\ndata: ",
                    json,
                    b"\n\n",
                ],
            ),
        }
    }
}

fn put(out: &mut BytesMut, parts: &[&[u8]]) {
    out.reserve(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.put_slice(part));
}

/// What the codes of a deletion's reason are of.
const REASONS: &str = "urn:fhirtail:deleted-reason";

/// A comment that keeps proxies and clients from thinking the stream dead.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The same where there are no comments: a blank line, between two lines or two of a Bundle's
/// tokens.
pub const BLANK: Bytes = Bytes::from_static(b"\n");

/// Why a stream ends before all is sent. It has no id: the client's position stays.
#[must_use]
pub fn outcome(json: &[u8]) -> Bytes {
    [b"event: OperationOutcome\ndata: ", json, b"\n\n"].concat().into()
}

/// How long a client waits before it comes again.
#[must_use]
pub fn retry(ms: u64) -> Bytes {
    format!("retry: {ms}\n\n").into()
}

/// The data of `caught-up` and `fell-behind`: a Parameters with `transactionTime`.
#[must_use]
pub fn transaction_time(at: Timestamp) -> Bytes {
    let parameter = json!([{"name": "transactionTime", "valueInstant": instant::text(at)}]);
    json!({"resourceType": "Parameters", "parameter": parameter}).to_string().into()
}

/// Why a deletion is told of what is still there.
const LEFT: &str = "left-stream";

/// A deletion as a Bundle; a reason stands in its `meta.tag`.
fn deletion(ty: ResourceType, id: &str, reason: Option<&str>) -> Vec<u8> {
    let request = json!({"method": "DELETE", "url": format!("{ty}/{id}")});
    let mut bundle = json!({"resourceType": "Bundle"});
    if let Some(reason) = reason {
        bundle["meta"] = json!({"tag": [{"system": REASONS, "code": reason}]});
    }
    bundle["type"] = json!("transaction");
    bundle["entry"] = json!([{"request": request}]);
    bundle.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patient() -> ResourceType {
        ResourceType::parse("Patient").unwrap()
    }

    fn written(write: impl Fn(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn frames_byte_by_byte() {
        let json = "{\"resourceType\":\"Patient\",\"x\":\"\u{2028}ü\"}".as_bytes();
        let frame = written(|out| Format::Sse.resource(out, patient(), "1l~a~b", json));
        assert_eq!(
            frame,
            "event: Patient\nid: 1l~a~b\ndata: {\"resourceType\":\"Patient\",\"x\":\"\u{2028}ü\"}\n\n"
        );
        let frame = written(|out| Format::Sse.deleted(out, patient(), "42", "i"));
        assert_eq!(
            frame,
            "event: deleted\nid: i\ndata: {\"resourceType\":\"Bundle\",\"type\":\"transaction\",\
             \"entry\":[{\"request\":{\"method\":\"DELETE\",\"url\":\"Patient/42\"}}]}\n\n"
        );
        let frame = written(|out| Format::Sse.left(out, patient(), "42", "i"));
        assert_eq!(
            frame,
            "event: deleted\nid: i\ndata: {\"resourceType\":\"Bundle\",\"meta\":{\"tag\":[{\"system\":\
             \"urn:fhirtail:deleted-reason\",\"code\":\"left-stream\"}]},\"type\":\"transaction\",\
             \"entry\":[{\"request\":{\"method\":\"DELETE\",\"url\":\"Patient/42\"}}]}\n\n"
        );
        let frame = written(|out| Format::Sse.control(out, Control::Reset, "", b"{}"));
        assert_eq!(frame, "event: reset\nid: \ndata: {}\n\n");
        assert_eq!(written(|out| Format::Sse.checkpoint(out, "i")), "id: i\n\n");
        assert_eq!(outcome(b"{}"), "event: OperationOutcome\ndata: {}\n\n");
    }

    #[test]
    fn ndjson_has_resources_and_deletions_and_nothing_else() {
        let lines = written(|out| {
            Format::Ndjson.resource(out, patient(), "i", b"{}");
            Format::Ndjson.control(out, Control::CaughtUp, "i", b"{}");
            Format::Ndjson.checkpoint(out, "i");
            Format::Ndjson.deleted(out, patient(), "1", "i");
        });
        assert_eq!(lines.lines().count(), 2);
        assert!(lines.starts_with("{}\n{\"resourceType\":\"Bundle\""));
    }
}
