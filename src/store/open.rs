//! From the text that names a store to the store.

use std::{path::PathBuf, sync::Arc};

use super::{Store, StoreError, embedded, mongo};

/// How the name of a MongoDB store begins.
pub const MONGODB_SCHEMES: [&str; 2] = ["mongodb://", "mongodb+srv://"];

/// Opens the store that a text names: `mongodb://…` or `mongodb+srv://…` is MongoDB, anything
/// else the directory of an embedded store.
///
/// # Errors
/// One clear line.
pub async fn open(
    named: &str,
    options: embedded::EmbeddedOptions,
) -> Result<Arc<dyn Store>, OpenError> {
    if MONGODB_SCHEMES.iter().any(|scheme| named.starts_with(scheme)) {
        let store = mongo::MongoStore::connect(named, mongo::MongoOptions::default()).await?;
        return Ok(store);
    }
    if named.contains("://") {
        return Err(OpenError::Unknown(named.split("://").next().unwrap_or_default().to_owned()));
    }
    let path = PathBuf::from(named);
    let opened =
        tokio::task::spawn_blocking(move || embedded::EmbeddedStore::open(&path, options)).await;
    match opened {
        Ok(store) => Ok(store?),
        Err(broken) => Err(StoreError::Failed(broken.to_string()).into()),
    }
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The embedded store.
    #[error(transparent)]
    Embedded(#[from] embedded::OpenError),
    /// MongoDB.
    #[error(transparent)]
    Mongo(#[from] mongo::ConnectError),
    /// Neither.
    #[error("a store is a directory, mongodb://… or mongodb+srv://…, not {0}://…")]
    Unknown(String),
    /// It opened, and failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
