//! Which collections there are, and what they can tell: a cached listing.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use mongodb::{
    Database,
    bson::{Bson, Document, doc},
    error::Result,
    options::Hint,
};

use super::{errors, layout::Layout};
use crate::fhir::ResourceType;

/// What is known of a collection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Pre- and post-images are kept.
    pub(crate) images: bool,
    /// It compares strings by a collation, not by their bytes.
    pub(crate) collated: bool,
    /// It forgets its oldest documents by itself.
    pub(crate) capped: bool,
}

impl Facts {
    /// Why its resources can't be read as of one instant, in key order; `None`: they can.
    pub(super) fn obstacle(self) -> Option<&'static str> {
        match (self.collated, self.capped) {
            (true, _) => Some("has a collation, in whose order nothing can be resumed"),
            // The server calls it SnapshotUnavailable, at every instant.
            (_, true) => Some("is capped, and MongoDB reads no such collection as of one instant"),
            _ => None,
        }
    }
}

/// The collections that hold resources. Views and time series are none.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalog(BTreeMap<ResourceType, Facts>);

impl Catalog {
    /// Asks the server.
    pub(super) async fn read(db: &Database, layout: &Layout) -> Result<Self> {
        let mut collections = list(db, doc! {"type": "collection"}).await?;
        let mut catalog = BTreeMap::new();
        while let Some(entry) = collections.try_next().await? {
            if let Some(ty) = entry.get_str("name").ok().and_then(|name| layout.type_of(name)) {
                catalog.insert(ty, facts(&entry));
            }
        }
        Ok(Self(catalog))
    }

    /// What is known of a type's collection; `None`: there is none.
    pub(super) fn get(&self, ty: ResourceType) -> Option<Facts> {
        self.0.get(&ty).copied()
    }
}

/// Lists collections.
pub(crate) async fn list(db: &Database, filter: Document) -> Result<mongodb::Cursor<Document>> {
    db.run_cursor_command(doc! {"listCollections": 1, "filter": filter, "cursor": {}}).await
}

/// What an entry of a listing tells.
pub(crate) fn facts(entry: &Document) -> Facts {
    let options = entry.get_document("options").ok();
    let part = |name: &str| options.and_then(|options| options.get_document(name).ok());
    let images = part("changeStreamPreAndPostImages");
    Facts {
        images: images.is_some_and(|images| images.get_bool("enabled").unwrap_or(false)),
        collated: part("collation").is_some(),
        capped: options.is_some_and(|options| options.get_bool("capped").unwrap_or(false)),
    }
}

/// What the server knows an index by.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Index {
    /// That of `_id`: no other has its keys, whatever it is named.
    Key,
    /// Another. There may be several of the same keys.
    Named(String),
}

impl Index {
    /// An index of a listing.
    pub(super) fn of(listed: &Document) -> Option<Self> {
        listed.get_str("name").ok().map(|name| Self::Named(name.into()))
    }

    /// As the driver wants it.
    pub(super) fn hint(&self) -> Hint {
        match self {
            Self::Key => Hint::Keys(doc! {"_id": 1}),
            Self::Named(name) => Hint::Name(name.clone()),
        }
    }

    /// As a command wants it.
    pub(super) fn bson(&self) -> Bson {
        match self {
            Self::Key => doc! {"_id": 1}.into(),
            Self::Named(name) => name.as_str().into(),
        }
    }
}

/// The indexes of a collection, those that are still built among them; none of one that is gone.
pub(crate) async fn indexes(db: &Database, collection: &str) -> Result<Vec<Document>> {
    const NAMESPACE_NOT_FOUND: i32 = 26;
    let command = doc! {"listIndexes": collection, "cursor": {}};
    match db.run_cursor_command(command).await {
        Err(error) if errors::code(&error) == Some(NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
        listed => listed?.try_collect().await,
    }
}

/// The complete indexes of a collection by `meta.lastUpdated`, then `_id`; of which some may still
/// be built.
pub(super) async fn updated_indexes(db: &Database, collection: &str) -> Result<Vec<Index>> {
    let indexes = indexes(db, collection).await?;
    Ok(indexes.iter().filter(|index| is_updated_index(index)).filter_map(Index::of).collect())
}

/// The keys of such an index.
pub(crate) fn updated_index() -> Document {
    doc! {"meta.lastUpdated": 1, "_id": 1}
}

/// Whether it is that index, and holds every document.
pub(crate) fn is_updated_index(index: &Document) -> bool {
    let ascends = |key: &Bson| direction(key) == Some(1.0);
    is_complete(index)
        && index
            .get_document("key")
            .is_ok_and(|key| key.keys().eq(updated_index().keys()) && key.values().all(ascends))
}

/// Whether an index holds every document, and orders texts by their bytes.
pub(crate) fn is_complete(index: &Document) -> bool {
    const RESTRICTIONS: [&str; 4] = ["partialFilterExpression", "sparse", "hidden", "collation"];
    !RESTRICTIONS.iter().any(|name| index.contains_key(name))
}

/// Which way a key of an index goes: 1 or -1. `None`: its order is none of values.
pub(crate) fn direction(key: &Bson) -> Option<f64> {
    let number = key.as_i32().map(f64::from).or(key.as_f64());
    let number = number.or(key.as_i64().map(|key| key as f64))?;
    (number != 0.0).then(|| number.signum())
}

/// The complete indexes that begin with a member, first those on which `_id` follows.
pub(crate) fn indexes_of<'i>(indexes: &'i [Document], path: &str) -> Vec<&'i Document> {
    let is_ordered = |key: &Bson| direction(key).is_some();
    let begins = |index: &&Document| {
        index.get_document("key").is_ok_and(|keys| {
            keys.keys().next().is_some_and(|name| name == path) && keys.values().all(is_ordered)
        })
    };
    let complete = indexes.iter().filter(|index| is_complete(index));
    let mut all: Vec<_> = complete.filter(begins).collect();
    all.sort_by_key(|index| !is_by_key(index));
    all
}

/// Whether `_id` follows on the one member of an index.
pub(super) fn is_by_key(index: &Document) -> bool {
    index.get_document("key").is_ok_and(|keys| keys.keys().skip(1).eq(["_id"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_on_which_the_key_follows_is_the_first() {
        let index = |key: Document| doc! {"v": 2, "key": key, "name": "x"};
        let plain = index(doc! {"a.b": 1});
        let keyed = index(doc! {"a.b": -1, "_id": 1.0});
        let others = [
            index(doc! {"c": 1, "a.b": 1}),
            index(doc! {"a.b": "hashed"}),
            doc! {"key": {"a.b": 1, "_id": 1}, "partialFilterExpression": {"x": 1}},
            doc! {"key": {"a.b": 1, "_id": 1}, "hidden": true},
        ];
        assert!(indexes_of(&others, "a.b").is_empty());
        let mut all = others.to_vec();
        all.extend([plain.clone(), keyed.clone()]);
        assert_eq!(indexes_of(&all, "a.b"), [&keyed, &plain]);
        assert!(indexes_of(&[keyed], "a").is_empty());
    }
}
