//! Scans in which few of many documents are wanted: cut into stretches, each of which is told.

use std::sync::Arc;

use fhirtail::store::{
    Along, Clue, Place, Scan, ScanKey, Snapshot, Sought, Store, Window,
    mongo::{MongoOptions, MongoStore},
};
use mongodb::bson::{DateTime, doc};

use crate::tools::{Bench, bench, ty};

/// Each document is about so large, and a stretch has so many of them.
const BYTES: usize = 10_000;
const STRETCH: usize = 20;
const ALL: usize = 300;

/// Documents of which each hundredth is wanted.
async fn fill(bench: &Bench) {
    let document = |n: usize| {
        let code = if n % 100 == 50 { "wanted" } else { "other" };
        // Many share a time: a stretch also ends among them.
        let updated = DateTime::from_millis(n as i64 / 30 * 1_000);
        let (id, text) = (format!("b{n:03}"), "A".repeat(BYTES));
        doc! {"_id": id, "contentType": code, "meta": {"lastUpdated": updated}, "data": text}
    };
    let binaries = bench.collection("Binary");
    binaries.insert_many((0..ALL).map(document)).await.expect("inserted");
}

/// A snapshot that is read in short stretches.
async fn short_stretches(bench: &Bench) -> Arc<dyn Snapshot> {
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
    fill(&bench).await;
    let snapshot = short_stretches(&bench).await;
    let (found, reached) = walk(&*snapshot, of_code("none")).await;
    assert!(found.is_empty());
    let stretches = ALL / STRETCH;
    assert!((stretches - 2..=stretches + 2).contains(&reached.len()), "{reached:?}");
    assert!(reached.is_sorted(), "{reached:?}");
}

/// Within a window too, along the index by time: from each place the rest is what it is in one go.
#[tokio::test]
async fn a_window_is_cut_into_stretches_too() {
    let Some(bench) = bench().await else { return };
    fill(&bench).await;
    let keys = doc! {"meta.lastUpdated": 1, "_id": 1};
    let index = mongodb::IndexModel::builder().keys(keys).build();
    bench.collection("Binary").create_index(index).await.expect("an index");
    let snapshot = short_stretches(&bench).await;
    let window = Window { after_ms: Some(0), before_ms: Some(9_000) };
    let part = |after| Scan { window, after, ..of_code("wanted") };
    let (found, reached) = walk(&*snapshot, part(None)).await;
    let ids: Vec<_> = found.iter().map(|key| key.doc().to_string()).collect();
    assert_eq!(ids, ["b050", "b150", "b250"]);
    // 240 of 300 lie in the window.
    assert!((10..=14).contains(&reached.len()), "{reached:?}");
    assert!(reached.iter().all(|key| matches!(key, ScanKey::Updated(..))), "{reached:?}");
    assert!(reached.is_sorted(), "{reached:?}");
    for after in reached.iter().chain(&found) {
        let (rest, _) = walk(&*snapshot, part(Some(after.clone()))).await;
        let expected: Vec<_> = found.iter().filter(|key| *key > after).cloned().collect();
        assert_eq!(rest, expected, "after {after:?}");
    }
    let one_go = walk(&*bench.snapshot().await, part(None)).await;
    assert_eq!(one_go, (found, Vec::new()));
}

/// By time nothing can be resumed: a place is none to go on from.
#[tokio::test]
async fn a_scan_by_time_tells_of_no_stretch() {
    let Some(bench) = bench().await else { return };
    fill(&bench).await;
    let keys = doc! {"meta.lastUpdated": 1, "_id": 1};
    let index = mongodb::IndexModel::builder().keys(keys).build();
    let binaries = bench.collection("Binary");
    binaries.create_index(index).await.expect("an index");
    let timeless = |n: usize| doc! {"_id": format!("z{n:03}"), "contentType": "wanted"};
    binaries.insert_many((0..50).map(timeless)).await.expect("inserted");
    let snapshot = short_stretches(&bench).await;
    let (up, reached) = walk(&*snapshot, Scan { along: Along::Updated, ..of_code("wanted") }).await;
    assert_eq!((up.len(), reached.len()), (53, 0));
    let part = Scan { along: Along::UpdatedDown, ..of_code("wanted") };
    let (mut down, reached) = walk(&*snapshot, part).await;
    down.reverse();
    assert_eq!((down, reached.len()), (up, 0));
}
