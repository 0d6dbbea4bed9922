//! Snapshots that are too short for their reader: the history goes on in newer ones.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod support;

use std::{collections::HashSet, sync::Arc, time::Duration};

use fhirtail::{
    position::Position,
    store::{Store, embedded::EmbeddedOptions},
};
use serde_json::json;
use support::{
    app::App,
    chaos::{Dice, stamp},
    converge::{self, LAST, write_last},
    replica::{Replica, contents},
    stream::EventStream,
    writes::{commit, delete, put},
};

const RESOURCES: usize = 6_000;

/// A resource of 2 KB: the whole is more than sockets and batches hold.
fn large(n: usize) -> serde_json::Value {
    let text = format!("{} {}", stamp(), "x".repeat(2_000));
    json!({"resourceType": "Basic", "id": format!("b{n:05}"), "code": {"text": text}})
}

async fn populate(store: &dyn Store) {
    for chunk in (0..RESOURCES).collect::<Vec<_>>().chunks(500) {
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
    }
}

/// Reads a history slowly enough that its snapshot expires under it, and checks that one
/// did; then that the copy is the database.
async fn read_slowly(store: Arc<dyn Store>, pause: Duration) {
    populate(store.as_ref()).await;
    let app = App::start(store.clone()).await;
    let done = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn(keep_changing(store.clone(), done.clone()));
    let mut stream = EventStream::open(&app.url("/fhir/$export?_type=Basic,Patient"), None).await;
    let mut replica = Replica::default();
    let mut snapshots = HashSet::new();
    let (mut events, mut reached) = (0, None);
    while !replica.caught_up {
        let event = stream.event().await.expect("the stream goes on");
        let position: Position = event.id.parse().expect("a position");
        // A replay moves the place in the log; a scan moves its key, at its snapshot's place.
        if position.scan.is_some() && position.scan != reached {
            snapshots.insert(position.log.time);
            reached = position.scan;
        }
        replica.take(&event);
        events += 1;
        if events % 250 == 0 {
            tokio::time::sleep(pause).await;
        }
        if events == RESOURCES {
            // Enough: what is left may be read in peace.
            done.cancel();
        }
    }
    done.cancel();
    writer.await.expect("the writer");
    assert!(snapshots.len() >= 2, "{} snapshot was read", snapshots.len());
    write_last(store.as_ref()).await;
    while !replica.copy.contains_key(LAST) {
        replica.take(&stream.event().await.expect("the stream goes on"));
    }
    assert_eq!(replica.resets, 0);
    let database = contents(store.as_ref(), &["Basic", "Patient"]).await;
    let client = tokio::spawn(async move { replica });
    converge::assert_equal(vec![client], &database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let life = Duration::from_millis(300);
    let options = EmbeddedOptions { snapshot_life: life, ..EmbeddedOptions::default() };
    let bench = support::embedded_with(options);
    read_slowly(bench.store, Duration::from_millis(100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    use mongodb::bson::doc;
    let Some(set) = support::mongod::ReplicaSet::start(1, &[]).await else { return };
    set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 2}).await;
    let bench = support::mongo_in(&set).await;
    read_slowly(bench.store, Duration::from_millis(400)).await;
}
