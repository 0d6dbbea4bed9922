//! Connections over which nothing passes any more, while the node answers on new ones: neither
//! the kernel nor the driver's heartbeats find them.

use std::{sync::Arc, time::Duration};

use fhirtail::store::{
    Along, Clue, Place, Scan, ScanBatch, Sought, Store, StoreError, Window, WriteError, Written,
    mongo::{MongoOptions, MongoStore},
};
use mongodb::bson::{DateTime, Timestamp, doc};
use support::{
    App,
    mongod::{self, ReplicaSet},
    proxy::Proxy,
    stream::{EventStream, PATIENCE},
};
use tokio::{sync::mpsc::Receiver, time::timeout};

use crate::tools::{Bench, bench, bench_on, everything, patient, put, read_to};

const SILENCE: Duration = Duration::from_millis(500);

/// The bench's database over a proxy, with heartbeats that don't come in time.
async fn through(proxy: &Proxy, bench: &Bench) -> Arc<dyn Store> {
    through_in(proxy, bench, SILENCE).await
}

async fn through_in(proxy: &Proxy, bench: &Bench, silence: Duration) -> Arc<dyn Store> {
    let uri = format!(
        "mongodb://127.0.0.1:{}/{}?directConnection=true&heartbeatFrequencyMS=3600000",
        proxy.port,
        bench.db.name(),
    );
    let options = MongoOptions { batch_size: 7, silence, ..MongoOptions::default() };
    MongoStore::connect(&uri, options).await.expect("a store")
}

/// Asks until each silent connection of the pool was given up.
async fn answered<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> T {
    const CONNECTIONS: usize = 64;
    for _ in 0..CONNECTIONS {
        match ask().await {
            Ok(answer) => return answer,
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_over_another_connection() {
    let Some(bench) = bench().await else { return };
    let proxy = Proxy::to(mongod::shared().await.expect("a set").nodes[0].port).await;
    let app = App::with(through(&proxy, &bench).await, &[]).await;
    let url = app.url("/fhir/Patient/$export");
    bench.commit((0..5).map(|n| patient(&n.to_string(), n)).collect()).await.expect("written");
    let mut stream = EventStream::open(&url, None).await;
    assert_eq!(stream.until("caught-up").await.len(), 5 + 1);
    for round in 1..=3 {
        proxy.forget();
        bench.commit((0..5).map(|n| patient(&n.to_string(), -round)).collect()).await.expect("ok");
        bench.write(patient("last", round)).await;
        let events = stream.until_that(|event| event.data.contains("\"last\"")).await;
        assert_eq!(events.len(), 6, "{events:#?}");
        let late = EventStream::open(&url, None).await.until("caught-up").await;
        let resources = late.iter().filter(|event| event.event == "Patient");
        assert_eq!(resources.count(), 6, "{late:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_and_each_question_give_up() {
    let Some(bench) = bench().await else { return };
    let proxy = Proxy::to(mongod::shared().await.expect("a set").nodes[0].port).await;
    let store = through(&proxy, &bench).await;
    let large = |n: usize| {
        let data = "A".repeat(200_000);
        put(&format!(
            r#"{{"resourceType":"Binary","id":"{n}","contentType":"text/plain","data":"{data}"}}"#
        ))
    };
    // A transaction of all of them may not fit into the cache of a small server.
    for part in 0..10 {
        bench.commit((part * 10..part * 10 + 10).map(large).collect()).await.expect("written");
    }
    let snapshot = answered(async || store.snapshot().await).await;
    // Along the index by time it is looked for what fits.
    let sought =
        Place { path: vec!["contentType"], values: vec![Sought::Text("text/plain".into())] };
    let clues: Arc<[_]> = [Clue { places: vec![sought] }].into();
    let window = Window { after_ms: Some(0), before_ms: None };
    for part in [everything("Binary"), Scan { clues, window, ..everything("Binary") }] {
        let mut batches = snapshot.scan(part);
        batches.recv().await.expect("a batch").expect("resources");
        proxy.forget();
        gives_up(batches).await;
    }
    let binary = crate::tools::ty("Binary");
    answered(async || store.head().await).await;
    proxy.forget();
    answered(async || store.snapshot().await).await;
    proxy.forget();
    answered(async || store.read(binary, "1").await).await;
    proxy.forget();
    answered(async || snapshot.read(binary, "1").await).await;
    proxy.forget();
    // It waits until what it did not find can be believed.
    gives_up(snapshot.scan(everything("Basic"))).await;
    proxy.forget();
    answered(async || store.recent(Duration::ZERO).await).await;
}

/// A write may be there though nobody says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_gives_up() {
    let Some(bench) = bench().await else { return };
    let proxy = Proxy::to(mongod::shared().await.expect("a set").nodes[0].port).await;
    let store = through(&proxy, &bench).await;
    answered(async || write(&*store, 1).await).await;
    proxy.forget();
    let refused = write(&*store, 2).await.expect_err("nobody answers");
    assert!(refused.to_string().contains("nobody knows whether it was written"), "{refused}");
    answered(async || write(&*store, 3).await).await;
}

async fn write(store: &dyn Store, n: i32) -> Result<Vec<Written>, StoreError> {
    match timeout(PATIENCE, store.commit(vec![patient("a", n)])).await.expect("in time") {
        Ok(written) => Ok(written),
        Err(WriteError::Store(error)) => Err(error),
        Err(refused) => panic!("{refused:?}"),
    }
}

/// A scan over a silent connection.
async fn gives_up(mut batches: Receiver<Result<ScanBatch, StoreError>>) {
    let end = async {
        loop {
            match batches.recv().await {
                Some(Ok(_)) => {}
                end => return end,
            }
        }
    };
    let end = timeout(PATIENCE, end).await.expect("an end");
    assert!(matches!(end, Some(Err(StoreError::Unavailable(_)))), "{end:?}");
}

/// The server sorts for as long as it takes, but not longer than it can read the snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_is_sorted_gives_up() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let set: &'static ReplicaSet = Box::leak(Box::new(set));
    let bench = bench_on(set).await;
    let document = |n: i64| {
        let updated = DateTime::from_millis(n);
        doc! {"_id": n.to_string(), "meta": {"lastUpdated": updated}, "data": "A".repeat(200_000)}
    };
    bench.collection("Binary").insert_many((0..50).map(document)).await.expect("inserted");
    let proxy = Proxy::to(set.nodes[0].port).await;
    let store = through(&proxy, &bench).await;
    let snapshot = answered(async || store.snapshot().await).await;
    set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 1}).await;
    let mut batches = snapshot.scan(Scan { along: Along::Updated, ..everything("Binary") });
    batches.recv().await.expect("a batch").expect("resources");
    proxy.forget();
    gives_up(batches).await;
}

/// A log that others fill is not searched again from the last event on: that may have left it.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_log_is_opened_where_all_has_been_read() {
    let Some(bench) = bench().await else { return };
    let proxy = Proxy::to(mongod::shared().await.expect("a set").nodes[0].port).await;
    let store = through(&proxy, &bench).await;
    bench.write(patient("a", 1)).await;
    let start = bench.head().await;
    let mut reader = answered(async || store.changes(start).await).await;
    let elsewhere = mongod::fresh_database();
    bench.client.database(&elsewhere).collection("x").insert_one(doc! {}).await.expect("written");
    let end = bench.head().await;
    read_to(&mut *reader, end).await;
    proxy.forget();
    let opened_at_the_end = async {
        loop {
            let batch = reader.next().await.expect("a log that goes on");
            assert!(batch.changes.is_empty(), "{:?}", batch.changes);
            let begins = mongod::change_streams(&bench.client, bench.db.name()).await;
            if begins.iter().any(|begin| cluster_time(*begin) >= end.time) {
                return;
            }
        }
    };
    timeout(PATIENCE, opened_at_the_end).await.expect("a stream from where all was read");
    bench.write(patient("a", 2)).await;
    let (changes, _) = read_to(&mut *reader, bench.head().await).await;
    assert_eq!(changes.len(), 1, "{changes:?}");
}

fn cluster_time(time: Timestamp) -> u64 {
    u64::from(time.time) << 32 | u64::from(time.increment)
}

/// Its client has long given it up, and written something else, when the connection ends on which it
/// waits: it is not tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_given_up_is_not_made_after_others() {
    let Some(bench) = bench().await else { return };
    let proxy = Proxy::to(mongod::shared().await.expect("a set").nodes[0].port).await;
    // Between nothing is tried again any more and its own end are three of them.
    let silence = SILENCE * 4;
    let store = through_in(&proxy, &bench, silence).await;
    answered(async || write(&*store, 1).await).await;
    proxy.forget();
    let late = tokio::spawn(async move { write(&*store, 2).await });
    let sent = async {
        while proxy.held() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bench.write(patient("a", 3)).await;
        // As long as it would be tried again.
        tokio::time::sleep(silence * 3).await;
    };
    timeout(PATIENCE, sent).await.expect("it is sent");
    proxy.cut();
    let late = timeout(PATIENCE, late).await.expect("an end").expect("no panic");
    let why = late.expect_err("it is late").to_string();
    assert!(why.contains("nothing was written"), "{why}");
    let there = bench.snapshot().await.read(crate::tools::ty("Patient"), "a").await;
    let there = there.expect("an answer").expect("a patient");
    assert!(String::from_utf8_lossy(&there).contains(":3"), "{there:?}");
}
