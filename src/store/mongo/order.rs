//! In which order a scan goes, and the commands that read along it.

use mongodb::{
    ClientSession,
    bson::{Bson, DateTime, Document, doc},
    options::RunCursorCommandOptions,
    raw_batch_cursor::SessionRawBatchCursor,
};

use super::{
    Shared,
    catalog::{self, Index, updated_index},
    errors,
    route::{Route, all},
    stretch::Within,
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
    pub(super) shared: &'s Shared,
    pub(super) scan: &'s Scan,
    pub(super) route: Route,
    pub(super) order: Order,
    /// `None`: what the server chooses, and sorts.
    pub(super) index: Option<Index>,
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

    /// Whether the server may have to search or to sort, and nothing bounds for how long.
    pub(super) fn searches(&self) -> bool {
        match self.order {
            Order::Id => self.route.index.is_some(),
            Order::Updated | Order::Time => false,
            Order::UpdatedSorted | Order::TimeSorted => true,
        }
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

    /// The keys of its order.
    pub(super) fn keys(&self) -> Document {
        match self.order {
            Order::Id => doc! {"_id": 1},
            _ => updated_index(),
        }
    }

    /// The same in its direction.
    pub(super) fn sort(&self) -> Document {
        let keys = self.keys();
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
