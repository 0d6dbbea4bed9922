//! What the tests share.
#![allow(dead_code, unreachable_pub, reason = "no one test file uses all of it")]

pub mod app;
pub mod chaos;
pub mod converge;
pub mod replica;
pub mod stream;
pub mod writes;

pub use app::App;
pub use stream::client;

use std::{any::Any, sync::Arc};

use fhirtail::store::{
    Store,
    embedded::{EmbeddedOptions, EmbeddedStore},
};

/// A store of a test's own, with what must outlive it.
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub keep: Box<dyn Any + Send>,
}

/// An embedded store in a folder of its own.
pub fn embedded() -> Bench {
    embedded_with(EmbeddedOptions::default())
}

pub fn embedded_with(options: EmbeddedOptions) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let store = EmbeddedStore::open(folder.path(), options).expect("a store");
    Bench { store, keep: Box::new(folder) }
}
