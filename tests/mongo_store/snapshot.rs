//! Scans: whole, resumed at every key, windowed, by both orders, and too late.

use std::time::{Duration, Instant};

use fhirtail::store::{
    Along, Clue, DocId, Place, Scan, ScanKey, Sought, Store, StoreError, Window,
};
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use support::{
    mongod::{self, ReplicaSet},
    stream::PATIENCE,
};
use tokio::time::timeout;

use crate::tools::{Bench, bench, bench_on, delete, everything, patient, scan, texts, ty};

/// Keys of both kinds, times of all kinds, and what can't be read.
async fn fill(bench: &Bench) {
    let at = |ms: i64| DateTime::from_millis(ms);
    let mut documents: Vec<Document> = (0..20)
        .map(|n| doc! {"_id": format!("p{n}"), "meta": {"lastUpdated": at(n / 2 * 1000)}})
        .collect();
    documents.extend((0..10).map(|n| {
        doc! {"_id": ObjectId::new(), "meta": {"lastUpdated": at(n * 1500)}}
    }));
    documents.push(doc! {"_id": "none"});
    documents.push(doc! {"_id": "null", "meta": {"lastUpdated": null}});
    documents.push(doc! {"_id": 7, "meta": {"lastUpdated": at(3000)}});
    bench.collection("Patient").insert_many(documents).await.expect("inserted");
}

async fn with_texts(bench: &Bench) {
    for (id, text) in [("s1", "1970-01-01T00:00:03.500Z"), ("s2", "1970-01-01T02:00:05+02:00")] {
        bench.insert("Patient", doc! {"_id": id, "meta": {"lastUpdated": text}}).await;
    }
    bench.insert("Patient", doc! {"_id": "s3", "meta": {"lastUpdated": "yesterday"}}).await;
}

async fn index(bench: &Bench) {
    let index = mongodb::IndexModel::builder().keys(doc! {"meta.lastUpdated": 1, "_id": 1});
    bench.collection("Patient").create_index(index.build()).await.expect("an index");
}

fn window(after_ms: i64, before_ms: i64) -> Window {
    Window { after_ms: Some(after_ms), before_ms: Some(before_ms) }
}

/// Scans from every key that a scan gives; each must give exactly the rest.
async fn resumes_anywhere(bench: &Bench, window: Window, first: Option<ScanKey>) -> usize {
    let snapshot = bench.snapshot().await;
    let part = |after| Scan { after, window, ..Scan::of(ty("Patient")) };
    let all = scan(&*snapshot, part(first)).await.expect("a scan");
    for (at, scanned) in all.iter().enumerate() {
        let rest = scan(&*snapshot, part(Some(scanned.key.clone()))).await.expect("a scan");
        assert_eq!(texts(&rest), texts(&all[at + 1..]), "after {:?}", scanned.key);
        assert!(rest.iter().zip(&all[at + 1..]).all(|(a, b)| a.key == b.key));
    }
    all.len()
}

fn start_of_time() -> Option<ScanKey> {
    Some(ScanKey::Updated(i64::MIN / 2, DocId::Text("".into())))
}

#[tokio::test]
async fn a_scan_by_id_resumes_at_every_key() {
    let Some(bench) = bench().await else { return };
    fill(&bench).await;
    with_texts(&bench).await;
    assert_eq!(resumes_anywhere(&bench, Window::default(), None).await, 35);
    // 2 s and 6 s themselves are outside.
    assert_eq!(resumes_anywhere(&bench, window(2000, 6000), None).await, 6 + 2 + 2);
}

#[tokio::test]
async fn a_scan_by_time_resumes_at_every_key_with_and_without_an_index() {
    let Some(bench) = bench().await else { return };
    fill(&bench).await;
    let unindexed = resumes_anywhere(&bench, window(2000, 6000), start_of_time()).await;
    index(&bench).await;
    let snapshot = bench.snapshot().await;
    let part = Scan { window: window(2000, 6000), ..Scan::of(ty("Patient")) };
    let first = scan(&*snapshot, part).await.expect("a scan");
    assert!(matches!(first[0].key, ScanKey::Updated(3000, _)), "{:?}", first[0].key);
    let indexed = resumes_anywhere(&bench, window(2000, 6000), start_of_time()).await;
    with_texts(&bench).await;
    let mixed = resumes_anywhere(&bench, window(2000, 6000), start_of_time()).await;
    assert_eq!((unindexed, indexed, mixed), (8, 8, 10));
    let half_open = Window { after_ms: Some(2000), before_ms: None };
    assert_eq!(resumes_anywhere(&bench, half_open, start_of_time()).await, 14 + 8 + 2);
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was() {
    let Some(bench) = bench().await else { return };
    bench.commit((0..50).map(|n| patient(&n.to_string(), n)).collect()).await.expect("written");
    let snapshot = bench.snapshot().await;
    let before = texts(&scan(&*snapshot, everything("Patient")).await.expect("a scan"));
    assert_eq!(before.len(), 50);
    bench.commit((0..60).map(|n| patient(&n.to_string(), -1)).collect()).await.expect("written");
    bench.write(delete("Patient", "7")).await;
    assert_eq!(texts(&scan(&*snapshot, everything("Patient")).await.expect("a scan")), before);
    let seven = snapshot.read(ty("Patient"), "7").await.expect("read").expect("was there");
    assert!(before.contains(&crate::tools::text(&seven)));
    assert!(snapshot.read(ty("Patient"), "55").await.expect("read").is_none());
    assert_eq!(scan(&*snapshot, everything("Group")).await.expect("a scan").len(), 0);
    let drift = snapshot.instant().duration_since(jiff::Timestamp::now()).abs();
    assert!(drift < jiff::SignedDuration::from_secs(30), "{drift}");
}

#[tokio::test]
async fn views_and_collations() {
    let Some(bench) = bench().await else { return };
    bench.insert("Basic", doc! {"_id": "1"}).await;
    bench.db.create_collection("Patient").view_on("Basic").await.expect("a view");
    let collation = mongodb::options::Collation::builder().locale("de").build();
    bench.db.create_collection("Group").collation(collation).await.expect("a collection");
    let snapshot = bench.snapshot().await;
    assert_eq!(scan(&*snapshot, everything("Patient")).await.expect("a scan").len(), 0);
    let refused = scan(&*snapshot, everything("Group")).await.expect_err("an order of its own");
    assert!(refused.to_string().contains("collation"), "{refused}");
}

#[tokio::test]
async fn a_dropped_receiver_ends_the_scan_and_its_cursor() {
    let Some(bench) = bench().await else { return };
    bench.commit((0..200).map(|n| patient(&n.to_string(), n)).collect()).await.expect("written");
    let snapshot = bench.snapshot().await;
    let mut batches = snapshot.scan(everything("Patient"));
    batches.recv().await.expect("a batch").expect("resources");
    // One that is being taken up is in neither of the server's lists for a moment.
    let open = async { while open_cursors(&bench).await != 1 {} };
    timeout(PATIENCE, open).await.expect("a cursor");
    drop(batches);
    let start = Instant::now();
    while open_cursors(&bench).await > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "the cursor stays open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn open_cursors(bench: &Bench) -> usize {
    let namespace = format!("{}.Patient", bench.db.name());
    mongod::cursors(&bench.client, doc! {"ns": namespace}).await.len()
}

#[tokio::test]
async fn a_snapshot_that_is_too_old_says_so() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let set: &'static ReplicaSet = Box::leak(Box::new(set));
    let bench = bench_on(set).await;
    bench.commit((0..200).map(|n| patient(&n.to_string(), n)).collect()).await.expect("written");
    let snapshot = bench.snapshot().await;
    let mut open = snapshot.scan(everything("Patient"));
    open.recv().await.expect("a batch").expect("resources");
    set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 1}).await;
    let start = Instant::now();
    // Only writes move the window on.
    for n in 0.. {
        bench.write(patient("w", n)).await;
        match scan(&*snapshot, everything("Patient")).await {
            Err(StoreError::SnapshotExpired) => break,
            Err(other) => panic!("{other}"),
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(60), "it never expires"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(snapshot.read(ty("Patient"), "1").await, Err(StoreError::SnapshotExpired)));
    let mut end = None;
    while let Some(batch) = open.recv().await {
        end = batch.err();
    }
    assert!(matches!(end, Some(StoreError::SnapshotExpired)), "{end:?}");
    let again = bench.store.snapshot().await.expect("a new one");
    assert_eq!(scan(&*again, everything("Patient")).await.expect("a scan").len(), 201);
}

#[tokio::test]
async fn what_has_no_snapshots_is_refused_for_good() {
    let Some(bench) = bench().await else { return };
    bench.db.create_collection("Patient").capped(true).size(4096_u64).await.expect("capped");
    bench.insert("Patient", doc! {"_id": "1"}).await;
    let snapshot = bench.snapshot().await;
    let part = Scan::of(ty("Patient"));
    let error = scan(&*snapshot, part).await.expect_err("refused");
    assert!(matches!(&error, StoreError::Failed(why) if why.contains("capped")), "{error:?}");
}

/// A drop, once it is written, is so for each instant: no reader may take that for a failure.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_since_is_read_as_empty() {
    let Some(bench) = bench().await else { return };
    bench.write(patient("a", 1)).await;
    let snapshot = bench.snapshot().await;
    bench.collection("Patient").drop().await.expect("dropped");
    let sought = Place { path: vec!["gender"], values: vec![Sought::Text("other".into())] };
    let of_gender = [Clue { places: vec![sought] }].into();
    let by_time = ScanKey::Updated(0, DocId::Text("a".into()));
    for asked in [
        everything("Patient"),
        Scan { clues: of_gender, ..everything("Patient") },
        Scan { window: window(0, i64::MAX), ..everything("Patient") },
        Scan { after: Some(by_time), ..everything("Patient") },
        Scan { along: Along::Updated, ..everything("Patient") },
    ] {
        let found = scan(&*snapshot, asked.clone()).await.expect("a scan");
        assert!(found.is_empty(), "{asked:?}");
    }
}
