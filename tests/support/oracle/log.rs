//! The database's own log, read by a plain change stream over the whole cluster, and each
//! document rebuilt from it.

use std::collections::{BTreeMap, BTreeSet};

use fhirtail::position::LogPosition;
use futures_util::StreamExt;
use mongodb::{
    Client,
    bson::{Bson, Document, Timestamp, doc},
    change_stream::event::{ChangeStreamEvent, OperationType, UpdateDescription},
    options::FullDocumentType,
};
use serde_json::{Map, Number, Value};

use super::journal::{Commit, Journal, What};

/// Reads all that was written to a database since a cluster time, at which it was empty, up to
/// and with the first commit of `last`.
pub async fn read(client: &Client, database: &str, since: Timestamp, last: &str) -> Journal {
    let stream = client
        .watch()
        .pipeline([doc! {"$match": {"ns.db": database}}])
        .start_at_operation_time(since)
        .full_document(FullDocumentType::WhenAvailable);
    let mut stream = stream.await.expect("a change stream");
    let mut rebuilt = Rebuilt::default();
    while rebuilt.journal.of(last).is_empty() {
        let event = stream.next().await.expect("the log goes on").expect("an event");
        rebuilt.take(event);
    }
    rebuilt.journal
}

#[derive(Default)]
struct Rebuilt {
    journal: Journal,
    at: LogPosition,
    /// Collection → id → document.
    documents: BTreeMap<String, BTreeMap<String, Document>>,
    /// The collections that there have been.
    seen: BTreeSet<String>,
}

impl Rebuilt {
    fn take(&mut self, event: ChangeStreamEvent<Document>) {
        let time = event.cluster_time.expect("a cluster time");
        let time = u64::from(time.time) << 32 | u64::from(time.increment);
        let consumed = if time == self.at.time { self.at.consumed + 1 } else { 1 };
        self.at = LogPosition { time, consumed };
        let collection = event.ns.and_then(|ns| ns.coll).unwrap_or_default();
        let key = event.document_key.as_ref().and_then(|key| key.get_str("_id").ok());
        let key = key.unwrap_or_default().to_owned();
        match event.operation_type {
            OperationType::Insert | OperationType::Replace => {
                let document = event.full_document.expect("the document");
                self.is(&collection, key, document, true);
            }
            OperationType::Update => {
                let exact = event.full_document.is_some();
                let before = || self.documents.get(&collection).and_then(|all| all.get(&key));
                let document = event.full_document.unwrap_or_else(|| {
                    let mut document = before().cloned().expect("what is updated");
                    update(&mut document, event.update_description.expect("an update"));
                    document
                });
                self.is(&collection, key, document, exact);
            }
            OperationType::Delete => {
                self.documents.entry(collection.clone()).or_default().remove(&key);
                self.push(&collection, &key, What::Gone, true);
            }
            OperationType::Drop => drop(self.sweep(&collection)),
            OperationType::Rename => {
                let to = event.to.and_then(|ns| ns.coll).expect("a new name");
                let moved = self.sweep(&collection);
                self.sweep(&to);
                for (key, document) in &moved {
                    self.push(&to, key, What::Swept(Some(json(document))), true);
                }
                self.documents.insert(to, moved);
            }
            OperationType::DropDatabase => {
                let all: Vec<String> = self.seen.iter().cloned().collect();
                all.iter().for_each(|collection| drop(self.sweep(collection)));
            }
            _ => {}
        }
    }

    fn is(&mut self, collection: &str, key: String, document: Document, exact: bool) {
        self.push(collection, &key, What::Is(json(&document)), exact);
        self.seen.insert(collection.to_owned());
        self.documents.entry(collection.to_owned()).or_default().insert(key, document);
    }

    fn sweep(&mut self, collection: &str) -> BTreeMap<String, Document> {
        self.journal.sweep(self.at, collection);
        let swept = self.documents.remove(collection).unwrap_or_default();
        swept.keys().for_each(|key| self.push(collection, key, What::Swept(None), true));
        swept
    }

    fn push(&mut self, collection: &str, key: &str, what: What, exact: bool) {
        let url = format!("{collection}/{key}");
        self.journal.push(Commit { at: self.at, url, what, exact });
    }
}

/// Does to a document what the log says was done to it.
fn update(document: &mut Document, update: UpdateDescription) {
    for (path, value) in update.updated_fields {
        let (within, name) = parent(document, &path);
        within.insert(name, value);
    }
    for path in update.removed_fields {
        let (within, name) = parent(document, &path);
        within.remove(name);
    }
}

/// The document in which a dotted path ends, and the name there. The tests' updates do not go
/// into arrays.
fn parent<'d, 'p>(mut document: &'d mut Document, path: &'p str) -> (&'d mut Document, &'p str) {
    let mut names = path.split('.');
    let last = names.next_back().expect("a name");
    for name in names {
        document = document.get_document_mut(name).expect("a document");
    }
    (document, last)
}

/// A document as its resource's JSON.
pub fn json(document: &Document) -> Value {
    let members = document.iter().filter(|(name, _)| *name != "_id");
    Value::Object(members.map(|(name, value)| (name.clone(), plain(value))).collect())
}

fn plain(value: &Bson) -> Value {
    match value {
        Bson::String(text) => text.as_str().into(),
        Bson::Boolean(value) => (*value).into(),
        Bson::Int32(number) => Number::from(*number).into(),
        Bson::Int64(number) => Number::from(*number).into(),
        Bson::Array(items) => items.iter().map(plain).collect(),
        Bson::Document(document) => {
            let members = document.iter().map(|(name, value)| (name.clone(), plain(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Bson::DateTime(at) => {
            let at = jiff::Timestamp::from_millisecond(at.timestamp_millis()).expect("an instant");
            format!("{at:.3}").into()
        }
        other => panic!("no test writes {other:?}"),
    }
}
