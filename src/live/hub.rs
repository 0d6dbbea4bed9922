//! The hub: one tail task per process, its ring, and the few readers for who is behind it.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use super::{
    follow::Follow,
    reader::LogReader,
    ring::{Page, Ring},
};
use crate::{
    position::LogPosition,
    store::{Store, StoreError},
};

/// Sizes of the live part.
#[derive(Debug, Clone, Copy)]
pub struct HubOptions {
    /// How many bytes of changes the ring holds.
    pub ring_bytes: usize,
    /// How far before its start the tail begins, so that a restart finds its returning clients
    /// within the ring.
    pub look_back: Duration,
    /// How many private readers may be open at once.
    pub private_readers: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self { ring_bytes: 32 << 20, look_back: Duration::from_secs(300), private_readers: 8 }
    }
}

/// The live part of one process.
#[derive(Debug)]
pub struct Hub {
    pub(super) store: Arc<dyn Store>,
    ring: RwLock<Ring>,
    moved: watch::Sender<()>,
    heard: watch::Sender<Option<Instant>>,
    pub(super) private: Arc<Semaphore>,
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
        let hub = Arc::new(Self {
            store,
            ring: RwLock::new(Ring::new(start, options.ring_bytes)),
            moved: watch::Sender::default(),
            heard: watch::Sender::default(),
            private: Arc::new(Semaphore::new(options.private_readers)),
            tasks,
            stop,
        });
        hub.tasks.spawn(Arc::clone(&hub).tail(start));
        Ok(hub)
    }

    /// Every change after the position.
    #[must_use]
    pub fn follow(self: &Arc<Self>, after: LogPosition) -> Follow {
        Follow::new(Arc::clone(self), after, self.moved.subscribe())
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

    /// How long ago the tail last heard from the store; `None` before the first time.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        self.heard.borrow().map(|at| at.elapsed())
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

    /// The tail reads in a task of its own, since a driver's call must not be dropped half-way:
    /// `stop` is looked at between two reads.
    async fn tail(self: Arc<Self>, start: LogPosition) {
        let mut reader = LogReader::new(Arc::clone(&self.store), start);
        while !self.stop.is_cancelled() {
            let read = reader.next(|_| counter!("fhirtail_tail_failures_total").increment(1));
            match read.await {
                Ok(batch) => {
                    counter!("fhirtail_changes_total").increment(batch.changes.len() as u64);
                    let news = self.change_ring(|ring| {
                        let before = ring.level();
                        let told = !batch.changes.is_empty() || batch.quiet;
                        ring.push(batch);
                        told || ring.level() != before
                    });
                    // A batch that says nothing at all is no word from the store: a reader gives
                    // it where the store has not answered.
                    if news {
                        self.heard.send_replace(Some(Instant::now()));
                        self.moved.send_replace(());
                    }
                }
                Err(lost) => {
                    error!(%lost, "the change log was lost: every stream starts over");
                    counter!("fhirtail_log_lost_total").increment(1);
                    if let Some(head) = self.head().await {
                        self.change_ring(|ring| ring.restart(head));
                        self.moved.send_replace(());
                        reader = LogReader::new(Arc::clone(&self.store), head);
                    }
                }
            }
        }
        info!("the tail has ended");
    }

    fn change_ring<T>(&self, change: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut ring);
        gauge!("fhirtail_ring_bytes").set(ring.bytes() as f64);
        gauge!("fhirtail_ring_changes").set(ring.len() as f64);
        result
    }

    async fn head(&self) -> Option<LogPosition> {
        match self.store.head().await {
            Ok(head) => Some(head),
            Err(error) => {
                error!(%error, "the log's end can't be read; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
                None
            }
        }
    }
}
