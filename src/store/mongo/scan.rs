//! One type of a snapshot, in key order: cursor replies → batches of JSON over a channel.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, DateTime, Document, RawDocument, doc},
    options::{Hint, RunCursorCommandOptions},
    raw_batch_cursor::SessionRawBatchCursor,
};
use tokio::sync::mpsc;

use super::{
    Shared, catalog,
    catalog::{Facts, updated_index},
    decode, encode, errors,
    head::Head,
    unreadable,
};
use crate::store::{DocId, Scan, ScanBatch, ScanKey, Scanned, StoreError, Window};

/// How much JSON goes into one batch, in bytes, before it is handed over.
const BATCH_BYTES: usize = 512 * 1024;

type Sender = mpsc::Sender<Result<ScanBatch, StoreError>>;

/// Reads until the end of the type, an error, or until nobody listens.
pub(super) async fn run(shared: Arc<Shared>, time: u64, scan: Scan, facts: Facts, out: Sender) {
    if let Err(error) = read(&shared, time, &scan, facts, &out).await {
        // Nobody listens any more: nobody needs to know.
        let _ = out.send(Err(error)).await;
    }
}

async fn read(
    shared: &Shared,
    time: u64,
    scan: &Scan,
    facts: Facts,
    out: &Sender,
) -> Result<(), StoreError> {
    if let Some(why) = facts.obstacle() {
        return Err(StoreError::Failed(format!("the collection of {} {why}", scan.ty)));
    }
    let expired = |error| errors::in_snapshot(&error);
    let mut session = shared.session_at(time).await?;
    let order = Order::choose(shared, scan, &mut session).await?;
    let size = batch_size(shared, scan).await;
    let mut cursor = order.open(shared, scan, size, &mut session).await.map_err(expired)?;
    let mut replies = cursor.stream(&mut session);
    // The slot is waited for before the server is asked: one batch ahead, no more.
    while out.reserve().await.is_ok() {
        let Some(reply) = replies.next().await else { return Ok(()) };
        let reply = reply.map_err(expired)?;
        let mut batch = Batch::default();
        for element in reply.doc_slices().map_err(expired)? {
            let Some(document) = element.ok().and_then(|element| element.as_document()) else {
                continue;
            };
            batch.add(shared, scan, order, document);
            if batch.json.len() >= BATCH_BYTES && out.send(Ok(batch.take())).await.is_err() {
                return Ok(());
            }
        }
        if !batch.ends.is_empty() && out.send(Ok(batch.take())).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// How many documents make up about a batch. A reply is held as long as its client takes, and
/// would else be up to 16 MiB.
async fn batch_size(shared: &Shared, scan: &Scan) -> u32 {
    let stats = doc! {"collStats": &*shared.layout.collection_of(scan.ty)};
    let stats = shared.db.run_command(stats).await.unwrap_or_default();
    let average = match stats.get("avgObjSize") {
        Some(Bson::Int32(bytes)) => i64::from(*bytes),
        Some(Bson::Int64(bytes)) => *bytes,
        Some(Bson::Double(bytes)) => *bytes as i64,
        // Who may not know gets small steps.
        _ => 16 << 10,
    };
    let fitting = BATCH_BYTES as i64 / average.max(1);
    u32::try_from(fitting).unwrap_or(u32::MAX).clamp(1, shared.batch_size)
}

/// Documents encoded one behind the other, and where each ends.
#[derive(Default)]
struct Batch {
    json: Vec<u8>,
    ends: Vec<(ScanKey, usize)>,
}

impl Batch {
    fn add(&mut self, shared: &Shared, scan: &Scan, order: Order, document: &RawDocument) {
        let bytes = document.as_bytes();
        let Ok(head) = Head::of(bytes) else { return unreadable(scan.ty, "it is no BSON") };
        let Some(doc) = &head.doc else {
            return unreadable(scan.ty, "its _id is neither a string nor an ObjectId");
        };
        let Some(key) = order.key(doc, head.updated_ms) else { return };
        let passed = scan.after.as_ref().is_some_and(|after| key <= *after);
        if passed || !scan.window.contains(head.updated_ms) {
            return;
        }
        match encode::resource(bytes, &head, scan.ty, &shared.layout, &mut self.json) {
            Ok(()) => self.ends.push((key, self.json.len())),
            Err(_) => unreadable(scan.ty, "it is no BSON"),
        }
    }

    fn take(&mut self) -> ScanBatch {
        let json = Bytes::from(std::mem::take(&mut self.json));
        let mut start = 0;
        let slice = |(key, end)| {
            let json = json.slice(start..end);
            start = end;
            Scanned { key, json }
        };
        ScanBatch { resources: std::mem::take(&mut self.ends).into_iter().map(slice).collect() }
    }
}

/// In which order, and how, a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// By `_id`; the window filters.
    Id,
    /// By `meta.lastUpdated`, then `_id`, along their index.
    Updated,
    /// The same order without an index, or where some lastUpdated are texts: sorted.
    UpdatedSorted,
}

impl Order {
    async fn choose(
        shared: &Shared,
        scan: &Scan,
        session: &mut ClientSession,
    ) -> Result<Self, StoreError> {
        let bound = match &scan.after {
            Some(ScanKey::Id(_)) => return Ok(Self::Id),
            None if scan.window.is_open() => return Ok(Self::Id),
            after => after.is_some(),
        };
        match index_tells_all(shared, scan, session).await? {
            true => Ok(Self::Updated),
            false if bound => Ok(Self::UpdatedSorted),
            false => Ok(Self::Id),
        }
    }

    fn key(self, doc: &DocId, updated_ms: Option<i64>) -> Option<ScanKey> {
        match self {
            Self::Id => Some(ScanKey::Id(doc.clone())),
            Self::Updated | Self::UpdatedSorted => {
                updated_ms.map(|ms| ScanKey::Updated(ms, doc.clone()))
            }
        }
    }

    async fn open(
        self,
        shared: &Shared,
        scan: &Scan,
        size: u32,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<SessionRawBatchCursor> {
        if self == Self::UpdatedSorted {
            let options = RunCursorCommandOptions::builder().batch_size(size).build();
            let command = sorted(scan, &shared.layout.collection_of(scan.ty), size);
            let run = shared.db.run_cursor_command(command).with_options(options);
            return run.session(session).batch().await;
        }
        let (index, filter) = match self {
            Self::Id => (doc! {"_id": 1}, dated_or_text(scan.window)),
            _ => (updated_index(), dated(scan.window).unwrap_or_default()),
        };
        let collection = shared.collection(scan.ty);
        let find = collection.find(filter).sort(index.clone()).hint(Hint::Keys(index));
        let find = find.batch_size(size).session(session);
        match scan.after.as_ref().map(index_key) {
            Some(min) => find.min(min).batch().await,
            None => find.batch().await,
        }
    }
}

/// Whether the index by lastUpdated is there, and holds no text that it would sort apart from
/// the dates.
async fn index_tells_all(
    shared: &Shared,
    scan: &Scan,
    session: &mut ClientSession,
) -> Result<bool, StoreError> {
    let collection = shared.layout.collection_of(scan.ty);
    let indexed = catalog::has_updated_index(&shared.db, &collection).await;
    if !indexed.map_err(|error| errors::plain(&error))? {
        return Ok(false);
    }
    let collection = shared.collection(scan.ty);
    let text = collection
        .find_one(doc! {"meta.lastUpdated": {"$type": "string"}})
        .projection(doc! {"_id": 1})
        .hint(Hint::Keys(updated_index()))
        .session(session);
    Ok(text.await.map_err(|error| errors::in_snapshot(&error))?.is_none())
}

/// The place of a scan's key in the index that the scan goes along.
fn index_key(after: &ScanKey) -> Document {
    match after {
        ScanKey::Id(doc) => doc! {"_id": decode::key(doc)},
        ScanKey::Updated(ms, doc) => {
            doc! {"meta.lastUpdated": DateTime::from_millis(*ms), "_id": decode::key(doc)}
        }
    }
}

/// The window as a condition on dates; `None`: it is open.
fn dated(window: Window) -> Option<Document> {
    between(window).map(|range| doc! {"meta.lastUpdated": range})
}

/// The same, with texts let through for the reader to decide.
fn dated_or_text(window: Window) -> Document {
    match dated(window) {
        None => doc! {},
        Some(dated) => doc! {"$or": [dated, {"meta.lastUpdated": {"$type": "string"}}]},
    }
}

fn between(window: Window) -> Option<Document> {
    let bounds = [("$gt", window.after_ms), ("$lt", window.before_ms)];
    let bounds = bounds.into_iter().filter_map(|(operator, ms)| {
        ms.map(|ms| (operator.to_owned(), Bson::DateTime(DateTime::from_millis(ms))))
    });
    Some(bounds.collect::<Document>()).filter(|range| !range.is_empty())
}

/// A name that no stored member has, for as long as the sort takes.
const SORT_KEY: &str = "_fhirtail_sort";

/// Every lastUpdated as a date, sorted on the server, on its disk if need be.
fn sorted(scan: &Scan, collection: &str, batch_size: u32) -> Document {
    let convert = doc! {"$convert": {
        "input": "$meta.lastUpdated", "to": "date", "onError": null, "onNull": null,
    }};
    let mut conditions = vec![doc! {SORT_KEY: {"$type": "date"}}];
    conditions.extend(between(scan.window).map(|range| doc! {SORT_KEY: range}));
    if let Some(ScanKey::Updated(ms, _)) = &scan.after {
        conditions.push(doc! {SORT_KEY: {"$gte": DateTime::from_millis(*ms)}});
    }
    doc! {
        "aggregate": collection,
        "pipeline": [
            {"$set": {SORT_KEY: convert}},
            {"$match": {"$and": conditions}},
            {"$sort": {SORT_KEY: 1, "_id": 1}},
            {"$unset": SORT_KEY},
        ],
        "allowDiskUse": true,
        "cursor": {"batchSize": batch_size},
    }
}
