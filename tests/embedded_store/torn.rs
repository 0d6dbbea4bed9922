//! A file that is not what was written: cut, torn, overwritten in part.

use std::{path::Path, sync::Arc};

use fhirtail::{
    position::LogPosition,
    store::{
        Store,
        embedded::{EmbeddedOptions, EmbeddedStore, OpenError},
    },
};

use crate::{FILE, fresh, support::*};

const PAGE: usize = 4096;

/// Everything that a store says: resources, and changes.
async fn all(store: &Arc<dyn Store>) -> (Replica, Vec<String>) {
    let snapshot = store.snapshot().await.expect("a snapshot");
    let resources = Replica::of(&*snapshot, &["Patient"]).await;
    (resources, outline(&changes_since(store, LogPosition::default()).await))
}

/// A store's file as it is after an orderly end, after a kill, and a few commits before that; and
/// what it says.
struct Images {
    ended: Vec<u8>,
    killed: Vec<u8>,
    older: Vec<u8>,
    said: (Replica, Vec<String>),
}

async fn images() -> Images {
    let (directory, store) = fresh(EmbeddedOptions::default());
    let read = || std::fs::read(directory.path().join(FILE)).expect("the file");
    let text = "x".repeat(900);
    let mut older = Vec::new();
    for n in 0..300 {
        let member = format!(r#""language":"{text}-{n}""#);
        commit(&store, put("Patient", &format!("p{}", n % 200), &member)).await;
        if n == 280 {
            older = read();
        }
    }
    let (killed, said) = (read(), all(&store).await);
    store.close().await;
    Images { ended: read(), killed, older, said }
}

/// What becomes of the file, `None` where it says itself that it is damaged.
async fn said_of(file: &[u8]) -> Option<(Replica, Vec<String>)> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(FILE), file).expect("a file");
    let store: Arc<dyn Store> =
        match EmbeddedStore::open(directory.path(), EmbeddedOptions::default()) {
            Ok(store) => store,
            Err(OpenError::Damaged(..)) => return None,
            Err(other) => panic!("{other}"),
        };
    let reader = store.clone();
    // Whatever fails there was told by the store.
    let said = tokio::spawn(async move { all(&reader).await }).await.ok();
    store.close().await;
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn experiment() {
    let images = images().await;
    for (name, image) in [("ended", &images.ended), ("killed", &images.killed)] {
        let pages = image.len() / PAGE;
        eprintln!(
            "{name}: {pages} pages; whole {}",
            said_of(image).await.as_ref() == Some(&images.said)
        );
        for damage in ["cut", "zeroed", "garbled", "older"] {
            let (mut same, mut refused, mut silent) = (0, 0, Vec::new());
            for n in (0..pages).step_by(pages / 60) {
                let mut file = image.clone();
                let page = n * PAGE..(n + 1) * PAGE;
                match damage {
                    "cut" => file.truncate(n * PAGE),
                    "zeroed" => file[page].fill(0),
                    "garbled" => file[page].iter_mut().step_by(97).for_each(|byte| *byte ^= 0x15),
                    _ if page.end > images.older.len() => continue,
                    _ => file[page.clone()].copy_from_slice(&images.older[page]),
                }
                match said_of(&file).await {
                    None => refused += 1,
                    Some(said) if said == images.said => same += 1,
                    Some(_) => silent.push(n),
                }
            }
            eprintln!("{name} {damage}: same {same}, refused {refused}, silent {silent:?}");
        }
    }
}
