//! A file that is not what was written: cut, torn, overwritten in part.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use fhirtail::{
    position::LogPosition,
    store::{
        Store, StoreError,
        embedded::{EmbeddedOptions, EmbeddedStore, OpenError},
    },
};

use crate::{FILE, fresh, open, support::*};

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

/// Does something to a page.
type Damage = fn(&mut [u8]);
const DAMAGES: [Damage; 2] =
    [|page| page.fill(0), |page| page.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x15)];

/// All is there, or it is said that it is not: a store never serves less without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_or_overwritten_is_refused_or_whole() {
    let images = images().await;
    let pages = images.ended.len() / PAGE;
    let (mut refused, mut whole) = (0, 0);
    for n in (0..pages).step_by(pages / 40) {
        let cut = &images.ended[..n * PAGE];
        assert_eq!(said_of(cut).await, None, "cut after page {n}");
        for damage in DAMAGES {
            let mut file = images.ended.clone();
            damage(&mut file[n * PAGE..(n + 1) * PAGE]);
            match said_of(&file).await {
                None => refused += 1,
                Some(said) => {
                    assert!(said == images.said, "page {n}");
                    whole += 1;
                }
            }
        }
    }
    // Pages that nothing holds any more, and others.
    assert!(refused > 10 && whole > 10, "{refused} refused, {whole} whole");
}

/// The pages of the last commits are there in part, as when the power fails: what is there is the
/// state after one of the commits, the last or the one before it, or it is said that it is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_commit_is_there_wholly_or_not_at_all() {
    let images = images().await;
    let (_, log) = &images.said;
    let pages = images.older.len() / PAGE;
    let mut whole = 0;
    for n in (0..pages).step_by(pages / 40) {
        let mut file = images.killed.clone();
        let page = n * PAGE..(n + 1) * PAGE;
        file[page.clone()].copy_from_slice(&images.older[page]);
        let Some((resources, changes)) = said_of(&file).await else { continue };
        whole += 1;
        assert!(changes == log[..log.len() - 1] || changes == *log, "page {n}");
        assert_eq!(resources.0.len(), images.said.0.0.len(), "page {n}");
    }
    assert!(whole > 10, "{whole} whole");
}

/// Pages that were put back from an older copy, in a file that was closed in order: opening it
/// believes them, `fhirtail check` does not.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_an_older_copy_are_found_by_a_check() {
    let images = images().await;
    let pages = images.older.len().min(images.ended.len()) / PAGE;
    let page = |n: usize| n * PAGE..(n + 1) * PAGE;
    let other = |n: &usize| images.ended[page(*n)] != images.older[page(*n)];
    let others: Vec<usize> = (0..pages).filter(other).collect();
    let (mut found, mut whole) = (0, 0);
    for n in others.iter().copied().step_by(others.len().div_ceil(40)) {
        let mut file = images.ended.clone();
        file[page(n)].copy_from_slice(&images.older[page(n)]);
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(FILE), &file).expect("a file");
        let checked = Command::new(env!("CARGO_BIN_EXE_fhirtail"))
            .args(["check", "--store"])
            .arg(directory.path())
            .output()
            .expect("the binary");
        let told = String::from_utf8(checked.stdout).expect("text");
        match checked.status.code() {
            Some(0) => {
                assert!(said_of(&file).await.as_ref() == Some(&images.said), "page {n}: {told}");
                whole += 1;
            }
            _ => {
                assert!(told.contains("damaged"), "page {n}: {told}");
                found += 1;
            }
        }
    }
    assert!(found > 5 && whole > 1, "{found} found, {whole} whole");
}

/// What the server says of such a file is one line.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_told_in_a_line() {
    let images = images().await;
    let mut files: Vec<Vec<u8>> = vec![Vec::new(), images.ended[..PAGE].to_vec()];
    let pages = images.ended.len() / PAGE;
    for n in (0..pages).step_by(pages / 40) {
        let mut file = images.ended.clone();
        file[n * PAGE..(n + 1) * PAGE].fill(0);
        files.push(file);
    }
    let mut told = 0;
    for file in files {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(FILE), &file).expect("a file");
        if let Ok(store) = EmbeddedStore::open(directory.path(), EmbeddedOptions::default()) {
            store.close().await;
            continue;
        }
        let refused = Command::new(env!("CARGO_BIN_EXE_fhirtail"))
            .args(["serve", "--listen", "127.0.0.1:0", "--store"])
            .arg(directory.path())
            .output()
            .expect("the binary");
        let said = String::from_utf8(refused.stderr).expect("text");
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("is damaged") && said.lines().count() == 1, "{said}");
        told += 1;
    }
    assert!(told > 2, "{told}");
}

/// A backup is put in the place of a store that is open. What it lacks, clients have: to go on from it
/// would give the numbers of those changes to others.
#[tokio::test]
async fn a_backup_in_the_place_of_an_open_store() {
    let (directory, store) = fresh(EmbeddedOptions::default());
    let (path, aside) = (directory.path().join(FILE), directory.path().join("aside"));
    commit(&store, patient("a", 1)).await;
    store.close().await;
    let backup = std::fs::read(&path).expect("the file");
    let store = open(directory.path(), EmbeddedOptions::default());
    commit(&store, patient("a", 2)).await;
    let head = store.head().await.expect("an end");
    std::fs::rename(&path, &aside).expect("moved");
    std::fs::write(&path, backup).expect("written");
    // By this the store finds out.
    store.commit(vec![patient("b", 1)]).await.expect_err("another file is in its place");
    let said = until(&store, |said| !matches!(said, Err(StoreError::Unavailable(_)))).await;
    assert!(matches!(&said, Err(StoreError::Failed(why)) if why.contains("lacks")), "{said:?}");
    std::fs::rename(&aside, &path).expect("moved back");
    let said = until(&store, Result::is_ok).await;
    assert_eq!(said.expect("an end"), head);
    commit(&store, patient("b", 1)).await;
    store.close().await;
}

/// What a store says of its end, once that is something of the kind.
async fn until(
    store: &Arc<dyn Store>,
    is_it: impl Fn(&Result<LogPosition, StoreError>) -> bool,
) -> Result<LogPosition, StoreError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let said = store.head().await;
        if is_it(&said) {
            return said;
        }
        assert!(Instant::now() < deadline, "{said:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
