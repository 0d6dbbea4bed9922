//! Which collections there are, and what they can tell: a cached listing.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use mongodb::{
    Database,
    bson::{Document, doc},
    error::Result,
};

use super::layout::Layout;
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

/// Whether a collection has a complete index by `meta.lastUpdated`, then `_id`.
pub(super) async fn has_updated_index(db: &Database, collection: &str) -> Result<bool> {
    let command = doc! {"listIndexes": collection, "cursor": {}};
    let mut indexes = db.run_cursor_command(command).await?;
    while let Some(index) = indexes.try_next().await? {
        if is_updated_index(&index) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The keys of that index.
pub(crate) fn updated_index() -> Document {
    doc! {"meta.lastUpdated": 1, "_id": 1}
}

/// Whether it is that index, and holds every document.
pub(crate) fn is_updated_index(index: &Document) -> bool {
    const RESTRICTIONS: [&str; 4] = ["partialFilterExpression", "sparse", "hidden", "collation"];
    let ascends = |key: &mongodb::bson::Bson| {
        key.as_i32().map(f64::from).or(key.as_f64()).or(key.as_i64().map(|key| key as f64))
            == Some(1.0)
    };
    let unrestricted = !RESTRICTIONS.iter().any(|name| index.contains_key(name));
    unrestricted
        && index
            .get_document("key")
            .is_ok_and(|key| key.keys().eq(updated_index().keys()) && key.values().all(ascends))
}
