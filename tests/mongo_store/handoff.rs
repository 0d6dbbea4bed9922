//! Snapshot, then log: exact while everybody writes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fhirtail::store::ChangeKind;
use mongodb::{
    Database,
    bson::{DateTime, doc},
    options::ReturnDocument,
};

use crate::tools::{Bench, apply, bench, copy, delete, patient, read_to};

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
        tokio::time::sleep(Duration::from_millis(300)).await;
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
        assert!(changes.len() > 20, "{}", changes.len());
        for change in &changes {
            check(&replica, change);
            apply(&mut replica, change);
        }
        assert_eq!(replica, end);
    }
}

/// No version twice; no create of what is there; no delete of what is not.
fn check(replica: &crate::tools::Replica, change: &fhirtail::store::Change) {
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
