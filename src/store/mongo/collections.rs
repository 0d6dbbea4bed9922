//! Collections, made before the first write into them: with before-images and the index that
//! history goes along.

use std::collections::BTreeSet;

use mongodb::{
    bson::{Document, doc, serialize_to_bson},
    error::Result,
};

use super::{Shared, catalog::updated_index, connect::durable, errors, layout::DELETED};
use crate::store::{Action, StoreError, Write};

/// Makes the collections that writes need and that are missing.
pub(super) async fn ensure(
    shared: &Shared,
    writes: &[Write],
) -> std::result::Result<(), StoreError> {
    let catalog = shared.catalog();
    let puts = writes.iter().filter(|write| matches!(write.action, Action::Put(_)));
    let missing: BTreeSet<_> =
        puts.map(|write| write.ty).filter(|ty| catalog.get(*ty).is_none()).collect();
    for ty in &missing {
        let made = make(shared, &shared.layout.collection_of(*ty)).await;
        made.map_err(|error| errors::plain(&error))?;
    }
    if !missing.is_empty() {
        shared.refresh_catalog().await?;
    }
    if writes.iter().any(|write| matches!(write.action, Action::Delete)) {
        let made = shared.tombstones.get_or_try_init(|| create(shared, doc! {"create": DELETED}));
        made.await.map_err(|error| errors::plain(&error))?;
    }
    Ok(())
}

async fn make(shared: &Shared, collection: &str) -> Result<()> {
    let mut command = doc! {"create": collection};
    if shared.has_images {
        command.insert("changeStreamPreAndPostImages", doc! {"enabled": true});
    }
    create(shared, command).await?;
    let name = "meta.lastUpdated_1__id_1";
    let index = doc! {"key": updated_index(), "name": name};
    run(shared, doc! {"createIndexes": collection, "indexes": [index]}).await
}

/// Creates a collection, unless another process just did.
async fn create(shared: &Shared, command: Document) -> Result<()> {
    const NAMESPACE_EXISTS: i32 = 48;
    match run(shared, command).await {
        Err(error) if errors::code(&error) == Some(NAMESPACE_EXISTS) => Ok(()),
        other => other,
    }
}

async fn run(shared: &Shared, mut command: Document) -> Result<()> {
    command.insert("writeConcern", serialize_to_bson(&durable())?);
    shared.db.run_command(command).await.map(drop)
}
