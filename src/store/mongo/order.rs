//! In which order a scan goes, and the commands that read along it.

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, DateTime, Document, RawDocumentBuf, doc},
    options::RunCursorCommandOptions,
    raw_batch_cursor::SessionRawBatchCursor,
};

use super::{
    Shared,
    catalog::{self, Index, updated_index},
    decode, errors, head,
    route::{Route, all},
    walk::Elements,
};
use crate::store::{DocRef, KeyRef, Scan, ScanKey, StoreError, Window};

/// How many documents the first reply has: enough to begin with, and there at once.
const FIRST_REPLY: u32 = 16;

/// In which order, and how, a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By `_id`; the window filters.
    Id,
    /// By `meta.lastUpdated`, then `_id`, along their index.
    Updated,
    /// The same order without an index, or where some lastUpdated are texts: sorted.
    UpdatedSorted,
    /// All there is by `meta.lastUpdated`, then `_id`, along their index.
    Time,
    /// The same, sorted.
    TimeSorted,
}

impl Order {
    /// Where a document stands; `None`: nowhere, without a lastUpdated.
    pub(super) fn key(self, doc: DocRef<'_>, updated_ms: Option<i64>) -> Option<KeyRef<'_>> {
        match self {
            Self::Id => Some(KeyRef::Id(doc)),
            Self::Updated | Self::UpdatedSorted => updated_ms.map(|ms| KeyRef::Updated(ms, doc)),
            Self::Time | Self::TimeSorted => {
                Some(updated_ms.map_or(KeyRef::Id(doc), |ms| KeyRef::Updated(ms, doc)))
            }
        }
    }
}

/// How a scan goes: in which order, along which index.
pub(super) struct Way<'s> {
    shared: &'s Shared,
    scan: &'s Scan,
    route: Route,
    pub(super) order: Order,
    /// `None`: what the server chooses, and sorts.
    index: Option<Index>,
}

impl<'s> Way<'s> {
    /// What the scan and the indexes allow.
    pub(super) async fn choose(
        shared: &'s Shared,
        scan: &'s Scan,
        route: Route,
        session: &mut ClientSession,
    ) -> Result<Self, StoreError> {
        let by_time = scan.along.is_by_time();
        let begins_by_time = match &scan.after {
            _ if by_time => route.index.is_none(),
            Some(ScanKey::Id(_)) => false,
            Some(ScanKey::Updated(..)) => true,
            None => !scan.window.is_open() && route.index.is_none(),
        };
        let dates = match begins_by_time {
            true => index_of_dates(shared, scan, session).await?,
            false => None,
        };
        let bound = begins_by_time && scan.after.is_some();
        let (order, index) = match dates {
            Some(index) if by_time => (Order::Time, Some(index)),
            Some(index) => (Order::Updated, Some(index)),
            None if by_time => (Order::TimeSorted, route.index.clone()),
            None if bound => (Order::UpdatedSorted, route.index.clone()),
            None => (Order::Id, Some(route.index.clone().unwrap_or(Index::Key))),
        };
        Ok(Self { shared, scan, route, order, index })
    }

    /// Whether the server may go far before it has anything to say. A scan by id that filters is
    /// asked stretch by stretch.
    pub(super) fn searches(&self) -> bool {
        match self.order {
            Order::Id => self.route.index.is_some(),
            Order::Updated | Order::Time => !self.route.filter.is_empty(),
            Order::UpdatedSorted | Order::TimeSorted => true,
        }
    }

    /// Whether it is cut into stretches. Where the server looks for what fits, it would else say
    /// nothing until it finds something, and an expired snapshot would take all back.
    pub(super) fn is_cut(&self) -> bool {
        let filtered = !self.scan.window.is_open() || !self.route.filter.is_empty();
        self.order == Order::Id && self.route.index.is_none() && filtered
    }

    /// Reads what is `within`. Replies after the first have `size` documents.
    pub(super) async fn open(
        &self,
        within: &Within,
        size: u32,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<SessionRawBatchCursor> {
        let db = &self.shared.db;
        let options = RunCursorCommandOptions::builder()
            .batch_size(size)
            .selection_criteria(db.selection_criteria().cloned())
            .build();
        let mut command = match self.order {
            Order::UpdatedSorted | Order::TimeSorted => self.sorted(size),
            Order::Id | Order::Updated | Order::Time => self.find(within),
        };
        command.extend(self.index.as_ref().map(|index| ("hint".to_owned(), index.bson())));
        db.run_cursor_command(command).with_options(options).session(session).batch().await
    }

    fn find(&self, within: &Within) -> Document {
        let Self { scan, route, .. } = self;
        let filter = match (self.order, &route.index) {
            (Order::Id, None) => [dated_or_text(scan.window), route.filter.clone()],
            (Order::Id, Some(_)) => [dated_or_text(scan.window), route.rest_of(scan)],
            _ => [dated(scan.window).unwrap_or_default(), route.filter.clone()],
        };
        let mut command = doc! {
            "find": &*self.shared.layout.collection_of(scan.ty),
            "filter": all(filter),
            "sort": self.sort(),
            "batchSize": FIRST_REPLY,
            "allowDiskUse": true,
        };
        let bounds = [("min", &within.from), ("max", &within.to)];
        command.extend(bounds.into_iter().filter_map(|(name, key)| {
            key.clone().map(|key| (name.to_owned(), Bson::Document(key)))
        }));
        command
    }

    /// The keys of its order, in its direction.
    fn sort(&self) -> Document {
        let keys = match self.order {
            Order::Id => doc! {"_id": 1},
            _ => updated_index(),
        };
        match self.scan.along.is_down() {
            true => keys.into_iter().map(|(name, _)| (name, Bson::Int32(-1))).collect(),
            false => keys,
        }
    }

    /// Every lastUpdated as a date, sorted on the server, on its disk if need be. What has none
    /// stands first, or, within a window, is left out.
    fn sorted(&self, batch_size: u32) -> Document {
        /// A name that no stored member has, for as long as the sort takes.
        const SORT_KEY: &str = "_fhirtail_sort";
        let scan = self.scan;
        let convert = doc! {"$convert": {
            "input": "$meta.lastUpdated", "to": "date", "onError": null, "onNull": null,
        }};
        let mut conditions = Vec::new();
        if self.order == Order::UpdatedSorted {
            conditions.push(doc! {SORT_KEY: {"$type": "date"}});
        }
        conditions.extend(between(scan.window).map(|range| doc! {SORT_KEY: range}));
        if let Some(ScanKey::Updated(ms, _)) = &scan.after {
            conditions.push(doc! {SORT_KEY: {"$gte": DateTime::from_millis(*ms)}});
        }
        let way = if scan.along.is_down() { -1 } else { 1 };
        doc! {
            "aggregate": &*self.shared.layout.collection_of(scan.ty),
            "pipeline": [
                {"$match": self.route.filter.clone()},
                {"$set": {SORT_KEY: convert}},
                {"$match": all(conditions)},
                {"$sort": {SORT_KEY: way, "_id": way}},
                {"$unset": SORT_KEY},
            ],
            "allowDiskUse": true,
            "cursor": {"batchSize": batch_size},
        }
    }
}

/// A part of the index that a scan goes along, in the order of the index.
#[derive(Debug, Clone, Default)]
pub(super) struct Within {
    /// The first key.
    from: Option<Document>,
    /// The first key that is beyond.
    to: Option<Document>,
}

impl Within {
    /// All that a scan has before it; the key that it goes on after may be in. `None`: nothing.
    ///
    /// Whoever names one end of an index is held by nothing at the other: a filter does not bound
    /// what is then read.
    pub(super) fn rest_of(way: &Way<'_>) -> Option<Self> {
        let scan = way.scan;
        let mut within = match way.order {
            Order::Updated | Order::Time => Self::window(scan.window),
            Order::Id if way.route.index.is_none() => Self::default(),
            // Their filters say it.
            Order::Id | Order::UpdatedSorted | Order::TimeSorted => return Some(Self::default()),
        };
        if let Some(key) = &scan.after {
            within.set_begin(scan.along.is_down(), index_key(key));
        }
        let ms =
            |key: &Option<Document>| key.as_ref()?.get_datetime("meta.lastUpdated").ok().copied();
        let is_empty = ms(&within.from).zip(ms(&within.to)).is_some_and(|(from, to)| from >= to);
        (!is_empty).then_some(within)
    }

    /// A window, and in it nothing but dates.
    fn window(window: Window) -> Self {
        let key = |ms, id| doc! {"meta.lastUpdated": DateTime::from_millis(ms), "_id": id};
        if window.is_open() {
            return Self::default();
        }
        let first = || key(i64::MIN, Bson::MinKey);
        let last = || key(i64::MAX, Bson::MaxKey);
        Self {
            from: Some(window.after_ms.map_or_else(first, |ms| key(ms, Bson::MaxKey))),
            to: Some(window.before_ms.map_or_else(last, |ms| key(ms, Bson::MinKey))),
        }
    }

    /// Where it begins, on the way of a scan.
    pub(super) fn begin(&self, down: bool) -> Option<&Document> {
        if down { self.to.as_ref() } else { self.from.as_ref() }
    }

    /// Sets where it begins.
    pub(super) fn set_begin(&mut self, down: bool, key: Document) {
        *if down { &mut self.to } else { &mut self.from } = Some(key);
    }

    /// The same up to another end, if there is one.
    pub(super) fn until(&self, down: bool, end: Option<&Document>) -> Self {
        let mut part = self.clone();
        if let Some(key) = end {
            *if down { &mut part.from } else { &mut part.to } = Some(key.clone());
        }
        part
    }
}

/// A stretch of a scan by id.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Its last key, where a scan can go on after it.
    pub(super) last: Option<ScanKey>,
    /// Where the next begins: the first key beyond it; from the last to the first, its last key.
    pub(super) next: Document,
}

/// The next stretch of so many documents from a key on, as the index alone tells it. `None`: the
/// rest is no longer.
pub(super) async fn stretch(
    shared: &Shared,
    scan: &Scan,
    from: Option<&Document>,
    size: u32,
    session: &mut ClientSession,
) -> mongodb::error::Result<Option<Stretch>> {
    let down = scan.along.is_down();
    let order = doc! {"_id": if down { -1 } else { 1 }};
    let collection = shared.collection(scan.ty);
    let find = collection.find(doc! {}).sort(order).hint(Index::Key.hint());
    let find = find.projection(doc! {"_id": 1}).skip((size - 1).into()).limit(2);
    let find = match (from, down) {
        (Some(key), false) => find.min(key.clone()),
        (Some(key), true) => find.max(key.clone()),
        (None, _) => find,
    };
    let mut cursor = find.session(&mut *session).await?;
    let ends: Vec<RawDocumentBuf> = cursor.stream(session).try_collect().await?;
    let [last, next] = ends.as_slice() else { return Ok(None) };
    // A range has its first key in it and its end not.
    let next = if down { last } else { next };
    Ok(Some(Stretch { last: id_key(last), next: Document::try_from(&**next)? }))
}

/// The key that the `_id` of a document is.
fn id_key(document: &RawDocumentBuf) -> Option<ScanKey> {
    let id = Elements::of(document.as_bytes()).ok()?.find("_id")?;
    Some(KeyRef::Id(head::doc_id(&id)?).to_key())
}

/// The index by lastUpdated, if it is there and has all in its order: it holds no text, which it
/// sorts apart from the dates; and for a scan of all there is, nothing but dates.
async fn index_of_dates(
    shared: &Shared,
    scan: &Scan,
    session: &mut ClientSession,
) -> Result<Option<Index>, StoreError> {
    const ODD: [&str; 16] = [
        "string",
        "symbol",
        "double",
        "int",
        "long",
        "decimal",
        "object",
        "binData",
        "objectId",
        "bool",
        "timestamp",
        "regex",
        "dbPointer",
        "javascript",
        "minKey",
        "maxKey",
    ];
    let odd: &[&str] = if scan.along.is_by_time() { &ODD } else { &ODD[..1] };
    let name = shared.layout.collection_of(scan.ty);
    let indexes = catalog::updated_indexes(&shared.db, &name).await;
    let collection = shared.collection(scan.ty);
    for index in indexes.map_err(|error| errors::plain(&error))? {
        let odd = collection
            .find_one(doc! {"meta.lastUpdated": {"$type": odd}})
            .projection(doc! {"_id": 1})
            .hint(index.hint())
            .session(&mut *session);
        match odd.await {
            Err(error) if errors::is_bad_hint(&error) => {}
            odd => {
                let odd = odd.map_err(|error| errors::in_snapshot(&error))?;
                return Ok(odd.is_none().then_some(index));
            }
        }
    }
    Ok(None)
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
