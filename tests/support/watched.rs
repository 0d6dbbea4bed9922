//! A store under watch: how many readers of its log are open, and what happens if one breaks, or
//! if snapshots end at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use fhirtail::{
    fhir::ResourceType,
    position::{Epoch, LogPosition},
    store::{
        ChangeBatch, Changes, Lookup, Snapshot, Store, StoreError, Write, WriteError, Written,
    },
};
use jiff::Timestamp;
use tokio::sync::Mutex;

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

/// A store that does what another does.
#[derive(Debug)]
pub struct Watched {
    store: Arc<dyn Store>,
    seen: Arc<Seen>,
}

impl Watched {
    pub fn over(store: &Arc<dyn Store>) -> (Arc<dyn Store>, Arc<Seen>) {
        let seen = Arc::<Seen>::default();
        (Arc::new(Self { store: store.clone(), seen: seen.clone() }), seen)
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
impl Store for Watched {
    fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn head(&self) -> Result<LogPosition, StoreError> {
        self.seen.asked.fetch_add(1, SeqCst);
        drop(self.seen.gate.lock().await);
        self.store.head().await
    }

    async fn recent(&self, back: Duration) -> Result<LogPosition, StoreError> {
        self.store.recent(back).await
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        self.store.oldest().await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, StoreError> {
        if is_ordered(&self.seen.expired) {
            return Err(StoreError::SnapshotExpired);
        }
        self.store.snapshot().await
    }

    async fn changes(&self, after: LogPosition) -> Result<Box<dyn Changes>, StoreError> {
        let counted = Counted::new(&self.seen);
        Ok(Box::new(WatchedChanges { changes: self.store.changes(after).await?, counted }))
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError> {
        self.store.read(ty, id).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        self.store.commit(writes).await
    }

    fn before_images(&self, ty: ResourceType) -> Result<(), String> {
        self.store.before_images(ty)
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
