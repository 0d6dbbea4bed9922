//! Snapshot, then log: exact while everybody writes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fhirtail::{
    position::LogPosition,
    store::{
        Change, ChangeKind, Store, StoreError, WriteError,
        mongo::{MongoOptions, MongoStore},
    },
};
use mongodb::{
    Database,
    bson::{DateTime, doc},
    options::ReturnDocument,
};
use support::{
    mongod::{ReplicaSet, fresh_database},
    stream::PATIENCE,
};
use tokio::time::timeout;

use crate::tools::{Bench, Replica, apply, bench, copy, delete, open, patient, read_to};

const TYPES: [&str; 2] = ["Patient", "Group"];

/// Our own writer: transactions of creates, updates and deletes, with images.
async fn write_ours(bench: Arc<Bench>, writer: i32, stop: Arc<AtomicBool>) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let id = |k: i32| format!("{}", (n * 7 + k * 13 + writer) % 40);
        let mut writes: Vec<_> = (0..3).map(|k| patient(&id(k), n)).collect();
        writes.push(delete("Patient", &id(3)));
        writes.sort_by(|a, b| a.id.cmp(&b.id));
        writes.dedup_by(|a, b| a.id == b.id);
        bench.commit(writes).await.expect("committed");
    }
}

/// A foreign one: inserts, `$set`, deletes in a collection without images.
async fn write_foreign(db: Database, writer: i32, stop: Arc<AtomicBool>) {
    let groups = db.collection::<mongodb::bson::Document>("Group");
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let key = doc! {"_id": format!("{}", (n * 11 + writer) % 30)};
        let now = DateTime::now();
        if n % 5 == 0 {
            groups.delete_one(key).await.expect("deleted");
        } else if n % 7 == 0 {
            let replaced = groups.replace_one(key, doc! {"n": n, "writer": writer}).upsert(true);
            replaced.await.expect("replaced");
        } else {
            let set = doc! {"$set": {"n": n, "writer": writer, "meta.lastUpdated": now}};
            let update = groups.find_one_and_update(key, set).upsert(true);
            update.return_document(ReturnDocument::After).await.expect("updated");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_and_changes_make_a_copy() {
    let Some(bench) = bench().await else { return };
    let bench = Arc::new(bench);
    bench.write(patient("0", 0)).await;
    bench.insert("Group", doc! {"_id": "0"}).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..2 {
        writers.push(tokio::spawn(write_ours(bench.clone(), writer, stop.clone())));
        writers.push(tokio::spawn(write_foreign(bench.db.clone(), writer, stop.clone())));
    }
    let mut copies = Vec::new();
    for _ in 0..4 {
        let snapshot = bench.snapshot().await;
        copies.push((copy(&*snapshot, &TYPES).await, snapshot.position()));
        let written = until_written(&bench, snapshot.position(), 20);
        timeout(PATIENCE, written).await.expect("in time");
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    let end = copy(&*bench.snapshot().await, &TYPES).await;
    let head = bench.head().await;
    for (mut replica, position) in copies {
        let mut reader = bench.changes(position).await;
        let (changes, _) = read_to(&mut *reader, head).await;
        for change in &changes {
            check(&replica, change);
            apply(&mut replica, change);
        }
        assert_eq!(replica, end);
    }
}

/// Until there are more than so many changes after a position.
async fn until_written(bench: &Bench, position: LogPosition, count: usize) {
    loop {
        let mut reader = bench.changes(position).await;
        let (changes, _) = read_to(&mut *reader, bench.head().await).await;
        if changes.len() > count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// No version twice; no create of what is there; no delete of what is not.
fn check(replica: &Replica, change: &Change) {
    match &change.kind {
        ChangeKind::Upsert { ty, id, json, .. } => {
            let there = replica.get(&(*ty, id.to_string()));
            assert_ne!(there.map(String::as_bytes), Some(&json[..]), "twice: {change:?}");
        }
        ChangeKind::Delete { ty, id, .. } if ty.name() == "Patient" => {
            assert!(replica.contains_key(&(*ty, id.to_string())), "{change:?}");
        }
        _ => {}
    }
}

/// Our own writer that survives a failover: what it is told was not written it writes again.
async fn write_on(store: Arc<MongoStore>, stop: Arc<AtomicBool>) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let writes = || (0..3).map(|k| patient(&format!("{}", (n + k) % 40), n)).collect();
        while let Err(error) = store.commit(writes()).await {
            assert!(matches!(error, WriteError::Store(StoreError::Unavailable(_))), "{error:?}");
        }
    }
}

/// Reads to `head`, whatever becomes of the servers meanwhile.
async fn read_on(
    store: &MongoStore,
    start: LogPosition,
    mut head: impl FnMut() -> Option<LogPosition>,
) -> Vec<Change> {
    let (mut seen, mut level) = (Vec::new(), start);
    let give_up = Instant::now() + Duration::from_secs(90);
    while head().is_none_or(|head| level.time <= head.time) {
        assert!(Instant::now() < give_up, "never level");
        let Ok(mut reader) = store.changes(level).await else { continue };
        while let Ok(batch) = reader.next().await {
            seen.extend(batch.changes);
            level = batch.level;
            if head().is_some_and(|head| level.time >= head.time && batch.quiet) {
                return seen;
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_loses_and_repeats_nothing() {
    let Some(set) = ReplicaSet::start(3, &[]).await else { return };
    let name = fresh_database();
    let store = open(&set, &name).await;
    let start = store.snapshot().await.expect("a snapshot").position();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_on(store.clone(), stop.clone()));
    let (told, end) = tokio::sync::watch::channel(None);
    let reading = store.clone();
    let reader = tokio::spawn(async move { read_on(&reading, start, || *end.borrow()).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let old = set.primary().await;
    set.nodes[old].kill();
    let deadline = Instant::now() + Duration::from_secs(60);
    let before = loop {
        if let Ok(head) = store.head().await {
            break head;
        }
        assert!(Instant::now() < deadline, "no new primary");
    };
    let is_later = |head: LogPosition| head.time >> 32 >= (before.time >> 32) + 2;
    while !store.head().await.is_ok_and(is_later) {
        assert!(Instant::now() < deadline, "no writes after the failover");
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
    let snapshot = store.snapshot().await.expect("a snapshot");
    let whole = copy(&*snapshot, &TYPES).await;
    told.send_replace(Some(snapshot.position()));
    let seen = reader.await.expect("the reader");
    let mut replica = Replica::new();
    for change in &seen {
        check(&replica, change);
        apply(&mut replica, change);
    }
    assert_eq!(replica, whole);
    // Another process that only knows the others reads the same log.
    let other =
        MongoStore::connect(&set.uri(&name), MongoOptions::default()).await.expect("a store");
    assert_eq!(other.epoch(), store.epoch());
    let again = read_on(&other, start, || Some(snapshot.position())).await;
    let place = |change: &Change| change.position;
    assert!(again.iter().map(place).eq(seen.iter().map(place)));
}
