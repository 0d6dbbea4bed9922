//! The embedded store: one file, one writer, any number of readers.
//!
//! ```text
//! commit ─▶ writer: group commit ─▶ file (redb) ─▶ snapshot: a read transaction ─▶ scan
//!                                       └────────▶ changes: the log, from any place in it
//! ```
//!
//! A position's `time` is a change's number in the log, from 1 without gaps.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use self::{
    changes::{EmbeddedChanges, check_place, first_after, first_since, span},
    file::DataFile,
    retention::{Age, Retention},
    snapshot::{EmbeddedSnapshot, Held},
    tables::Fault,
    work::blocking,
    writer::{Job, Writer, instant},
};
use super::{Changes, Lookup, Snapshot, Store, StoreError, Write, WriteError, Written};
use crate::{
    fhir::ResourceType,
    position::{Epoch, LogPosition},
};

mod changes;
mod file;
mod pause;
mod retention;
mod same;
mod snapshot;
mod tables;
mod work;
mod writer;

pub use file::OpenError;

/// Tells the time. What it says becomes `meta.lastUpdated`; where it jumps, [`Store::recent`] is near
/// what it should be.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Tells how much time has passed since some moment, by a clock that nobody sets.
pub type Stopwatch = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How many commits wait for the writer before senders do.
const JOBS_WAITING: usize = 1_024;

/// How an embedded store is run.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// How long a snapshot may be read; while it is, the file grows with every change.
    pub snapshot_life: Duration,
    /// The log is trimmed beyond this many bytes…
    pub log_bytes: u64,
    /// …and beyond this age: of time in which the store was open.
    pub log_age: Duration,
    /// The clock.
    pub clock: Clock,
    /// By what the log ages.
    pub stopwatch: Stopwatch,
    /// Memory for pages of the file.
    pub cache_bytes: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        let opened = Instant::now();
        Self {
            snapshot_life: Duration::from_secs(300),
            log_bytes: 1 << 30,
            log_age: Duration::from_secs(7 * 24 * 3_600),
            clock: Arc::new(Timestamp::now),
            stopwatch: Arc::new(move || opened.elapsed()),
            cache_bytes: 64 << 20,
        }
    }
}

impl EmbeddedOptions {
    /// For who writes into a store that others serve: the log is left as it is, and trimmed by
    /// the bounds of whoever opens the store to serve it.
    #[must_use]
    pub fn untrimmed() -> Self {
        Self { log_bytes: u64::MAX, log_age: Duration::MAX, ..Self::default() }
    }
}

/// A FHIR store in a directory of its own.
pub struct EmbeddedStore {
    file: Arc<DataFile>,
    directory: PathBuf,
    epoch: Epoch,
    clock: Clock,
    snapshot_life: Duration,
    /// `None` once the store is closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    committed: watch::Receiver<()>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, or makes it there. Blocks: after a crash redb checks the
    /// whole file.
    ///
    /// # Errors
    /// One line each, see [`OpenError`].
    pub fn open(path: &Path, options: EmbeddedOptions) -> Result<Arc<Self>, OpenError> {
        let (file, epoch) = DataFile::open(path, options.cache_bytes)?;
        let file = Arc::new(file);
        let (jobs, receiver) = mpsc::channel(JOBS_WAITING);
        let (sender, committed) = watch::channel(());
        let writer = Writer {
            file: file.clone(),
            jobs: receiver,
            clock: options.clock.clone(),
            age: Age::new(options.stopwatch),
            retention: Retention { bytes: options.log_bytes, age: options.log_age },
            committed: sender,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(|| writer.run())
            .map_err(|e| OpenError::Io(path.into(), e.to_string()))?;
        Ok(Arc::new(Self {
            file,
            directory: path.into(),
            epoch,
            clock: options.clock,
            snapshot_life: options.snapshot_life,
            jobs: Mutex::new(Some(jobs)),
            committed,
            writer: Mutex::new(Some(thread)),
        }))
    }

    /// The size of the store's file in a directory; `None` where there is none to be seen.
    #[must_use]
    pub fn file_bytes(directory: &Path) -> Option<u64> {
        let file = std::fs::metadata(directory.join(file::FILE_NAME)).ok()?;
        file.is_file().then_some(file.len())
    }

    /// Reads the whole file and compares each page with what is known of it, which opening it
    /// does not: a part that was put back from an older copy shows only here. For a store that
    /// nothing else uses at the time.
    ///
    /// # Errors
    /// The file is damaged, or the disk fails.
    pub async fn verify(&self) -> Result<(), StoreError> {
        let file = self.file.clone();
        blocking(move || file.verify()).await
    }

    async fn read_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(redb::ReadTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        blocking(move || file.read(work)).await
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn describe(&self) -> String {
        format!("embedded store in {}", self.directory.display())
    }

    async fn head(&self) -> Result<LogPosition, StoreError> {
        let (_, last) = self.read_file(|txn| span(&txn)).await?;
        Ok(LogPosition::before(last))
    }

    async fn recent(&self, back: Duration) -> Result<LogPosition, StoreError> {
        let back = i64::try_from(back.as_millis()).unwrap_or(i64::MAX);
        let since_ms = (self.clock)().as_millisecond().saturating_sub(back);
        let first = self.read_file(move |txn| first_since(&txn, since_ms)).await?;
        Ok(LogPosition::before(first))
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read_file(|txn| changes::oldest(&txn)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, StoreError> {
        let ((_, last), txn) = self.read_file(|txn| Ok((span(&txn)?, txn))).await?;
        let now = instant((self.clock)().as_millisecond());
        let held = Held::new(self.file.clone(), txn, self.snapshot_life);
        Ok(Arc::new(EmbeddedSnapshot::new(held, last, now)))
    }

    async fn changes(&self, after: LogPosition) -> Result<Box<dyn Changes>, StoreError> {
        let next = first_after(after);
        check_place(next, self.read_file(|txn| span(&txn)).await?)?;
        Ok(Box::new(EmbeddedChanges::new(self.file.clone(), self.committed.clone(), next)))
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError> {
        let id = id.to_owned();
        self.read_file(move |txn| tables::lookup(&txn, ty.name(), &id)).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        let closed = || StoreError::Unavailable("the store is closed".into());
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, answered) = oneshot::channel();
        let job = Job { writes, answer };
        jobs.ok_or_else(closed)?.send(job).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    fn before_images(&self, _: ResourceType) -> Result<(), String> {
        Ok(())
    }

    async fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let file = self.file.clone();
        let ended = blocking(move || {
            // The writer catches what its work throws.
            let _ = writer.map(JoinHandle::join);
            file.close();
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::warn!(%error, "the embedded store did not close cleanly");
        }
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("directory", &self.directory).finish_non_exhaustive()
    }
}
