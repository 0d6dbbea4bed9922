//! Who writes: Observations into MongoDB, by majority, paced or as fast as it takes them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use mongodb::{
    Collection,
    bson::Document,
    options::{Acknowledgment, WriteConcern},
};
use tokio::{task::JoinHandle, time::MissedTickBehavior};

use crate::seed::{self, Observation, PATIENTS};

/// How many connections write at once where speed counts.
const WRITERS: u32 = 8;

/// The shortest time between two paced writes; a higher rate writes several at once.
const SHORTEST: Duration = Duration::from_millis(20);

/// What a paced writer has written.
pub(crate) struct Written {
    /// The sequence number after its last.
    pub(crate) next: u32,
    /// For each change from 0 on, how many microseconds after its stamp it was committed.
    pub(crate) delays: Vec<u32>,
}

/// Writes at a pace until it is stopped.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Written>>,
}

impl Writer {
    /// `rate` in changes a second.
    pub(crate) fn start(into: Collection<Document>, from: u32, rate: f64) -> Self {
        Self::among(PATIENTS, into, from, rate)
    }

    /// The changes are so many patients', in turn.
    pub(crate) fn among(patients: u32, into: Collection<Document>, from: u32, rate: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // A task of its own: a driver's call is never dropped half-way.
        let task = tokio::spawn(write_paced(patients, into, from, rate, stopped));
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// Writes at a pace for some time.
pub(crate) async fn paced(
    into: &Collection<Document>,
    from: u32,
    rate: f64,
    time: Duration,
) -> Result<Written> {
    let writer = Writer::start(into.clone(), from, rate);
    tokio::time::sleep(time).await;
    writer.stop().await
}

async fn write_paced(
    patients: u32,
    into: Collection<Document>,
    from: u32,
    rate: f64,
    stop: Arc<AtomicBool>,
) -> Result<Written> {
    let between = Duration::from_secs_f64(1.0 / rate).max(SHORTEST);
    let batch = (rate * between.as_secs_f64()).round().max(1.0) as u32;
    let mut tick = tokio::time::interval(between);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = Written { next: from, delays: vec![0; from as usize] };
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let stamp = seed::now();
        let seqs = written.next..written.next + batch;
        insert(patients, &into, seqs.clone(), true).await?;
        let delay = u32::try_from(seed::now() - stamp).unwrap_or(u32::MAX);
        written.delays.extend(seqs.map(|_| delay));
        written.next += batch;
    }
    Ok(written)
}

/// Writes changes `from` to `to` as fast as MongoDB takes them, in no order.
pub(crate) async fn burst(
    into: &Collection<Document>,
    from: u32,
    to: u32,
    batch: u32,
) -> Result<()> {
    let share = (to - from).div_ceil(WRITERS);
    let writers = (0..WRITERS).map(|writer| {
        let start = (from + writer * share).min(to);
        let end = (start + share).min(to);
        let into = into.clone();
        tokio::spawn(async move {
            let mut next = start;
            while next < end {
                let until = (next + batch).min(end);
                insert(PATIENTS, &into, next..until, false).await?;
                next = until;
            }
            anyhow::Ok(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    Ok(())
}

async fn insert(
    patients: u32,
    into: &Collection<Document>,
    seqs: std::ops::Range<u32>,
    ordered: bool,
) -> Result<()> {
    let made = |seq| Observation { patients, ..Observation::now(seq) };
    let documents = seqs.map(|seq| made(seq).document());
    let majority = WriteConcern::builder().w(Acknowledgment::Majority).build();
    into.insert_many(documents).ordered(ordered).write_concern(majority).await?;
    Ok(())
}
