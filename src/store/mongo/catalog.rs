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
pub(super) struct Facts {
    /// Pre- and post-images are kept.
    pub(super) images: bool,
    /// It compares strings by a collation, not by their bytes.
    pub(super) collated: bool,
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
pub(super) async fn list(db: &Database, filter: Document) -> Result<mongodb::Cursor<Document>> {
    db.run_cursor_command(doc! {"listCollections": 1, "filter": filter, "cursor": {}}).await
}

fn facts(entry: &Document) -> Facts {
    let options = entry.get_document("options").ok();
    let part = |name: &str| options.and_then(|options| options.get_document(name).ok());
    let images = part("changeStreamPreAndPostImages");
    Facts {
        images: images.is_some_and(|images| images.get_bool("enabled").unwrap_or(false)),
        collated: part("collation").is_some(),
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
pub(super) fn updated_index() -> Document {
    doc! {"meta.lastUpdated": 1, "_id": 1}
}

fn is_updated_index(index: &Document) -> bool {
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
