//! What the tests share.
#![allow(dead_code, unreachable_pub, reason = "no one test file uses all of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

pub mod altered;
pub mod app;
pub mod certificate;
pub mod chaos;
pub mod converge;
pub mod foreign;
pub mod front;
pub mod http2;
pub mod logged;
pub mod mongod;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod replica;
pub mod sparse;
pub mod stream;
pub mod watched;
pub mod writes;

#[allow(unused_imports, reason = "not every test file serves")]
pub use app::App;
#[allow(unused_imports, reason = "not every test file asks")]
pub use stream::client;

use std::{any::Any, path::PathBuf, sync::Arc};

use fhirtail::store::{
    Store,
    embedded::{EmbeddedOptions, EmbeddedStore},
    mongo::{MongoOptions, MongoStore},
};

/// A store of a test's own, with what must outlive it.
pub struct Bench {
    pub store: Arc<dyn Store>,
    /// How another process names it.
    pub name: String,
    pub keep: Box<dyn Any + Send>,
}

/// A database of its own in the replica set that this process's tests share. `None`: skipped.
pub async fn mongo() -> Option<Bench> {
    Some(mongo_in(mongod::shared().await?).await)
}

pub async fn mongo_in(set: &mongod::ReplicaSet) -> Bench {
    let name = set.uri(&mongod::fresh_database());
    let store = MongoStore::connect(&name, MongoOptions::default()).await.expect("a store");
    Bench { store, name, keep: Box::new(()) }
}

/// An embedded store in a folder of its own.
pub fn embedded() -> Bench {
    embedded_with(EmbeddedOptions::default())
}

pub fn embedded_with(options: EmbeddedOptions) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let store = EmbeddedStore::open(folder.path(), options).expect("a store");
    let name = PathBuf::from(folder.path()).display().to_string();
    Bench { store, name, keep: Box::new(folder) }
}
