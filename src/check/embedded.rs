//! An embedded store: opened, looked at, closed.

use std::{path::Path, time::Duration};

use super::findings::Finding;
use crate::{
    store::{
        Store, StoreError,
        embedded::{EmbeddedOptions, EmbeddedStore, OpenError},
    },
    words::bytes,
};

/// All that is to be said of the store in a directory. None is made where there is none.
pub(super) async fn findings(directory: &Path) -> Vec<Finding> {
    let shown = directory.display();
    let Some(size) = EmbeddedStore::file_bytes(directory) else {
        let text = format!("there is no store in {shown} that could be read");
        let mend = format!("fhirtail serve --store {shown}");
        return vec![Finding::fail("store", text).mended_by(mend)];
    };
    let path = directory.to_owned();
    let opening = move || EmbeddedStore::open(&path, EmbeddedOptions::default());
    match tokio::task::spawn_blocking(opening).await {
        Err(broken) => vec![Finding::fail("store", broken.to_string())],
        Ok(Err(error @ OpenError::Locked(_))) => {
            let text = format!("{error}, {}: its server's /readyz tells more", bytes(size));
            vec![Finding::ok("store", text)]
        }
        Ok(Err(error)) => vec![Finding::fail("store", error.to_string())],
        Ok(Ok(store)) => {
            let opened = format!("the embedded store in {shown} opens, {}", bytes(size));
            let findings =
                vec![Finding::ok("store", opened), log(&store).await, file(&store).await];
            store.close().await;
            findings
        }
    }
}

async fn log(store: &EmbeddedStore) -> Finding {
    let epoch = store.epoch().0;
    match span(store).await {
        Ok((_, 0)) => Finding::ok("log", format!("its log, epoch {epoch:08x}, is empty")),
        Ok((oldest, last)) => {
            let text = format!("its log, epoch {epoch:08x}, holds the changes {oldest} to {last}");
            Finding::ok("log", text)
        }
        Err(error) => Finding::fail("log", format!("its log can't be read: {error}")),
    }
}

async fn file(store: &EmbeddedStore) -> Finding {
    match store.verify().await {
        Ok(()) => Finding::ok("file", "each page of its file is what was written last".to_owned()),
        Err(error) => {
            let mend = "put the directory back from a backup, or load the data anew";
            Finding::fail("file", error.to_string()).mended_by(mend.to_owned())
        }
    }
}

async fn span(store: &EmbeddedStore) -> Result<(u64, u64), StoreError> {
    Ok((store.recent(Duration::MAX).await?.time, store.head().await?.time))
}
