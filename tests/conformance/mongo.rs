//! MongoDB, as the suite gets it: a database of its own in a replica set.

use std::sync::Arc;

use ::support::mongod::{ReplicaSet, fresh_database, shared};
use async_trait::async_trait;
use fhirtail::store::{
    Store,
    mongo::{MongoOptions, MongoStore},
};
use mongodb::bson::doc;

use crate::support::{Backend, Setup, StoreUnderTest};

struct Database {
    uri: String,
    /// The replica set, where it is this check's own.
    set: Option<ReplicaSet>,
}

/// A store in a database of its own.
pub async fn make(setup: Setup) -> Result<StoreUnderTest, String> {
    const SKIPPED: &str = "the tests on MongoDB are skipped";
    let set = match setup {
        Setup::Plain => None,
        Setup::ShortSnapshots => {
            let set = ReplicaSet::start(1, &[]).await.ok_or(SKIPPED)?;
            set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 0}).await;
            Some(set)
        }
        Setup::SmallLog => {
            return Err("mongod trims its oplog when it sees fit: tests/reset.rs waits".into());
        }
    };
    let uri = match &set {
        Some(set) => set.uri(&fresh_database()),
        None => shared().await.ok_or(SKIPPED)?.uri(&fresh_database()),
    };
    let store = open(&uri).await;
    Ok(StoreUnderTest { store, backend: Box::new(Database { uri, set }) })
}

async fn open(uri: &str) -> Arc<dyn Store> {
    MongoStore::connect(uri, MongoOptions::default()).await.expect("a store")
}

#[async_trait]
impl Backend for Database {
    async fn restart(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        store.close().await;
        open(&self.uri).await
    }

    async fn end(self: Box<Self>) {
        drop(self.set);
    }
}
