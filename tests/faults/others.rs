//! What others do to the database: a TTL index, transactions that fill many entries of the log,
//! an oplog that is trimmed.

use std::time::Instant;

use mongodb::{
    bson::{Document, doc},
    options::{Acknowledgment, WriteConcern},
};
use support::{
    replica::Replica,
    stream::{EventStream, PATIENCE},
};
use tokio::time::sleep;

use crate::{
    ground::{Mongo, Set},
    lab::{Cast, Faulty, Lab, fault_time, survive, survive_on},
};

/// The server itself deletes what is older than a second, each second.
#[tokio::test(flavor = "multi_thread")]
async fn documents_expire_by_a_ttl_index() {
    let arguments = ["--setParameter", "ttlMonitorSleepSecs=1"];
    let Some(set) = Set::start(&arguments).await else { return };
    survive_on("TTL index", set, Cast::USUAL, async |lab: &Lab| {
        let db = &lab.ground.mongo.db;
        for name in crate::lab::TYPES {
            let index = doc! {
                "key": {"meta.lastUpdated": 1}, "name": "ttl", "expireAfterSeconds": 1,
            };
            let create = doc! {"createIndexes": name, "indexes": [index]};
            db.run_command(create).await.expect("an index");
        }
        let (start, before) = (Instant::now(), expired(lab).await);
        while start.elapsed() < fault_time() || expired(lab).await < before + 100 {
            assert!(start.elapsed() < fault_time() + PATIENCE, "nothing expires");
            sleep(std::time::Duration::from_millis(200)).await;
        }
        for name in crate::lab::TYPES {
            db.run_command(doc! {"dropIndexes": name, "index": "ttl"}).await.expect("dropped");
        }
    })
    .await;
}

/// How many documents the primary has deleted for their age.
async fn expired(lab: &Lab) -> i64 {
    let status = lab.ground.set.admin(doc! {"serverStatus": 1}).await;
    let metrics = status.get_document("metrics").expect("metrics");
    let ttl = metrics.get_document("ttl").expect("of the TTL monitor");
    ttl.get_i64("deletedDocuments").expect("a count")
}

/// One transaction of over 16 MB, and such of thousands of writes: one cluster time each, and
/// several entries of the log. Clients cut within them.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_larger_than_an_entry_of_the_log() {
    survive("large transactions", Faulty::Nothing, async |lab: &Lab| {
        write_as_one(lab, "large", 18, 1_000_000).await;
        let end = Instant::now() + fault_time();
        for n in 0.. {
            write_as_one(lab, &format!("small-{n}"), 1_500, 200).await;
            if Instant::now() > end {
                return;
            }
        }
    })
    .await;
}

/// Writes so many documents of so many bytes in one transaction, again and again until it is
/// committed; then deletes them in another.
async fn write_as_one(lab: &Lab, name: &str, count: usize, bytes: usize) {
    let document = |n: usize| {
        let id = format!("{name}-{n}");
        doc! {"_id": &id, "resourceType": "Patient", "id": &id, "implicitRules": "x".repeat(bytes)}
    };
    let documents: Vec<_> = (0..count).map(document).collect();
    let ids: Vec<_> = documents.iter().filter_map(|document| document.get("_id")).collect();
    let majority = || WriteConcern::builder().w(Acknowledgment::Majority).build();
    let patients = lab.ground.mongo.db.collection::<Document>("Patient");
    let mut session = lab.ground.mongo.client.start_session().await.expect("a session");
    session.start_transaction().write_concern(majority()).await.expect("a transaction");
    patients.insert_many(&documents).session(&mut session).await.expect("written");
    session.commit_transaction().await.expect("committed");
    session.start_transaction().write_concern(majority()).await.expect("a transaction");
    let all = doc! {"_id": {"$in": &ids}};
    patients.delete_many(all).session(&mut session).await.expect("deleted");
    session.commit_transaction().await.expect("committed");
}

/// The log holds some seconds. Who was away longer starts over; the crowd, which comes back
/// soon, does not.
#[tokio::test(flavor = "multi_thread")]
async fn the_oplog_is_trimmed_under_the_crowd() {
    let arguments = ["--oplogSize", "8", "--syncdelay", "1"];
    let Some(mongo) = Mongo::alone(&arguments).await else { return };
    mongo.read_along();
    let cast = Cast { arguments: &["--ring-bytes", "200000"], padding: 10_000, ..Cast::USUAL };
    survive_on("oplog trimmed", mongo, cast, async |lab: &Lab<Mongo>| {
        let url = format!("{}/fhir/$export?_type=Observation,Patient", lab.shared.urls()[0]);
        let history = EventStream::open(&url, None).await.until("caught-up").await;
        let left = [&history[0], &history[history.len() / 2], history.last().expect("caught-up")];
        let end = lab.ground.time().await;
        let oplog = lab.ground.client.database("local").collection::<Document>("oplog.rs");
        let start = Instant::now();
        loop {
            let first = oplog.find_one(doc! {}).sort(doc! {"$natural": 1}).await;
            let first = first.expect("an oplog").expect("an entry");
            if first.get_timestamp("ts").expect("ts") > end && start.elapsed() > fault_time() {
                break;
            }
            assert!(start.elapsed() < fault_time() + PATIENCE, "the oplog is not trimmed");
            sleep(std::time::Duration::from_millis(100)).await;
        }
        for event in left {
            let mut stream = EventStream::open(&url, Some(&event.id)).await;
            let mut replica = Replica::default();
            while !replica.caught_up {
                replica.take(&stream.event().await.expect("the stream goes on"));
            }
            assert_eq!(replica.resets, 1, "{}", event.id);
        }
    })
    .await;
}
