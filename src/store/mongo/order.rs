//! In which order a scan goes, and the commands that read along it.

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, DateTime, Document, RawDocumentBuf, doc},
    options::{Hint, RunCursorCommandOptions},
    raw_batch_cursor::SessionRawBatchCursor,
};

use super::{Shared, catalog, catalog::updated_index, decode, errors, head, walk::Elements};
use crate::store::{DocRef, KeyRef, Scan, ScanKey, StoreError, Window};

/// How many documents the first reply has: enough to begin with, and there at once.
const FIRST_REPLY: u32 = 16;
/// How many documents a filtered scan by id may look at without a word.
const STRETCH: u32 = 20_000;

/// In which order, and how, a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By `_id`; the window filters.
    Id,
    /// By `meta.lastUpdated`, then `_id`, along their index.
    Updated,
    /// The same order without an index, or where some lastUpdated are texts: sorted.
    UpdatedSorted,
}

impl Order {
    /// What the scan and the indexes allow.
    pub(super) async fn choose(
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

    /// Where a document stands; `None`: nowhere, without a lastUpdated.
    pub(super) fn key(self, doc: DocRef<'_>, updated_ms: Option<i64>) -> Option<KeyRef<'_>> {
        match self {
            Self::Id => Some(KeyRef::Id(doc)),
            Self::Updated | Self::UpdatedSorted => updated_ms.map(|ms| KeyRef::Updated(ms, doc)),
        }
    }

    /// Reads from `within.from` to `within.to`. Replies after the first have `size` documents.
    pub(super) async fn open(
        self,
        shared: &Shared,
        scan: &Scan,
        within: &Within,
        size: u32,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<SessionRawBatchCursor> {
        let options = RunCursorCommandOptions::builder()
            .batch_size(size)
            .selection_criteria(shared.db.selection_criteria().cloned())
            .build();
        let collection = shared.layout.collection_of(scan.ty);
        let command = match self {
            Self::UpdatedSorted => sorted(scan, &collection, size),
            Self::Id => find(&collection, doc! {"_id": 1}, dated_or_text(scan.window), within),
            Self::Updated => {
                find(&collection, updated_index(), dated(scan.window).unwrap_or_default(), within)
            }
        };
        let run = shared.db.run_cursor_command(command).with_options(options);
        run.session(session).batch().await
    }
}

/// A part of the index that a scan goes along.
#[derive(Debug, Clone, Default)]
pub(super) struct Within {
    /// The first key.
    pub(super) from: Option<Document>,
    /// The first key that is beyond.
    pub(super) to: Option<Document>,
}

impl Within {
    /// All that a scan has before it; the key that it goes on after is in.
    pub(super) fn rest_of(scan: &Scan) -> Self {
        Self { from: scan.after.as_ref().map(index_key), to: None }
    }
}

/// A stretch of a scan by id.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Its last key, where a scan can go on after it.
    pub(super) last: Option<ScanKey>,
    /// The first key beyond it.
    pub(super) next: Document,
}

/// The next stretch from a key on, as the index alone tells it. `None`: the rest is no longer
/// than a stretch.
pub(super) async fn stretch(
    shared: &Shared,
    scan: &Scan,
    from: Option<&Document>,
    session: &mut ClientSession,
) -> mongodb::error::Result<Option<Stretch>> {
    let collection = shared.collection(scan.ty);
    let find = collection.find(doc! {}).sort(doc! {"_id": 1}).hint(Hint::Keys(doc! {"_id": 1}));
    let find = find.projection(doc! {"_id": 1}).skip((STRETCH - 1).into()).limit(2);
    let find = match from {
        Some(key) => find.min(key.clone()),
        None => find,
    };
    let mut cursor = find.session(&mut *session).await?;
    let ends: Vec<RawDocumentBuf> = cursor.stream(session).try_collect().await?;
    let [last, next] = ends.as_slice() else { return Ok(None) };
    Ok(Some(Stretch { last: id_key(last), next: Document::try_from(&**next)? }))
}

/// The key that the `_id` of a document is.
fn id_key(document: &RawDocumentBuf) -> Option<ScanKey> {
    let id = Elements::of(document.as_bytes()).ok()?.find("_id")?;
    Some(KeyRef::Id(head::doc_id(&id)?).to_key())
}

fn find(collection: &str, index: Document, filter: Document, within: &Within) -> Document {
    let mut command = doc! {
        "find": collection,
        "filter": filter,
        "sort": index.clone(),
        "hint": index,
        "batchSize": FIRST_REPLY,
    };
    let bounds = [("min", &within.from), ("max", &within.to)];
    command.extend(
        bounds.into_iter().filter_map(|(name, key)| {
            key.clone().map(|key| (name.to_owned(), Bson::Document(key)))
        }),
    );
    command
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
