//! What the embedded store alone promises: groups of commits, a clock that may lie, a log that
//! ends, a file that does not grow for ever, clear words where it can't be opened.

#![allow(
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "the modules of one test program; a test that meets the unexpected fails"
)]

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fhirtail::{
    position::LogPosition,
    store::{
        Expect, Scan, ScanKey, Store, StoreError, Window, WriteError,
        embedded::{EmbeddedOptions, EmbeddedStore, OpenError, Stopwatch},
    },
};
use jiff::Timestamp;
use tempfile::TempDir;

use self::support::*;

#[path = "embedded_store/crash.rs"]
mod crash;
#[allow(dead_code, reason = "shared with the conformance suite")]
#[path = "conformance/support.rs"]
mod support;
#[path = "embedded_store/torn.rs"]
mod torn;

const FILE: &str = "fhirtail.redb";

fn open(path: &Path, options: EmbeddedOptions) -> Arc<dyn Store> {
    EmbeddedStore::open(path, options).expect("a store")
}

fn fresh(options: EmbeddedOptions) -> (TempDir, Arc<dyn Store>) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), options);
    (directory, store)
}

/// A clock that stands where it is put (ms since 1970).
fn hand_set() -> (Arc<AtomicI64>, EmbeddedOptions) {
    let hand = Arc::new(AtomicI64::new(0));
    let shown = hand.clone();
    let clock = move || Timestamp::from_millisecond(shown.load(Ordering::SeqCst)).expect("a time");
    (hand, EmbeddedOptions { clock: Arc::new(clock), ..Default::default() })
}

const DAY: i64 = 24 * 3_600 * 1_000;

/// Shows what has passed (ms).
fn stopwatch(passed: &Arc<AtomicI64>) -> Stopwatch {
    let shown = passed.clone();
    Arc::new(move || Duration::from_millis(shown.load(Ordering::SeqCst).unsigned_abs()))
}

#[tokio::test]
async fn commits_that_wait_share_one_transaction_and_fail_alone() {
    const COMMITS: usize = 200;
    // The writer asks for the time once for each commit, and what has passed once for each
    // transaction; it stands in the first until all the others wait.
    let transactions = Arc::new(AtomicUsize::new(0));
    let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, gate) = (asked.clone(), go.clone());
    let clock = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        while !gate.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Timestamp::now()
    };
    let counted = transactions.clone();
    let stopwatch = move || Duration::from_secs(counted.fetch_add(1, Ordering::SeqCst) as u64);
    let (clock, stopwatch) = (Arc::new(clock), Arc::new(stopwatch));
    let (_directory, store) = fresh(EmbeddedOptions { clock, stopwatch, ..Default::default() });
    let one = |n: usize| {
        let store = store.clone();
        let writes = match n {
            // One of them can't be.
            77 => vec![patient("77", 0), expecting(Expect::Version(5), patient("0", 77))],
            n => vec![patient(&n.to_string(), n), patient("last", n)],
        };
        tokio::spawn(async move { store.commit(writes).await })
    };
    let commits: Vec<_> = (0..COMMITS).map(one).collect();
    // One thread runs all tasks: each has handed its commit over once it was polled.
    for _ in 0..COMMITS {
        tokio::task::yield_now().await;
    }
    go.store(true, Ordering::SeqCst);
    for (n, commit) in commits.into_iter().enumerate() {
        match commit.await.expect("a task") {
            Ok(written) => assert_eq!(written.len(), 2),
            Err(WriteError::Conflict { index: 1, found: Some(1) }) if n == 77 => {}
            Err(other) => panic!("commit {n}: {other:?}"),
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), COMMITS);
    // And once when it was opened.
    assert_eq!(transactions.load(Ordering::SeqCst), 2, "one transaction");
    let changes = changes_since(&store, LogPosition::default()).await;
    assert_eq!(changes.len(), 2 * (COMMITS - 1));
    let mut replica = Replica::default();
    changes.iter().for_each(|change| replica.apply(change));
    assert_eq!(replica, Replica::of(&*store.snapshot().await.expect("one"), &["Patient"]).await);
    store.close().await;
}

#[tokio::test]
async fn a_lying_clock_moves_times_and_nothing_else() {
    let (hand, options) = hand_set();
    let (_directory, store) = fresh(options);
    let write = async |id: &str, ms: i64| {
        hand.store(ms, Ordering::SeqCst);
        commit(&store, patient(id, ms.unsigned_abs() as usize)).await
    };
    for (id, ms) in
        [("a", 5_000), ("b", 9_000), ("c", 1_000), ("d", -7_000), ("e", 250_000_000_000_000)]
    {
        assert_eq!(write(id, ms).await.last_updated.as_millisecond(), ms);
    }
    let snapshot = store.snapshot().await.expect("a snapshot");
    let by_time =
        Scan { window: Window { after_ms: Some(i64::MIN), before_ms: None }, ..whole("Patient") };
    let scanned = scan(&*snapshot, by_time.clone()).await;
    let ids: Vec<String> = scanned.iter().map(|found| id_of(&found.json)).collect();
    assert_eq!(ids, ["d", "c", "a", "b", "e"]);
    assert!(scanned.iter().all(|found| matches!(found.key, ScanKey::Updated(..))));

    // A new version of long ago and one of the far future: the scan from "a" on can't show the
    // first, so the log has to.
    write("b", 2_000).await;
    write("c", 6_000).await;
    hand.store(3_000, Ordering::SeqCst);
    let updated = commit(&store, delete("Patient", "e")).await;
    assert_eq!(updated.version, 2);
    let changes = changes_since(&store, snapshot.position()).await;
    let mut replica = Replica::of(&*snapshot, &["Patient"]).await;
    changes.iter().for_each(|change| replica.apply(change));
    let now = store.snapshot().await.expect("a snapshot");
    assert_eq!(replica, Replica::of(&*now, &["Patient"]).await);
    let after = Some(scanned[2].key.clone());
    let rest = scan(&*now, Scan { after, ..by_time }).await;
    assert_eq!(rest.iter().map(|found| id_of(&found.json)).collect::<Vec<_>>(), ["c"]);

    assert_eq!(oldest(&store).await, 1, "no position is lost");
    for back in [0, 1, 10, 1 << 40] {
        let position = store.recent(Duration::from_secs(back)).await.expect("a position");
        changes_since(&store, position).await;
    }
    store.close().await;
}

/// The oldest position that the log honours.
async fn oldest(store: &Arc<dyn Store>) -> u64 {
    let last = store.head().await.expect("a head").time;
    for seq in 1..=last {
        match store.changes(LogPosition::before(seq)).await {
            Ok(_) => return seq,
            Err(StoreError::PositionLost(why)) => assert!(why.contains(&seq.to_string()), "{why}"),
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the newest change always stays");
}

#[tokio::test]
async fn the_log_keeps_its_bytes() {
    let options = EmbeddedOptions { log_bytes: 50_000, ..Default::default() };
    let (directory, store) = fresh(options.clone());
    let padding = format!(r#""language":"{}""#, "x".repeat(1_000));
    for n in 0..300 {
        commit(&store, put("Patient", &n.to_string(), &padding)).await;
    }
    let from = oldest(&store).await;
    // Each row: a little more than 1,100 bytes.
    assert!((300 - 50..=300 - 40).contains(&from), "{from}");
    assert_eq!(changes_since(&store, LogPosition::before(from)).await.len() as u64, 301 - from);
    store.close().await;

    // The count goes on after a restart; one change larger than the log still is its end.
    let store = open(directory.path(), options);
    assert_eq!(oldest(&store).await, from);
    let head = start(&store).await;
    commit(&store, put("Patient", "big", &format!(r#""language":"{}""#, "x".repeat(200_000))))
        .await;
    assert_eq!(oldest(&store).await, 301);
    assert_eq!(changes_since(&store, head).await.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_bound_below_one_commit_takes_nothing_from_who_follows() {
    let (_directory, store) = fresh(EmbeddedOptions { log_bytes: 1, ..Default::default() });
    for round in 1..=3 {
        let head = start(&store).await;
        let mut reader = Reader::after(&store, head).await.expect("a reader");
        let writes = (0..10).map(|n| patient(&n.to_string(), round)).collect();
        store.commit(writes).await.expect("a commit");
        let changes = reader.until(store.head().await.expect("a head")).await;
        assert_eq!(changes.len(), 10);
    }
    // All else is over the bound.
    assert_eq!(oldest(&store).await, 21);
    store.close().await;
}

/// Whoever loads knows nothing of the bounds by which the store is served.
#[tokio::test]
async fn a_load_leaves_the_log_as_it_is() {
    let passed = Arc::new(AtomicI64::new(0));
    let options = EmbeddedOptions {
        log_age: Duration::from_secs(30 * 24 * 3_600),
        stopwatch: stopwatch(&passed),
        ..Default::default()
    };
    let (directory, store) = fresh(options.clone());
    for day in 0..20 {
        passed.store(day * DAY, Ordering::SeqCst);
        commit(&store, patient("a", day as usize)).await;
    }
    store.close().await;
    let file = directory.path().join("b.ndjson");
    std::fs::write(&file, r#"{"resourceType":"Basic","id":"b"}"#).expect("written");
    let mut load = Command::new(env!("CARGO_BIN_EXE_fhirtail"));
    let loaded = load.args(["load", "--to"]).args([directory.path(), &file]).output();
    let loaded = loaded.expect("the binary");
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));

    let store = open(directory.path(), options);
    assert_eq!(store.head().await.expect("a head").time, 21, "it is loaded");
    assert_eq!(oldest(&store).await, 1);
    // Who serves it trims it by its own bounds.
    passed.fetch_add(25 * DAY, Ordering::SeqCst);
    commit(&store, patient("a", 20)).await;
    let from = oldest(&store).await;
    assert!((2..=21).contains(&from), "{from}");
    store.close().await;
}

#[tokio::test]
async fn the_log_keeps_its_age() {
    let (hand, mut options) = hand_set();
    let passed = Arc::new(AtomicI64::new(0));
    options.stopwatch = stopwatch(&passed);
    let (directory, store) = fresh(options.clone());
    for day in 0..12 {
        hand.store(day * DAY, Ordering::SeqCst);
        passed.store(day * DAY, Ordering::SeqCst);
        commit(&store, patient("a", day as usize)).await;
    }
    // The twelfth was written on day 11: days 4 to 11 stay.
    assert_eq!(oldest(&store).await, 5);
    let week = store.recent(Duration::from_secs(3 * 24 * 3_600)).await.expect("a position");
    assert_eq!(changes_since(&store, week).await.len(), 4);
    let all = store.recent(Duration::from_secs(90 * 24 * 3_600)).await.expect("a position");
    assert_eq!(changes_since(&store, all).await.len(), 8);
    store.close().await;

    // A restart with a clock that is wrong by a month, and it is put right: nothing of that is age.
    hand.store(41 * DAY, Ordering::SeqCst);
    let store = open(directory.path(), options.clone());
    commit(&store, patient("a", 12)).await;
    assert_eq!(oldest(&store).await, 5);
    hand.store(12 * DAY, Ordering::SeqCst);
    commit(&store, patient("a", 13)).await;
    assert_eq!(oldest(&store).await, 5);
    // What was written in the meantime does not stay for the month.
    for day in 13..22 {
        hand.store(day * DAY, Ordering::SeqCst);
        passed.fetch_add(DAY, Ordering::SeqCst);
        commit(&store, patient("a", day as usize)).await;
    }
    // Numbers 12 to 14 are of the eleventh day that passed, 15 is of the 13th. This is the 20th.
    assert_eq!(oldest(&store).await, 15);
    store.close().await;

    // Wrong again, and wrong still when the store is opened once more.
    hand.store(90 * DAY, Ordering::SeqCst);
    for n in 22..24 {
        let store = open(directory.path(), options.clone());
        commit(&store, patient("a", n)).await;
        assert_eq!(oldest(&store).await, 15);
        store.close().await;
    }
    // Days without a write are days all the same.
    let store = open(directory.path(), options);
    passed.fetch_add(8 * DAY, Ordering::SeqCst);
    commit(&store, patient("a", 24)).await;
    assert_eq!(oldest(&store).await, store.head().await.expect("a head").time);
    store.close().await;
}

/// Replaces the content of the store a few times; gives the length of the file.
async fn churn(store: &Arc<dyn Store>, directory: &TempDir, rounds: usize) -> u64 {
    let padding = "x".repeat(4_000);
    for round in 0..rounds {
        let members = format!(r#""language":"{round}{padding}{}""#, round % 2);
        let writes = (0..300).map(|n| put("Patient", &n.to_string(), &members)).collect();
        store.commit(writes).await.expect("a commit");
    }
    std::fs::metadata(directory.path().join(FILE)).expect("the file").len()
}

#[tokio::test]
async fn an_expired_snapshot_gives_its_pages_back() {
    const ROUNDS: usize = 16;
    let grown = async |life: Duration, await_expiry: bool| {
        let (directory, store) =
            fresh(EmbeddedOptions { snapshot_life: life, log_bytes: 1, ..Default::default() });
        churn(&store, &directory, 4).await;
        // A client that takes nothing of what it asked for; nothing else holds the snapshot.
        let stalled = store.snapshot().await.expect("a snapshot").scan(whole("Patient"));
        let later = store.snapshot().await.expect("a snapshot");
        let deadline = Instant::now() + PATIENCE;
        while await_expiry && later.read(ty("Patient"), "1").await.is_ok() {
            assert!(Instant::now() < deadline, "it never expires");
            tokio::task::yield_now().await;
        }
        let length = churn(&store, &directory, ROUNDS).await;
        drop((later, stalled));
        store.close().await;
        length
    };
    let held = grown(Duration::from_secs(3_600), false).await;
    let released = grown(Duration::from_millis(100), true).await;

    assert!(released * 2 < held, "{released} bytes, and {held} while a snapshot is held");
}

#[tokio::test]
async fn a_waiting_reader_hears_of_a_commit_at_once() {
    let (_directory, store) = fresh(EmbeddedOptions::default());
    let mut reader = Reader::after(&store, start(&store).await).await.expect("a reader");
    let mut waited = Vec::new();
    for n in 0..40 {
        let next = tokio::spawn({
            let mut waiting = reader;
            async move {
                while waiting.next().await.expect("a batch").changes.is_empty() {}
                waiting
            }
        });
        commit(&store, patient("a", n)).await;
        let committed = Instant::now();
        reader = next.await.expect("a reader");
        waited.push(committed.elapsed());
    }
    // A reader that only asked from time to time would wait for most of 250 ms, each time.
    waited.sort();
    assert!(waited[20] < Duration::from_millis(125), "{waited:?}");
    store.close().await;
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (directory, store) = fresh(EmbeddedOptions::default());
    commit(&store, patient("a", 1)).await;
    let snapshot = store.snapshot().await.expect("a snapshot");
    let mut reader = Reader::after(&store, start(&store).await).await.expect("a reader");
    store.close().await;
    store.close().await;

    let refused = store.commit(vec![patient("b", 1)]).await;
    assert!(matches!(refused, Err(WriteError::Store(StoreError::Unavailable(_)))), "{refused:?}");
    assert!(matches!(store.head().await, Err(StoreError::Unavailable(_))));
    let read = snapshot.read(ty("Patient"), "a").await;
    assert!(matches!(read, Err(StoreError::SnapshotExpired)), "{read:?}");
    let (none, error) = scan_until_end(&*snapshot, whole("Patient")).await;
    assert!(none.is_empty() && matches!(error, Some(StoreError::SnapshotExpired)), "{error:?}");
    assert!(matches!(reader.next().await, Err(StoreError::Unavailable(_))));
    // Whoever still holds it keeps nobody from opening it again.
    open(directory.path(), EmbeddedOptions::default()).close().await;
}

fn refusal(path: &Path) -> OpenError {
    let error = EmbeddedStore::open(path, EmbeddedOptions::default()).expect_err("no store");
    let line = error.to_string();
    assert!(!line.contains('\n') && line.contains(&*path.to_string_lossy()), "{line}");
    error
}

#[tokio::test]
async fn what_can_not_be_opened_is_told_in_a_line() {
    let (directory, store) = fresh(EmbeddedOptions::default());
    let file = directory.path().join(FILE);
    assert!(matches!(refusal(directory.path()), OpenError::Locked(_)));
    commit(&store, patient("a", 1)).await;
    store.close().await;
    assert!(matches!(refusal(&file), OpenError::NotADirectory(_)));
    assert!(matches!(refusal(&file.join("below")), OpenError::NotADirectory(_)));
    // Nobody, not even root, makes a directory there.
    assert!(matches!(refusal(Path::new("/sys/fhirtail")), OpenError::NoPermission(_)));

    let whole = std::fs::read(&file).expect("the file");
    let middle = whole.len() / 2;
    std::fs::write(&file, &whole[..middle]).expect("cut");
    assert!(matches!(refusal(directory.path()), OpenError::Damaged(..)));
    std::fs::write(&file, b"this is no store, whatever its name says").expect("overwritten");
    assert!(matches!(refusal(directory.path()), OpenError::Damaged(..)));

    std::fs::write(&file, &whole).expect("restored");
    set_meta(&file, "format", 2);
    assert!(matches!(refusal(directory.path()), OpenError::NewerFormat { found: 2, .. }));
    set_meta(&file, "format", 1);
    open(directory.path(), EmbeddedOptions::default()).close().await;
}

fn set_meta(file: &Path, name: &str, value: u64) {
    let db = redb::Database::open(file).expect("the file");
    let txn = db.begin_write().expect("a transaction");
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    txn.open_table(meta).expect("the table").insert(name, value).expect("a row");
    txn.commit().expect("a commit");
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_directory_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path().join("a/b");
    let store = open(&path, EmbeddedOptions::default());
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o077, 0);
    assert!(store.describe().ends_with("/a/b"));
    store.close().await;
}

#[tokio::test]
async fn every_store_is_another_epoch() {
    let (_one, first) = fresh(EmbeddedOptions::default());
    let (_two, second) = fresh(EmbeddedOptions::default());
    assert_ne!(first.epoch(), second.epoch());
    first.close().await;
    second.close().await;
}
