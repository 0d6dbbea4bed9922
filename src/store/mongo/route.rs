//! Which way a narrowed scan goes: along an index where one leads to what is wanted, else along
//! the keys, and the server passes on what may be wanted.
//!
//! A scan has an order. Along `{member: 1, _id: 1}` what has one value of the member stands in the
//! order of `_id`; what has others is sorted by the server, and that only where there is little of it.

use std::iter::once;

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Document, doc},
};

use super::{
    Shared,
    catalog::{self, Index},
    decode, errors,
    narrow::{At, Narrowing},
};
use crate::store::{DocId, Scan, StoreError};

/// Of how many documents the server may have to sort what an index leads to.
const FEW: u32 = 10_000;
/// How many values MongoDB reads along an index side by side, each in the order of `_id`.
const MOST_MERGED: usize = 200;

/// Which way a scan goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Route {
    /// Along which index; `None`: that of the scan's order.
    pub(super) index: Option<Index>,
    /// What the server is to pass on.
    pub(super) filter: Document,
}

impl Route {
    /// What the clues and the indexes allow.
    pub(super) async fn choose(
        shared: &Shared,
        scan: &Scan,
        session: &mut ClientSession,
    ) -> Result<Self, StoreError> {
        let narrowings: Vec<_> = scan.clues.iter().map(Narrowing::of).collect();
        let mut route = Self { index: None, filter: all(narrowings.iter().map(Narrowing::filter)) };
        let alone = || narrowings.iter().enumerate().filter_map(|(n, one)| Some((n, one.alone()?)));
        if alone().any(|(_, at)| at.is_key()) {
            route.index = Some(Index::Key);
        }
        if route.index.is_some() || alone().next().is_none() {
            return Ok(route);
        }
        let collection = shared.layout.collection_of(scan.ty);
        let indexes = catalog::indexes(&shared.db, &collection).await;
        let indexes = indexes.map_err(|error| errors::plain(&error))?;
        let mut least = u32::MAX;
        for (n, at) in alone() {
            let indexes = catalog::indexes_of(&indexes, &at.path);
            let first = Probe::first(shared, scan, &indexes, at, session).await?;
            let Some((probe, count)) = first else { continue };
            let filter = match count {
                FEW.. if probe.streams(at, session).await? => at.of_points(),
                FEW.. => continue,
                _ => at.filter(),
            };
            if count < least {
                least = count;
                let others = narrowings.iter().enumerate().filter(|(other, _)| *other != n);
                let others = others.map(|(_, narrowing)| narrowing.filter());
                route = Self { index: Some(probe.index), filter: all(once(filter).chain(others)) };
            }
        }
        Ok(route)
    }

    /// The filter, for what lies beyond the key that the scan goes on after.
    pub(super) fn rest_of(&self, scan: &Scan) -> Document {
        let after = scan.after.as_ref().map(|key| beyond(key.doc(), scan.along.is_down()));
        all([self.filter.clone()].into_iter().chain(after))
    }
}

/// What passes all of these.
pub(super) fn all(filters: impl IntoIterator<Item = Document>) -> Document {
    let mut filters: Vec<_> = filters.into_iter().filter(|filter| !filter.is_empty()).collect();
    match filters.len() {
        0 => Document::new(),
        1 => filters.remove(0),
        _ => doc! {"$and": filters},
    }
}

/// The keys that a scan has not passed. A comparison is true of one type alone, and ObjectIds
/// stand behind texts.
fn beyond(after: &DocId, down: bool) -> Document {
    let key = decode::key(after);
    match (after, down) {
        (DocId::Text(_), false) => doc! {"_id": {"$not": {"$lte": key}}},
        (DocId::Text(_), true) => doc! {"_id": {"$lt": key}},
        (DocId::Oid(_), false) => doc! {"_id": {"$gt": key}},
        (DocId::Oid(_), true) => doc! {"_id": {"$not": {"$gte": key}}},
    }
}

/// Asks an index, as of the snapshot.
struct Probe<'p> {
    shared: &'p Shared,
    scan: &'p Scan,
    listed: &'p Document,
    index: Index,
}

impl<'p> Probe<'p> {
    /// The first index that is there, and how many documents it leads to, counted up to [`FEW`].
    async fn first(
        shared: &'p Shared,
        scan: &'p Scan,
        indexes: &[&'p Document],
        at: &At,
        session: &mut ClientSession,
    ) -> Result<Option<(Self, u32)>, StoreError> {
        for listed in indexes {
            let Some(index) = Index::of(listed) else { continue };
            let probe = Self { shared, scan, listed, index };
            if let Some(count) = probe.count(at.filter(), FEW, session).await? {
                return Ok(Some((probe, count)));
            }
        }
        Ok(None)
    }

    /// How many documents pass, counted up to a limit. `None`: the index is not there.
    async fn count(
        &self,
        filter: Document,
        limit: u32,
        session: &mut ClientSession,
    ) -> Result<Option<u32>, StoreError> {
        let pipeline = [doc! {"$match": filter}, doc! {"$limit": limit}, doc! {"$count": "n"}];
        let collection = self.shared.collection(self.scan.ty);
        let counted = collection.aggregate(pipeline);
        let counted = counted.hint(self.index.hint()).session(&mut *session).await;
        let mut counted = match counted {
            Err(error) if errors::is_bad_hint(&error) => return Ok(None),
            counted => counted.map_err(|error| errors::in_snapshot(&error))?,
        };
        let counts: Vec<Document> = counted
            .stream(session)
            .try_collect()
            .await
            .map_err(|error| errors::in_snapshot(&error))?;
        Ok(Some(
            counts.first().and_then(|count| count.get_i32("n").ok()).map_or(0, i32::unsigned_abs),
        ))
    }

    /// Whether the index gives all of it in the order of the scan.
    async fn streams(&self, at: &At, session: &mut ClientSession) -> Result<bool, StoreError> {
        let in_order = catalog::is_by_key(self.listed) && !self.scan.along.is_by_time();
        if !in_order || at.points.is_empty() || at.points.len() > MOST_MERGED {
            return Ok(false);
        }
        match at.beside_points() {
            None => Ok(true),
            Some(others) => Ok(self.count(others, 1, session).await? == Some(0)),
        }
    }
}
