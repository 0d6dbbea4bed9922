//! Snapshots that are too short for their reader: the history goes on in newer ones.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

#[path = "expiry/late.rs"]
mod late;
#[path = "expiry/lines.rs"]
mod lines;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use fhirtail::{
    position::Position,
    store::{
        Scan, Store, StoreError,
        embedded::EmbeddedOptions,
        mongo::{MongoOptions, MongoStore},
    },
};
use serde_json::json;
use support::{
    app::App,
    chaos::{Dice, stamp},
    converge::{self, LAST, write_last},
    replica::{Replica, contents},
    stream::{EventStream, PATIENCE, client},
    writes::{commit, delete, put, ty},
};

const RESOURCES: usize = 6_000;

/// A resource of 8 KB: two thirds of the whole are more than sockets and batches hold.
fn large(n: usize) -> serde_json::Value {
    let text = format!("{} {}", stamp(), "x".repeat(8_000));
    json!({"resourceType": "Basic", "id": format!("b{n:05}"), "code": {"text": text}})
}

async fn populate(store: &dyn Store) {
    for chunk in (0..RESOURCES).collect::<Vec<_>>().chunks(200) {
        commit(store, chunk.iter().map(|n| put(&large(*n))).collect()).await;
    }
}

/// Rewrites and deletes all over while the reader reads.
async fn keep_changing(store: Arc<dyn Store>, until: tokio_util::sync::CancellationToken) {
    let mut dice = Dice(3);
    while !until.is_cancelled() {
        let n = dice.below(RESOURCES);
        let write = match dice.roll(4) {
            0 => delete("Basic", &format!("b{n:05}")),
            _ => put(&large(n)),
        };
        commit(store.as_ref(), vec![write]).await;
        // Changes enough for every snapshot, and a log that can be replayed in no time.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes what nobody here reads: only writes move MongoDB's window on.
async fn keep_moving(store: Arc<dyn Store>, until: tokio_util::sync::CancellationToken) {
    let patient = || put(&json!({"resourceType": "Patient", "id": "w", "language": stamp()}));
    while !until.is_cancelled() {
        commit(store.as_ref(), vec![patient()]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a snapshot taken now, and so every older one, can't be read any more.
async fn until_snapshots_expire(store: &dyn Store) {
    let (snapshot, started) = (store.snapshot().await.expect("a snapshot"), Instant::now());
    loop {
        let scan = Scan::of(ty("Basic"));
        match snapshot.scan(scan).recv().await {
            Some(Err(StoreError::SnapshotExpired)) => return,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() < PATIENCE, "the snapshot does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads a history, and stops at its first resource and at a later one until snapshots have
/// expired under it; then its copy is the database.
async fn read_slowly(store: Arc<dyn Store>) {
    populate(store.as_ref()).await;
    let app = App::start(store.clone()).await;
    let done = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn(keep_changing(store.clone(), done.clone()));
    let mut stream = EventStream::open(&app.url("/fhir/$export?_type=Basic,Patient"), None).await;
    let mut replica = Replica::default();
    let mut snapshots = HashSet::new();
    let (mut scanned, mut reached) = (0, None);
    while !replica.caught_up {
        let event = stream.event().await.expect("the stream goes on");
        replica.take(&event);
        let position: Position = event.id.parse().expect("a position");
        // A replay moves the place in the log; a scan moves its key, at its snapshot's place.
        if position.scan.is_some() && position.scan != reached {
            snapshots.insert(position.log.time);
            reached = position.scan;
            scanned += 1;
            if [1, RESOURCES / 4].contains(&scanned) {
                until_snapshots_expire(store.as_ref()).await;
            }
        }
    }
    done.cancel();
    writer.await.expect("the writer");
    assert!(snapshots.len() >= 3, "only {} snapshots were read", snapshots.len());
    write_last(store.as_ref()).await;
    while !replica.copy.contains_key(LAST) {
        replica.take(&stream.event().await.expect("the stream goes on"));
    }
    assert_eq!(replica.resets, 0);
    let database = contents(store.as_ref(), &["Basic", "Patient"]).await;
    let client = tokio::spawn(async move { replica });
    converge::assert_equal(vec![client], &database).await;
}

/// Reads the head of a search, waits until snapshots have expired under it, and reads on. The ids,
/// or `None` where it was broken off.
async fn searched_slowly(app: &App, store: &dyn Store, query: &str) -> Option<Vec<String>> {
    let request = client().get(app.url(&format!("/fhir/Basic?{query}")));
    let request = request.header("Accept", "application/fhir+ndjson");
    let mut response = request.send().await.expect("an answer");
    assert!(response.status().is_success());
    let mut lines = response.chunk().await.expect("a chunk").expect("lines").to_vec();
    until_snapshots_expire(store).await;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => lines.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(_) => return None,
        }
    }
    let id = |line: &str| {
        let resource: serde_json::Value = serde_json::from_str(line).expect("JSON");
        resource["id"].as_str().expect("an id").to_owned()
    };
    Some(std::str::from_utf8(&lines).expect("UTF-8").lines().map(id).collect())
}

/// By id a search goes on in newer snapshots; by time it is broken off, and never half a result
/// with an end.
async fn search_slowly(store: Arc<dyn Store>) {
    populate(store.as_ref()).await;
    let app = App::start(store.clone()).await;
    let mut ids: Vec<_> = (0..RESOURCES).map(|n| format!("b{n:05}")).collect();
    for query in ["", "_sort=_id", "_lastUpdated=ge2000"] {
        assert!(searched_slowly(&app, store.as_ref(), query).await == Some(ids.clone()), "{query}");
    }
    ids.reverse();
    assert!(searched_slowly(&app, store.as_ref(), "_sort=-_id").await == Some(ids));
    for query in ["_sort=_lastUpdated", "_sort=-_lastUpdated"] {
        assert_eq!(searched_slowly(&app, store.as_ref(), query).await, None, "{query}");
    }
}

fn short_lived() -> support::Bench {
    let life = Duration::from_millis(300);
    support::embedded_with(EmbeddedOptions { snapshot_life: life, ..EmbeddedOptions::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    read_slowly(short_lived().store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_of_embedded() {
    search_slowly(short_lived().store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_of_mongodb() {
    use mongodb::bson::doc;
    let Some(set) = support::mongod::ReplicaSet::start(1, &[]).await else { return };
    set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 2}).await;
    let bench = support::mongo_in(&set).await;
    let done = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn(keep_moving(bench.store.clone(), done.clone()));
    search_slowly(bench.store).await;
    done.cancel();
    writer.await.expect("the writer");
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    use mongodb::bson::doc;
    let Some(set) = support::mongod::ReplicaSet::start(1, &[]).await else { return };
    set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 2}).await;
    let bench = support::mongo_in(&set).await;
    read_slowly(bench.store).await;
}

/// Patient a's versions up to the last write, as a stream gives them.
async fn versions(app: &App, after: &str) -> Vec<String> {
    let mut stream =
        EventStream::open(&app.url("/fhir/$export?_type=Patient,Basic"), Some(after)).await;
    let events = stream.until_that(|event| event.data.contains("\"last\"")).await;
    assert!(events.iter().all(|event| event.event != "reset"), "{events:?}");
    let of_a = events.into_iter().filter(|event| event.event == "Patient");
    of_a.map(|event| event.data).collect()
}

/// Updates without images, whose documents are read when they can no longer be read as of then: each
/// who comes back, from before the first, from between two or from behind both, has what is there,
/// and has it once. By the tail, and by a lane.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb_updates_that_are_read_late() {
    use mongodb::bson::{Document, doc};
    let Some(set) = support::mongod::ReplicaSet::start(1, &[]).await else { return };
    let name = set.uri(&support::mongod::fresh_database());
    // Small replies: two updates are not of one.
    let options = MongoOptions { batch_size: 7, ..MongoOptions::default() };
    let open = async || MongoStore::connect(&name, options.clone()).await.expect("a store");
    let store = open().await;
    let client = mongodb::Client::with_uri_str(&name).await.expect("a client");
    let database = client.default_database().expect("a database");
    let patients = database.collection::<Document>("Patient");
    patients.insert_one(doc! {"_id": "a", "language": "0"}).await.expect("inserted");
    let app = App::start(open().await).await;
    let mut stream = EventStream::open(&app.url("/fhir/$export?_type=Patient,Basic"), None).await;
    let mut ids = vec![stream.until("caught-up").await.pop().expect("an event").id];
    for language in ["1", "2"] {
        let set = doc! {"$set": {"language": language}};
        patients.update_one(doc! {"_id": "a"}, set).await.expect("updated");
        for n in 0..20 {
            let basic =
                json!({"resourceType": "Basic", "id": format!("b{n}"), "language": language});
            commit(&*store, vec![put(&basic)]).await;
        }
        let events = stream.until_that(|event| event.data.contains("\"b19\"")).await;
        ids.push(events.last().expect("an event").id.clone());
    }
    commit(&*store, vec![put(&json!({"resourceType": "Basic", "id": "last"}))]).await;
    app.stop().await;
    let last = store.snapshot().await.expect("a snapshot");
    set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 1}).await;
    let started = Instant::now();
    while !matches!(last.read(ty("Patient"), "a").await, Err(StoreError::SnapshotExpired)) {
        assert!(started.elapsed() < PATIENCE, "the snapshot does not expire");
        database.collection("other").insert_one(doc! {}).await.expect("inserted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let now = r#"{"resourceType":"Patient","id":"a","language":"2"}"#;
    for look_back in ["300", "0"] {
        let app = App::with(open().await, &["--look-back", look_back, "--catch-ups", "2"]).await;
        let all = [versions(&app, &ids[0]), versions(&app, &ids[1]), versions(&app, &ids[2])];
        let all = futures_util::future::join_all(all).await;
        assert_eq!(all, [vec![now], vec![now], vec![]], "--look-back {look_back}");
    }
}
