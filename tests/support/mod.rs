//! What the tests share.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]
#![allow(missing_docs, reason = "the tests are its only users")]

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

pub use app::App;
pub use stream::client;

use std::{
    any::Any,
    path::{Path, PathBuf},
    sync::Arc,
};

use fhirtail::store::{
    Store,
    embedded::{EmbeddedOptions, EmbeddedStore},
    mongo::{MongoOptions, MongoStore},
};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The program, as it was built beside the test.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.ancestors().nth(2).expect("target/profile").join("fhirtail")
}

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
