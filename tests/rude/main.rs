//! Clients that misbehave, beside others that do not: what these see the oracle finds whole.
//! After each, the server answers, and has no more files open and no more memory than before.
//!
//! `FHIRTAIL_FAULT_SECONDS` and `FHIRTAIL_FAULT_CLIENTS` stretch it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

#[path = "../faults/crowd.rs"]
mod crowd;
#[path = "../faults/exports.rs"]
mod exports;
mod garbage;
#[path = "../faults/ground.rs"]
#[allow(dead_code, reason = "no replica set of its own")]
mod ground;
#[path = "../faults/lab.rs"]
#[allow(dead_code, reason = "servers are not replaced here")]
mod lab;
mod large;
mod raw;
#[path = "../faults/report.rs"]
mod report;
#[path = "../faults/shared.rs"]
#[allow(dead_code, reason = "nobody is trapped here")]
mod shared;
mod slow;
#[path = "../faults/transport.rs"]
mod transport;
#[path = "../faults/writers.rs"]
mod writers;

use std::net::SocketAddr;

use ground::Folder;
use lab::{Cast, Lab, clients, survive_on, until};

/// How much more memory the server may have afterwards than before: the allocator keeps some of
/// what was in use at once.
const MEMORY: usize = 32 << 20;

/// Short deadlines and a small ring, so that whatever is kept is soon given back.
const CAST: Cast = Cast {
    arguments: &[
        "--write-deadline",
        "1",
        "--read-deadline",
        "1",
        "--ring-bytes",
        "1000000",
        "--body-limit",
        "1000000",
        // What fills by itself, slowly, is not what they cost.
        "--cache-bytes",
        "4000000",
    ],
    // What each thread's arena keeps for itself would hide what the server holds.
    environment: &[("MALLOC_ARENA_MAX", "1")],
    writers: 2,
    // Whatever is large here, some test asks for.
    exports: 0,
    ..Cast::USUAL
};

/// Lets someone misbehave.
async fn bear(name: &str, misbehave: impl AsyncFn(SocketAddr)) {
    bear_within(MEMORY, name, misbehave).await;
}

/// The same, where that takes so much more memory.
async fn bear_within(more: usize, name: &str, misbehave: impl AsyncFn(SocketAddr)) {
    survive_on(name, Folder::new(), CAST, async |lab: &Lab<Folder>| {
        let address = ([127, 0, 0, 1], lab.servers()[0].port()).into();
        let files = lab.servers()[0].open_files();
        let memory = lab.servers()[0].memory();
        misbehave(address).await;
        let end = std::time::Instant::now() + lab::fault_time();
        loop {
            misbehave(address).await;
            if std::time::Instant::now() > end {
                break;
            }
        }
        // The others come and go meanwhile.
        let most = files + 2 * usize::try_from(clients()).expect("a count");
        until("files are closed", 10, || lab.servers()[0].open_files() <= most).await;
        let now = || lab.servers()[0].memory();
        eprintln!("{name}: {} KB after {} KB", now() >> 10, memory >> 10);
        until("memory is given back", 10, || now() < memory + more).await;
        assert_eq!(lab.shared.refused(), 0, "others' writes were refused");
    })
    .await;
}
