//! Faults of the server itself: it is killed, drained, stopped, and its disk is full.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    ground::{Folder, Ground, Mongo},
    lab::{Cast, Faulty, Lab, fault_time, survive_on, until},
    shared::Phase,
};

/// Kills the server while clients are at each phase of their streams, in turn.
async fn kill_in_each_phase<G: Ground>(lab: &Lab<G>) {
    let end = Instant::now() + fault_time();
    for phase in Phase::ALL.into_iter().cycle() {
        if phase == Phase::History && Instant::now() > end {
            return;
        }
        lab.shared.trap(Some(phase));
        let trapped = || lab.shared.trapped.load(std::sync::atomic::Ordering::SeqCst) > 0;
        until(&format!("{phase:?}"), 30, trapped).await;
        lab.replace_server(Duration::ZERO).await;
        lab.shared.trap(None);
    }
}

/// So small a ring that who comes back has to catch up.
const SMALL_RING: Cast =
    Cast { arguments: &["--ring-bytes", "20000"], faulty: Faulty::Server, ..Cast::USUAL };

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_each_phase_over_mongodb() {
    let Some(mongo) = Mongo::shared().await else { return };
    let name = "kill -9 in each phase, MongoDB";
    survive_on(name, mongo, SMALL_RING, kill_in_each_phase).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_each_phase_over_the_embedded_store() {
    let name = "kill -9 in each phase, embedded";
    survive_on(name, Folder::new(), SMALL_RING, kill_in_each_phase).await;
}

/// Acknowledged writes survive, and each transaction is there wholly or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_commits_share_a_transaction() {
    let cast = Cast { writers: 24, faulty: Faulty::Server, ..Cast::USUAL };
    survive_on("kill -9 in group commit", Folder::new(), cast, async |lab: &Lab<Folder>| {
        let end = Instant::now() + fault_time();
        while Instant::now() < end {
            lab.replace_server(Duration::ZERO).await;
            let before = lab.shared.acknowledged();
            until("they write again", 30, || lab.shared.acknowledged() > before + 100).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_behind_a_balancer_are_rolled_one_after_the_other() {
    let Some(mongo) = Mongo::shared().await else { return };
    let cast =
        Cast { servers: 2, arguments: &["--drain", "1"], faulty: Faulty::Server, ..Cast::USUAL };
    survive_on("two replicas rolled", mongo, cast, async |lab: &Lab<Mongo>| {
        lab.balance().await;
        let end = Instant::now() + fault_time();
        while Instant::now() < end {
            for _ in 0..2 {
                sleep(Duration::from_millis(300)).await;
                lab.end_server();
                lab.start_server();
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drained_and_started_again() {
    let cast = Cast { arguments: &["--drain", "0.5"], faulty: Faulty::Server, ..Cast::USUAL };
    survive_on("SIGTERM under load", Folder::new(), cast, async |lab: &Lab<Folder>| {
        let end = Instant::now() + fault_time();
        while Instant::now() < end {
            sleep(Duration::from_millis(500)).await;
            lab.end_server();
            lab.start_server();
        }
    })
    .await;
}

/// Deadlines that pass while the server is stopped.
const SHORT: Cast = Cast {
    arguments: &["--write-deadline", "1", "--read-deadline", "1", "--keep-alive", "1"],
    faulty: Faulty::Server,
    ..Cast::USUAL
};

async fn stop_for_a_while<G: Ground>(lab: &Lab<G>) {
    lab.servers()[0].signal("-STOP");
    until("it stands", 10, || lab.servers()[0].is_stopped()).await;
    sleep(fault_time().max(Duration::from_secs(3))).await;
    assert!(lab.servers()[0].is_stopped(), "it went on");
    lab.servers()[0].signal("-CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_for_longer_than_its_deadlines_over_mongodb() {
    let Some(mongo) = Mongo::shared().await else { return };
    survive_on("SIGSTOP of fhirtail, MongoDB", mongo, SHORT, stop_for_a_while).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_for_longer_than_its_deadlines_over_the_embedded_store() {
    survive_on("SIGSTOP of fhirtail, embedded", Folder::new(), SHORT, stop_for_a_while).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_is_full_for_a_while() {
    let cast = Cast { padding: 20_000, faulty: Faulty::Store, ..Cast::USUAL };
    survive_on("disk full", Folder::new(), cast, async |lab: &Lab<Folder>| {
        let refused = lab.shared.refused();
        lab.servers()[0].limit_files(Some(lab.ground.length()));
        until("the disk is full", 30, || lab.shared.refused() > refused).await;
        sleep(fault_time()).await;
        lab.servers()[0].limit_files(None);
    })
    .await;
}
