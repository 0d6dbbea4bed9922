//! The raw driver cursor: batches as they come from MongoDB, nothing decoded, nothing sent on.

use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use mongodb::{
    Client,
    bson::{Document, doc},
};
use serde::{Deserialize, Serialize};

use crate::role::{self, Role};

/// The name of this role.
pub(crate) const ROLE: &str = "cursor";

/// Which database.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) uri: String,
    /// By `_id`, as a scan goes that can be resumed; else as the documents lie.
    pub(crate) by_id: bool,
}

/// What it has read.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ReadAll {
    pub(crate) documents: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// Reads the collection once, in a process of its own.
pub(crate) async fn read(spec: &Spec) -> Result<ReadAll> {
    Role::start(ROLE, spec)?.answer().await
}

/// Plays the role.
pub(crate) fn run(spec: &Spec) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let read = runtime.block_on(read_all(spec))?;
    role::say(&read)
}

async fn read_all(spec: &Spec) -> Result<ReadAll> {
    let client = Client::with_uri_str(&spec.uri).await?;
    let database = client.default_database().context("a database")?;
    let documents = database.collection::<Document>("Observation");
    // The connection is there before the clock starts.
    database.run_command(doc! {"ping": 1}).await?;
    let start = Instant::now();
    let find = documents.find(doc! {});
    let find = if spec.by_id { find.sort(doc! {"_id": 1}) } else { find };
    let mut batches = find.batch().await?;
    let (mut count, mut bytes) = (0, 0);
    while let Some(batch) = batches.next().await {
        for document in batch?.doc_slices()? {
            count += 1;
            bytes += document?.as_document().map_or(0, |document| document.as_bytes().len() as u64);
        }
    }
    Ok(ReadAll { documents: count, bytes, seconds: start.elapsed().as_secs_f64() })
}
