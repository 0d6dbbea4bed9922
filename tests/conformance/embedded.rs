//! The embedded store, as the suite gets it.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use fhirtail::store::{
    Store,
    embedded::{EmbeddedOptions, EmbeddedStore},
};
use tempfile::TempDir;

use crate::support::{Backend, Setup, StoreUnderTest};

struct Directory {
    directory: TempDir,
    options: EmbeddedOptions,
}

/// A store in a directory of its own.
pub async fn make(setup: Setup) -> Result<StoreUnderTest, String> {
    let mut options = EmbeddedOptions::default();
    match setup {
        Setup::Plain => {}
        Setup::ShortSnapshots => options.snapshot_life = Duration::from_millis(500),
        Setup::SmallLog => options.log_bytes = 10_000,
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), &options).await;
    Ok(StoreUnderTest { store, backend: Box::new(Directory { directory, options }) })
}

async fn open(path: &Path, options: &EmbeddedOptions) -> Arc<dyn Store> {
    let (path, options) = (path.to_owned(), options.clone());
    let open = move || EmbeddedStore::open(&path, options).expect("a store");
    tokio::task::spawn_blocking(open).await.expect("opened")
}

#[async_trait]
impl Backend for Directory {
    async fn restart(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        store.close().await;
        open(self.directory.path(), &self.options).await
    }

    async fn end(self: Box<Self>) {
        self.directory.close().expect("the directory goes");
    }
}
