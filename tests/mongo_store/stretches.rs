//! Scans in which few of many documents are wanted: cut into stretches, each of which is told.

use std::sync::Arc;

use fhirtail::store::{
    Clue, Place, Scan, ScanKey, Snapshot, Sought, Store,
    mongo::{MongoOptions, MongoStore},
};
use mongodb::bson::{DateTime, Document, doc};

use crate::tools::{Bench, bench, ty};

/// Each document is about so large, and a stretch has so many of them.
const BYTES: usize = 10_000;
const STRETCH: usize = 20;
const ALL: usize = 300;

/// Documents of which each hundredth is wanted; and a snapshot that is read in short stretches.
async fn fill(bench: &Bench) -> Arc<dyn Snapshot> {
    let document = |n: usize| {
        let code = if n % 100 == 50 { "wanted" } else { "other" };
        // Many share a time: a stretch also ends among them.
        let updated = DateTime::from_millis(n as i64 / 30 * 1_000);
        let (id, text) = (format!("b{n:03}"), "A".repeat(BYTES));
        doc! {"_id": id, "contentType": code, "meta": {"lastUpdated": updated}, "data": text}
    };
    let binaries = bench.collection("Binary");
    binaries.insert_many((0..ALL).map(document)).await.expect("inserted");
    let stretch_bytes = STRETCH * (BYTES + 150);
    let options = MongoOptions { batch_size: 7, stretch_bytes, ..MongoOptions::default() };
    let store = MongoStore::connect(&bench.set.uri(bench.db.name()), options).await;
    store.expect("a store").snapshot().await.expect("a snapshot")
}

/// What has this code, as far as the server can tell.
fn of_code(code: &str) -> Scan {
    let sought = Place { path: vec!["contentType"], values: vec![Sought::Text(code.into())] };
    Scan { clues: [Clue { places: vec![sought] }].into(), ..Scan::of(ty("Binary")) }
}

/// The keys of what a scan finds, and those that it says it has reached.
async fn walk(snapshot: &dyn Snapshot, scan: Scan) -> (Vec<ScanKey>, Vec<ScanKey>) {
    let (mut found, mut reached) = (Vec::new(), Vec::new());
    let mut batches = snapshot.scan(scan);
    while let Some(batch) = batches.recv().await {
        let mut batch = batch.expect("a batch");
        reached.extend(batch.reached.take());
        found.extend(batch.resources().map(|resource| resource.key));
    }
    (found, reached)
}

#[tokio::test]
async fn a_stretch_of_large_documents_is_short() {
    let Some(bench) = bench().await else { return };
    let snapshot = fill(&bench).await;
    let (found, reached) = walk(&*snapshot, of_code("none")).await;
    assert!(found.is_empty());
    let stretches = ALL / STRETCH;
    assert!((stretches - 2..=stretches + 2).contains(&reached.len()), "{reached:?}");
    assert!(reached.is_sorted(), "{reached:?}");
}
