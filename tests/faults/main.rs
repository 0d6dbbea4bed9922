//! Faults on a real three-node replica set, every connection through a proxy, under steady
//! writes and a crowd that cuts and resumes: nothing is lost or repeated, says the oracle, and
//! each client is back within ten seconds of the fault's end. `own` has the faults of the server
//! itself, over whatever store, `others` what other programs do to the database, `rollback` what
//! only one node ever had.
//!
//! `FHIRTAIL_FAULT_SECONDS` and `FHIRTAIL_FAULT_CLIENTS` stretch it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod crowd;
mod exports;
mod ground;
mod lab;
mod others;
mod own;
mod report;
mod rollback;
mod shared;
mod soak;
mod transport;
mod writers;

use std::time::{Duration, Instant};

use fhirtail::client::sse::Event;
use ground::Set;
use lab::{Cast, Faulty, Lab, Resets, fault_time, survive, survive_on, until};
use mongodb::bson::{Timestamp, doc};
use support::{oracle::transcript::Place, stream::EventStream};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_at_all() {
    survive("none", Faulty::Nothing, async |_: &Lab| sleep(fault_time()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_killed() {
    survive("kill -9 of the primary", Faulty::Store, async |lab: &Lab| {
        let primary = lab.ground.primary().await;
        lab.ground.set.nodes[primary].crash();
        assert_ne!(lab.ground.primary().await, primary);
        sleep(fault_time()).await;
        lab.ground.set.nodes[primary].restart();
    })
    .await;
}

/// Makes the primary step down, and waits until one is elected and writes go on.
async fn step_down(lab: &Lab) {
    let (term, before) = (lab.ground.term().await, lab.shared.acknowledged());
    let start = Instant::now();
    loop {
        let primary = lab.ground.primary().await;
        let command = doc! {"replSetStepDown": 2, "secondaryCatchUpPeriodSecs": 1};
        // Refused where no other node has all that this one has.
        match lab.ground.ask(primary, command).await {
            Ok(_) => break,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(30), "{error}"),
        }
    }
    until("writes go on", 30, || lab.shared.acknowledged() > before + 50).await;
    let now = lab.ground.term().await;
    assert!(now > term, "nobody was elected: term {now} after {term}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_steps_down() {
    survive("replSetStepDown", Faulty::Store, async |lab: &Lab| {
        let end = Instant::now() + fault_time();
        while Instant::now() < end {
            step_down(lab).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_stopped_for_a_while() {
    survive("SIGSTOP of the primary", Faulty::Store, async |lab: &Lab| {
        let (primary, term) = (lab.ground.primary().await, lab.ground.term().await);
        lab.ground.set.nodes[primary].signal("-STOP");
        sleep(fault_time() + Duration::from_secs(2)).await;
        lab.ground.set.nodes[primary].signal("-CONT");
        let start = Instant::now();
        while lab.ground.term().await <= term {
            assert!(start.elapsed() < Duration::from_secs(30), "nobody was elected");
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_fail_alone_and_together() {
    survive("failpoints", Faulty::Store, async |lab: &Lab| {
        let time = fault_time() / 12;
        for commands in
            [&["getMore"][..], &["aggregate"], &["find"], &["getMore", "aggregate", "find"]]
        {
            for how in
                [doc! {"errorCode": 11602}, doc! {"closeConnection": true}, doc! {"errorCode": 43}]
            {
                lab.ground.fail(commands, how, time).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reset_and_slow() {
    survive("resets and delays", Faulty::Store, async |lab: &Lab| {
        let end = Instant::now() + fault_time();
        lab.ground.proxies.iter().for_each(|proxy| proxy.delay(Duration::from_millis(20)));
        while Instant::now() < end {
            let cut: usize = lab.ground.proxies.iter().map(support::proxy::Proxy::cut).sum();
            assert!(cut > 0, "nobody is connected by way of the proxies");
            sleep(Duration::from_millis(400)).await;
        }
        lab.ground.proxies.iter().for_each(support::proxy::Proxy::clear);
    })
    .await;
}

/// Those that are open never carry anything again, and nobody is told.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_swallowed() {
    survive("black hole", Faulty::Store, async |lab: &Lab| {
        let primary = lab.ground.primary().await;
        lab.ground.proxies[primary].swallow();
        until("something is swallowed", 30, || lab.ground.proxies[primary].held() > 0).await;
        sleep(fault_time()).await;
        lab.ground.proxies[primary].forget();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_go_away_and_come_back() {
    survive("all nodes away", Faulty::Store, async |lab: &Lab| {
        lab.ground.set.nodes.iter().for_each(support::mongod::Node::crash);
        sleep(fault_time()).await;
        lab.ground.set.nodes.iter().for_each(support::mongod::Node::restart);
        lab.ground.primary().await;
    })
    .await;
}

/// A client that reads on only after the snapshot of its history has expired has all of it, in a
/// newer one. It streams what nobody else does.
async fn outlive_a_snapshot(lab: &Lab) {
    // More than servers and sockets read ahead.
    const COUNT: usize = 100;
    let large = "x".repeat(1_000_000);
    let document = |n: usize| {
        let id = format!("large-{n}");
        doc! {"_id": &id, "resourceType": "Basic", "id": &id, "implicitRules": &large}
    };
    let (db, all) = (&lab.ground.mongo.db, (0..COUNT).map(document));
    db.collection("Basic").insert_many(all).await.expect("written");

    let url = format!("{}/fhir/$export?_type=Basic", lab.shared.urls()[0]);
    let mut stream = EventStream::open(&url, None).await;
    let first = stream.event().await.expect("an event");
    let place = |event: &Event| Place::of(&event.id).expect("a place");
    let snapshot = place(&first);
    // The place of a snapshot is right behind its time.
    let time = snapshot.at.time - 1;
    let at = Timestamp { time: (time >> 32) as u32, increment: time as u32 };
    let read = doc! {
        "find": "Basic", "limit": 1, "projection": {"_id": 1},
        "readConcern": {"level": "snapshot", "atClusterTime": at},
    };
    let start = Instant::now();
    while db.run_command(read.clone()).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30), "snapshots do not expire");
        sleep(Duration::from_millis(100)).await;
    }
    let rest = stream.until("caught-up").await;
    let scanned: Vec<_> = rest.iter().filter(|event| event.event == "Basic").collect();
    assert_eq!(scanned.len(), COUNT - 1);
    let last = place(scanned[scanned.len() - 1]);
    assert!(last.scans && last.at > snapshot.at, "in one snapshot: {last:?} after {snapshot:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_live_for_a_second() {
    let Some(set) = Set::start(&[]).await else { return };
    // With such a window look-ups come too late too: what is then repeated to who is cut between two
    // readers is said in docs/RELIABILITY.md. This is about histories.
    set.mongo.keep_images("Patient").await;
    let arguments = &["--ring-bytes", "20000"];
    let cast = Cast { arguments, faulty: Faulty::Store, ..Cast::USUAL };
    survive_on("snapshot window of 1 s", set, cast, async |lab: &Lab| {
        for node in 0..lab.ground.set.nodes.len() {
            let window = doc! {"setParameter": 1, "minSnapshotHistoryWindowInSeconds": 1};
            lab.ground.tell(node, window).await;
        }
        outlive_a_snapshot(lab).await;
        let renewed = || lab.shared.renewed.load(std::sync::atomic::Ordering::SeqCst);
        until("an export in several snapshots", 30, || renewed() > 0).await;
        sleep(fault_time()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_and_the_database_go() {
    let Some(set) = Set::start(&[]).await else { return };
    let cast =
        Cast { resets: Resets::Allowed, faulty: Faulty::Store, keeps_images: false, ..Cast::USUAL };
    survive_on("drop, rename, dropDatabase", set, cast, async |lab: &Lab| {
        let db = &lab.ground.mongo.db;
        let end = Instant::now() + fault_time();
        while Instant::now() < end {
            db.collection::<mongodb::bson::Document>("Observation").drop().await.expect("dropped");
            sleep(Duration::from_millis(300)).await;
            let rename =
                doc! {"renameCollection": "fhir.Patient", "to": "fhir.other", "dropTarget": true};
            let start = Instant::now();
            // Its collection may be yet to come again.
            while let Err(error) =
                lab.ground.mongo.client.database("admin").run_command(rename.clone()).await
            {
                assert!(start.elapsed() < Duration::from_secs(30), "{error}");
                sleep(Duration::from_millis(50)).await;
            }
            sleep(Duration::from_millis(300)).await;
            db.drop().await.expect("dropped");
            sleep(Duration::from_millis(400)).await;
        }
    })
    .await;
}

/// In whatever each client is at: history, replay, catching up, live.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_killed_again_and_again() {
    survive("kill -9 of fhirtail", Faulty::Server, async |lab: &Lab| {
        let end = Instant::now() + fault_time();
        while Instant::now() < end {
            lab.replace_server(Duration::from_millis(100)).await;
            sleep(Duration::from_millis(600)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_of_which_one_is_killed_while_the_primary_steps_down() {
    let Some(set) = Set::start(&[]).await else { return };
    let cast = Cast { servers: 2, faulty: Faulty::Server, ..Cast::USUAL };
    survive_on("two fhirtail, one killed, and a failover", set, cast, async |lab: &Lab| {
        let end = Instant::now() + fault_time();
        while Instant::now() < end {
            step_down(lab).await;
            lab.replace_server(Duration::from_millis(100)).await;
        }
    })
    .await;
}
