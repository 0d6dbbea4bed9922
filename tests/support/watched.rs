//! A store under watch: how many readers of its log are open, and what happens if one breaks, or
//! if snapshots end at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use async_trait::async_trait;
use fhirtail::{
    position::LogPosition,
    store::{ChangeBatch, Changes, Snapshot, Store, StoreError},
};
use tokio::sync::Mutex;

use super::altered::{Alter, altered};

/// What is seen of a store's readers.
#[derive(Debug, Default)]
pub struct Seen {
    pub open: AtomicUsize,
    /// The most that were open at once.
    pub most: AtomicUsize,
    /// How many were opened in all.
    pub opened: AtomicUsize,
    /// So many of the next reads are a defect.
    pub breaks: AtomicUsize,
    /// So many of the next snapshots are over before they are there.
    pub expired: AtomicUsize,
    /// Who asks for the log's end holds this for a moment before the answer comes.
    pub gate: Mutex<()>,
    /// How many such questions have come.
    pub asked: AtomicUsize,
}

/// Whoever reads is seen.
#[derive(Debug)]
pub struct Watched(Arc<Seen>);

impl Watched {
    pub fn over(store: &Arc<dyn Store>) -> (Arc<dyn Store>, Arc<Seen>) {
        let seen = Arc::<Seen>::default();
        (altered(store, Self(seen.clone())), seen)
    }
}

/// Counts a reader from before it is opened until after it is closed.
struct Counted(Arc<Seen>);

impl Counted {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.opened.fetch_add(1, SeqCst);
        let open = seen.open.fetch_add(1, SeqCst) + 1;
        seen.most.fetch_max(open, SeqCst);
        Self(seen.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// Whether this is one of the next so many.
fn is_ordered(count: &AtomicUsize) -> bool {
    count.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1)).is_ok()
}

struct WatchedChanges {
    changes: Box<dyn Changes>,
    counted: Counted,
}

#[async_trait]
impl Changes for WatchedChanges {
    async fn next(&mut self) -> Result<ChangeBatch, StoreError> {
        assert!(!is_ordered(&self.counted.0.breaks), "a defect, as ordered");
        self.changes.next().await
    }

    async fn close(self: Box<Self>) {
        self.changes.close().await;
        drop(self.counted);
    }
}

#[async_trait]
impl Alter for Watched {
    async fn head(&self, store: &Arc<dyn Store>) -> Result<LogPosition, StoreError> {
        self.0.asked.fetch_add(1, SeqCst);
        drop(self.0.gate.lock().await);
        store.head().await
    }

    async fn snapshot(&self, store: &Arc<dyn Store>) -> Result<Arc<dyn Snapshot>, StoreError> {
        if is_ordered(&self.0.expired) {
            return Err(StoreError::SnapshotExpired);
        }
        store.snapshot().await
    }

    async fn changes(
        &self,
        store: &Arc<dyn Store>,
        after: LogPosition,
    ) -> Result<Box<dyn Changes>, StoreError> {
        let counted = Counted::new(&self.0);
        Ok(Box::new(WatchedChanges { changes: store.changes(after).await?, counted }))
    }
}
