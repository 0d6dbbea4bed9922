//! The hub: one tail task per process, its ring, and the few lanes for who is behind it.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use metrics::{counter, gauge};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use super::{
    beat::Beat, entry::Page, follow::Follow, head::Head, headroom, lanes::Lanes, reader::LogReader,
    ring::Ring,
};
use crate::{
    position::LogPosition,
    store::{ChangeBatch, Store, StoreError, detached},
    telemetry::seconds_since,
};

/// How long the tail pauses after a defect.
const PAUSE: Duration = Duration::from_secs(1);

/// Sizes of the live part.
#[derive(Debug, Clone, Copy)]
pub struct HubOptions {
    /// How many bytes of changes the ring holds.
    pub ring_bytes: usize,
    /// How far before its start the tail begins, so that a restart finds its returning clients
    /// within the ring.
    pub look_back: Duration,
    /// How many readers of the log may be open at once, the tail's included. There are always
    /// the tail and one lane.
    pub readers: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self { ring_bytes: 32 << 20, look_back: Duration::from_secs(300), readers: 8 }
    }
}

/// The live part of one process.
#[derive(Debug)]
pub struct Hub {
    pub(super) store: Arc<dyn Store>,
    ring: RwLock<Ring>,
    /// Changes have come, or it is time to hear how far the log has: see [`Beat`].
    moved: watch::Sender<()>,
    /// Anything is new: changes, how far the log has come, whether it rests.
    told: watch::Sender<()>,
    heard: watch::Sender<Option<Instant>>,
    /// When the oldest entry was made that the log holds, as last measured.
    pub(super) oldest: watch::Sender<Option<Timestamp>>,
    head: Head,
    pub(super) lanes: Lanes,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Hub {
    /// Starts the tail. It ends with `stop`.
    ///
    /// # Errors
    /// The store can't say where its log ends.
    pub async fn start(
        store: Arc<dyn Store>,
        options: HubOptions,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, StoreError> {
        let start = store.recent(options.look_back).await?;
        let ring = Ring::new(start, options.ring_bytes).begin(Timestamp::now());
        gauge!("fhirtail_ring_capacity_bytes").set(options.ring_bytes as f64);
        let hub = Arc::new(Self {
            store,
            ring: RwLock::new(ring),
            moved: watch::Sender::default(),
            told: watch::Sender::default(),
            heard: watch::Sender::default(),
            oldest: watch::Sender::default(),
            head: Head::default(),
            lanes: Lanes::new(options.readers.saturating_sub(1), options.ring_bytes),
            tasks,
            stop,
        });
        hub.tasks.spawn(Arc::clone(&hub).keep_tail());
        hub.tasks.spawn(headroom::keep_measuring(Arc::clone(&hub)));
        Ok(hub)
    }

    /// Every change after the position.
    #[must_use]
    pub fn follow(self: &Arc<Self>, after: LogPosition) -> Follow {
        self.follow_since(after, after)
    }

    /// The same, for who has taken all that the ring had between `origin` and `after`: what repeats
    /// that is no news.
    #[must_use]
    pub fn follow_since(self: &Arc<Self>, origin: LogPosition, after: LogPosition) -> Follow {
        let (moved, told) = (self.moved.subscribe(), self.told.subscribe());
        Follow::new(Arc::clone(self), (origin, after), moved, told)
    }

    /// Whether the ring reaches back to a position and has nothing after it.
    #[must_use]
    pub fn ends_at(&self, position: LogPosition) -> bool {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).ends_at(position)
    }

    /// Hears of each move of the ring.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// The end of the log, as it was after the call.
    ///
    /// # Errors
    /// The store can't say.
    pub async fn head(&self) -> Result<LogPosition, StoreError> {
        self.head.ask(self.store.head()).await
    }

    /// How long ago the tail last heard from the store; `None` before the first time.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        self.heard.borrow().map(|at| at.elapsed())
    }

    /// As of when all positions work, as measured every half minute; `None`: it is not known.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        *self.oldest.borrow()
    }

    /// How far the tail has read.
    #[must_use]
    pub fn level(&self) -> LogPosition {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).level()
    }

    /// Every change committed after this is in the ring, or yet to come into it. Some older ones
    /// may be.
    #[must_use]
    pub fn ring_since(&self) -> Timestamp {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).since()
    }

    /// What the ring holds after a position, about `budget` bytes of it. `None`: it no longer
    /// reaches back that far.
    #[must_use]
    pub fn read(&self, after: LogPosition, budget: usize) -> Option<Page> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).read(after, budget)
    }

    /// Whether what follows a position is in the ring, or yet to come into it.
    #[must_use]
    pub fn covers(&self, after: LogPosition) -> bool {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).covers(after)
    }

    pub(super) fn start_of_ring(&self) -> LogPosition {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).start()
    }

    /// Keeps the tail at work. A defect that ends it is told, and it starts again where the ring
    /// ends. The ring begins there too: nothing is built upon what was left half done.
    async fn keep_tail(self: Arc<Self>) {
        while let Err(broken) = detached(Arc::clone(&self).tail()).await {
            error!(%broken, "the tail broke off: it starts again");
            counter!("fhirtail_tail_restarts_total").increment(1);
            self.change_ring(|ring| ring.restart(ring.level(), Timestamp::now()));
            tokio::time::sleep(PAUSE).await;
        }
        info!("the tail has ended");
    }

    /// The tail reads in a task of its own, since a driver's call must not be dropped half-way:
    /// `stop` is looked at between two reads.
    async fn tail(self: Arc<Self>) -> Result<(), StoreError> {
        let mut beat = Beat::new(Instant::now());
        let level = self.ring.read().unwrap_or_else(PoisonError::into_inner).level();
        let mut reader = LogReader::new(Arc::clone(&self.store), level);
        while !self.stop.is_cancelled() {
            let read = reader.next(|_| counter!("fhirtail_tail_failures_total").increment(1));
            match read.await {
                Ok(batch) => self.take_in(batch, &mut beat),
                Err(lost) => {
                    error!(%lost, "the change log was lost: every stream starts over");
                    counter!("fhirtail_log_lost_total").increment(1);
                    if let Some(head) = self.end_of_log().await {
                        self.change_ring(|ring| ring.restart(head, Timestamp::now()));
                        self.moved.send_replace(());
                        self.told.send_replace(());
                        reader = LogReader::new(Arc::clone(&self.store), head);
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds to the ring what the tail has read, and wakes those to whom it says something.
    fn take_in(&self, batch: ChangeBatch, beat: &mut Beat) {
        counter!("fhirtail_changes_total").increment(batch.changes.len() as u64);
        if let Some(lag) = lag(&batch) {
            gauge!("fhirtail_tail_lag_seconds").set(lag);
        }
        let (changes, quiet) = (!batch.changes.is_empty(), batch.quiet);
        let (moved, rested) = self.change_ring(|ring| {
            let (level, rested) = (ring.level(), ring.quiet());
            ring.push(batch);
            (ring.level() != level, rested)
        });
        // A batch that says nothing at all is no word from the store: a reader gives it where
        // the store has not answered.
        if changes || moved || quiet {
            self.heard.send_replace(Some(Instant::now()));
        }
        if changes || moved || (quiet && !rested) {
            self.told.send_replace(());
        }
        if beat.read(moved, Instant::now()) || changes {
            self.moved.send_replace(());
        }
    }

    fn change_ring<T>(&self, change: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut ring);
        gauge!("fhirtail_ring_bytes").set(ring.bytes() as f64);
        gauge!("fhirtail_ring_changes").set(ring.len() as f64);
        result
    }

    async fn end_of_log(&self) -> Option<LogPosition> {
        match self.head().await {
            Ok(head) => Some(head),
            Err(error) => {
                error!(%error, "the log's end can't be read; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
                None
            }
        }
    }
}

/// How far behind the end of the log the tail was at most, in seconds, when it had read this.
/// What it had not read yet is younger than what it had. `None`: there is no telling.
fn lag(batch: &ChangeBatch) -> Option<f64> {
    match batch.changes.last() {
        _ if batch.quiet => Some(0.0),
        newest => newest.map(|change| seconds_since(change.committed)),
    }
}
