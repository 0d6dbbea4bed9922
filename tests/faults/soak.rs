//! Churn for a long time: clients come, go and resume, writers write on, and the server's memory
//! and open files stay what they are.
//!
//! `FHIRTAIL_SOAK_MINUTES` says for how long; without it some seconds, so that it still works
//! when somebody needs it. Minutes are of a release build, which is what users run: with debug
//! assertions redb notes each page of its file in memory, and grows with it.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    ground::{Folder, Ground, Mongo},
    lab::{Cast, Lab, clients, survive_on},
};

/// By how much the most memory of the last quarter may be above that of the second, and the most
/// open files above those of the first.
struct Leeway {
    memory: usize,
    files: usize,
}

impl Leeway {
    /// Over minutes: a leak of 200 KB a minute is seen in 20 of them.
    const LONG: Self = Self { memory: 2 << 20, files: 3 };

    /// Over seconds, in which ring and cache still fill, and not each client has come and gone.
    fn short() -> Self {
        Self { memory: 16 << 20, files: usize::try_from(clients()).expect("a count") }
    }

    fn of(time: Duration) -> Self {
        if time < Duration::from_secs(300) {
            return Self::short();
        }
        if cfg!(debug_assertions) {
            panic!("a long soak is of a release build: tests/run --release --test faults soak");
        }
        Self::LONG
    }
}

/// What there is to fill, the ring and the embedded store's cache of pages, is full soon. The
/// allocator is set as in `docker/`.
const CAST: Cast = Cast {
    arguments: &["--ring-bytes", "4000000", "--cache-bytes", "8000000"],
    environment: &[("MALLOC_ARENA_MAX", "2")],
    ..Cast::USUAL
};

fn time() -> Duration {
    let minutes = std::env::var("FHIRTAIL_SOAK_MINUTES").ok().and_then(|text| text.parse().ok());
    minutes.map_or(Duration::from_secs(10), |minutes: f64| Duration::from_secs_f64(60.0 * minutes))
}

/// The most memory and the most open files within some time.
async fn most<G: Ground>(lab: &Lab<G>, time: Duration) -> (usize, usize) {
    let (mut memory, mut files) = (0, 0);
    let end = Instant::now() + time;
    while Instant::now() < end {
        memory = memory.max(lab.servers()[0].memory());
        files = files.max(lab.servers()[0].open_files());
        sleep(Duration::from_millis(200)).await;
    }
    eprintln!("soak: {} KB, {files} files", memory >> 10);
    (memory, files)
}

async fn stays_as_it_is<G: Ground>(lab: &Lab<G>) {
    let leeway = Leeway::of(time());
    let (_, files) = most(lab, time() / 4).await;
    let (memory, _) = most(lab, time() / 4).await;
    let (_, _) = most(lab, time() / 4).await;
    let (memory_at_the_end, files_at_the_end) = most(lab, time() / 4).await;
    assert!(
        memory_at_the_end <= memory + leeway.memory,
        "{memory_at_the_end} after {memory} bytes"
    );
    assert!(files_at_the_end <= files + leeway.files, "{files_at_the_end} files after {files}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_embedded_store() {
    survive_on("soak, embedded", Folder::new(), CAST, stays_as_it_is).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_mongodb() {
    // The whole log is read at the end.
    let Some(mongo) = Mongo::alone(&["--oplogSize", "4000"]).await else { return };
    survive_on("soak, MongoDB", mongo, CAST, stays_as_it_is).await;
}
