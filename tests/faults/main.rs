//! Faults on a real three-node replica set, every connection through a proxy, under steady
//! writes and a crowd that cuts and resumes: nothing is lost or repeated, says the oracle, and
//! each client is back within ten seconds of the fault's end. `own` has the faults of the server
//! itself, over whatever store, `others` what other programs do to the database, `rollback` what
//! only one node ever had.
//!
//! `FHIRTAIL_FAULT_SECONDS` and `FHIRTAIL_FAULT_CLIENTS` stretch it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod crowd;
mod ground;
mod lab;
mod others;
mod own;
mod report;
mod rollback;
mod shared;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod writers;

use std::time::{Duration, Instant};

use lab::{Lab, Resets, fault_time, survive, until};
use mongodb::bson::doc;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_at_all() {
    survive("none", 1, &[], Resets::Never, async |_: &Lab| sleep(fault_time()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_killed() {
    survive("kill -9 of the primary", 1, &[], Resets::Never, async |lab: &Lab| {
        let primary = lab.ground.primary().await;
        lab.ground.set.nodes[primary].crash();
        lab.ground.primary().await;
        sleep(fault_time()).await;
        lab.ground.set.nodes[primary].restart();
    })
    .await;
}

/// Makes another node the primary, and waits until writes go on.
async fn step_down(lab: &Lab) {
    let (primary, before) = (lab.ground.primary().await, lab.shared.acknowledged());
    let command = doc! {"replSetStepDown": 2, "secondaryCatchUpPeriodSecs": 1};
    lab.ground.tell(primary, command).await;
    until("writes go on", 30, || lab.shared.acknowledged() > before + 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_steps_down() {
    survive("replSetStepDown", 1, &[], Resets::Never, async |lab: &Lab| {
        let end = Instant::now() + fault_time();
        while Instant::now() < end {
            step_down(lab).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_stopped_for_a_while() {
    survive("SIGSTOP of the primary", 1, &[], Resets::Never, async |lab: &Lab| {
        let primary = lab.ground.primary().await;
        lab.ground.set.nodes[primary].signal("-STOP");
        sleep(fault_time() + Duration::from_secs(2)).await;
        lab.ground.set.nodes[primary].signal("-CONT");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_fail_alone_and_together() {
    survive("failpoints", 1, &[], Resets::Never, async |lab: &Lab| {
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
    survive("resets and delays", 1, &[], Resets::Never, async |lab: &Lab| {
        let end = Instant::now() + fault_time();
        lab.ground.proxies.iter().for_each(|proxy| proxy.delay(Duration::from_millis(20)));
        while Instant::now() < end {
            lab.ground.proxies.iter().for_each(support::proxy::Proxy::cut);
            sleep(Duration::from_millis(400)).await;
        }
        lab.ground.proxies.iter().for_each(support::proxy::Proxy::clear);
    })
    .await;
}

/// Those that are open never carry anything again, and nobody is told.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_swallowed() {
    survive("black hole", 1, &[], Resets::Never, async |lab: &Lab| {
        let primary = lab.ground.primary().await;
        lab.ground.proxies[primary].swallow();
        sleep(fault_time()).await;
        lab.ground.proxies[primary].forget();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_go_away_and_come_back() {
    survive("all nodes away", 1, &[], Resets::Never, async |lab: &Lab| {
        lab.ground.set.nodes.iter().for_each(support::mongod::Node::crash);
        sleep(fault_time()).await;
        lab.ground.set.nodes.iter().for_each(support::mongod::Node::restart);
        lab.ground.primary().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_live_for_a_second() {
    survive(
        "snapshot window of 1 s",
        1,
        &["--ring-bytes", "20000"],
        Resets::Never,
        async |lab: &Lab| {
            for node in 0..lab.ground.set.nodes.len() {
                let window = doc! {"setParameter": 1, "minSnapshotHistoryWindowInSeconds": 1};
                lab.ground.tell(node, window).await;
            }
            sleep(fault_time()).await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_and_the_database_go() {
    survive("drop, rename, dropDatabase", 1, &[], Resets::Allowed, async |lab: &Lab| {
        let db = &lab.ground.mongo.db;
        let end = Instant::now() + fault_time();
        while Instant::now() < end {
            db.collection::<mongodb::bson::Document>("Observation").drop().await.expect("dropped");
            sleep(Duration::from_millis(300)).await;
            let rename =
                doc! {"renameCollection": "fhir.Patient", "to": "fhir.other", "dropTarget": true};
            let primary = lab.ground.primary().await;
            lab.ground.tell(primary, rename).await;
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
    survive("kill -9 of fhirtail", 1, &[], Resets::Never, async |lab: &Lab| {
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
    survive(
        "two fhirtail, one killed, and a failover",
        2,
        &[],
        Resets::Never,
        async |lab: &Lab| {
            let end = Instant::now() + fault_time();
            while Instant::now() < end {
                step_down(lab).await;
                lab.replace_server(Duration::from_millis(100)).await;
            }
        },
    )
    .await;
}
