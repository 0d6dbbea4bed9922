//! One event of a change stream, read from its bytes.
//! <https://www.mongodb.com/docs/manual/reference/change-events/>

use jiff::Timestamp;

use super::{
    head, time,
    walk::{Element, Elements, Malformed, kind},
};
use crate::{
    fhir::instant,
    store::{DocId, DocRef},
};

/// An event, of whatever kind and collection.
#[derive(Debug, Clone)]
pub(super) struct Event<'a> {
    pub(super) operation: &'a str,
    /// When it was committed, as cluster time.
    pub(super) time: u64,
    wall_ms: Option<i64>,
    /// The collection; empty in events of the whole database.
    pub(super) collection: &'a str,
    /// A renamed collection's new name.
    pub(super) renamed_to: Option<&'a str>,
    /// The document's key, if it is a string or an ObjectId.
    pub(super) doc: Option<DocId>,
    /// The document after the change.
    pub(super) after: Option<&'a [u8]>,
    /// The document before the change.
    pub(super) before: Option<&'a [u8]>,
    /// The cluster time that the event's resume token shows.
    pub(super) token_time: Option<u64>,
}

impl<'a> Event<'a> {
    /// Reads an event. One without an operation or a cluster time is none.
    pub(super) fn parse(event: &'a [u8]) -> Result<Self, Malformed> {
        let mut parsed = Self {
            operation: "",
            time: 0,
            wall_ms: None,
            collection: "",
            renamed_to: None,
            doc: None,
            after: None,
            before: None,
            token_time: None,
        };
        let mut elements = Elements::of(event)?;
        while let Some(element) = elements.next()? {
            parsed.take(&element);
        }
        match (parsed.operation, parsed.time) {
            ("", _) | (_, 0) => Err(Malformed),
            _ => Ok(parsed),
        }
    }

    fn take(&mut self, element: &Element<'a>) {
        let document = (element.kind == kind::DOCUMENT).then_some(element.value);
        let named = |name| element.document().and_then(|members| members.find(name));
        match element.name {
            b"_id" => self.token_time = element.document().and_then(token_time),
            b"operationType" => self.operation = element.utf8().unwrap_or_default(),
            b"clusterTime" => self.time = element.timestamp().unwrap_or_default(),
            b"wallTime" => self.wall_ms = element.date(),
            b"ns" => self.collection = text(named("coll")).unwrap_or_default(),
            b"to" => self.renamed_to = text(named("coll")),
            b"documentKey" => {
                self.doc = named("_id").and_then(|key| head::doc_id(&key)).map(DocRef::to_doc);
            }
            b"fullDocument" => self.after = document,
            b"fullDocumentBeforeChange" => self.before = document,
            _ => {}
        }
    }

    /// When it was committed, to the millisecond where the server tells it (6.0).
    pub(super) fn committed(&self) -> Timestamp {
        self.wall_ms.and_then(instant::from_millis).unwrap_or_else(|| time::instant(self.time))
    }
}

fn text(element: Option<Element<'_>>) -> Option<&str> {
    element.and_then(|element| element.utf8())
}

/// The cluster time at the front of a resume token: `82`, eight hex digits of seconds, eight of
/// increment (a KeyString that begins with a timestamp).
pub(super) fn token_time(token: Elements<'_>) -> Option<u64> {
    time_in_token(token.find("_data")?.utf8()?)
}

/// The same of a token's text.
pub(crate) fn time_in_token(data: &str) -> Option<u64> {
    let digits = data.strip_prefix("82")?.get(..16)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, Timestamp as Stamp, doc, oid::ObjectId};

    use super::*;

    #[test]
    fn an_event_is_read_from_its_members() {
        let event = doc! {
            "_id": {"_data": "8263F2B1C40000000A2B022C0100296E5A1004"},
            "operationType": "replace",
            "clusterTime": Stamp { time: 0x63f2_b1c4, increment: 10 },
            "wallTime": DateTime::from_millis(1_676_849_604_123),
            "fullDocument": {"_id": "1"},
            "ns": {"db": "d", "coll": "Patient"},
            "documentKey": {"_id": ObjectId::from_bytes([7; 12])},
            "new": "unknown",
        };
        let bytes = event.to_vec().expect("BSON");
        let event = Event::parse(&bytes).expect("an event");
        assert_eq!((event.operation, event.collection), ("replace", "Patient"));
        assert_eq!(event.time, 0x63f2_b1c4_0000_000a);
        assert_eq!(event.token_time, Some(event.time));
        assert_eq!(event.doc, Some(DocId::Oid([7; 12])));
        assert_eq!(event.committed().as_millisecond(), 1_676_849_604_123);
        assert!(event.after.is_some() && event.before.is_none());
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for other in [doc! {}, doc! {"operationType": "insert"}, doc! {"clusterTime": 1}] {
            assert!(Event::parse(&other.to_vec().expect("BSON")).is_err());
        }
        let foreign = doc! {"_data": "83aa"}.to_vec().expect("BSON");
        assert_eq!(token_time(Elements::of(&foreign).expect("BSON")), None);
    }
}
