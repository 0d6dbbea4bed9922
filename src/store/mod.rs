//! The store contract: reads as of one instant, the change log after an instant, and writes.
//!
//! Two implementations, [`mongo`] and [`embedded`], pass one conformance suite
//! (`tests/conformance.rs`). Nothing above this module knows which of them it talks to.

use std::{cmp::Ordering, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    fhir::{ResourceType, resource::Resource},
    position::{Epoch, LogPosition},
};

mod batch;
mod detached;
pub mod embedded;
pub mod mongo;
mod open;

pub use batch::{DocRef, KeyRef, ScanBatch, Scanned};
pub use detached::detached;
pub use open::{MONGODB_SCHEMES, OpenError, open};

/// What a store can fail with. Whoever reads decides by the variant, never by the text.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The snapshot is older than the store keeps: take a new one and replay what lies between.
    #[error("the snapshot has expired")]
    SnapshotExpired,
    /// The log no longer reaches back to (or never held) the position asked for.
    #[error("{0}")]
    PositionLost(String),
    /// The store does not answer at the moment; the same call may succeed later.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The store answers, and refuses: rights, disk, a damaged file.
    #[error("{0}")]
    Failed(String),
}

/// A FHIR store: a set of resources, and the log of their changes in commit order.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Which log this is. Positions of another epoch mean nothing here.
    fn epoch(&self) -> Epoch;

    /// One line for people: what kind of store, and where. Never a password.
    fn describe(&self) -> String;

    /// The end of the log: once a reader of [`Changes`] is level with it, it has seen every
    /// change that was committed (by majority) before this call.
    async fn head(&self) -> Result<LogPosition, StoreError>;

    /// A position about `back` before the end of the log, or the oldest that the log still
    /// honours if that is younger.
    async fn recent(&self, back: Duration) -> Result<LogPosition, StoreError>;

    /// When the oldest entry was made that the log still holds: as of then, all positions work.
    /// `None`: it holds none, or the store may not be asked (which it logs once).
    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError>;

    /// An instant T, and reads as of T.
    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, StoreError>;

    /// Every change after the position, in commit order.
    ///
    /// # Errors
    /// [`StoreError::PositionLost`] where the log does not reach back to the position, or the
    /// position lies in its future. Never a later start without an error.
    async fn changes(&self, after: LogPosition) -> Result<Box<dyn Changes>, StoreError>;

    /// The current version of one resource.
    async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError>;

    /// Performs all of the writes, or none of them. One resource is named at most once.
    /// Outcomes stand in the order of the writes.
    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Written>, WriteError>;

    /// Whether a change that takes a resource of this type out of a compartment can be told
    /// (before-images are kept). `Err` holds the sentence that says how to switch them on.
    fn before_images(&self, ty: ResourceType) -> Result<(), String>;

    /// Ends background work and flushes. Further calls may fail.
    async fn close(&self);
}

/// Reads as of one instant.
#[async_trait]
pub trait Snapshot: Send + Sync {
    /// The position from which the log goes on where this snapshot ends: (T + 1, 0).
    fn position(&self) -> LogPosition;

    /// T as wall-clock time.
    fn instant(&self) -> Timestamp;

    /// One resource as of T, as stored (compact JSON).
    async fn read(&self, ty: ResourceType, id: &str) -> Result<Option<Bytes>, StoreError>;

    /// Starts reading one type in key order. The reader works ahead by a batch or two, less
    /// than a megabyte of common resources, and ends by itself once the receiver is dropped. A
    /// closed channel is the end of the type; an `Err` is the last thing sent. A stretch in
    /// which nothing is found gives empty batches that tell how far the scan has come.
    fn scan(&self, scan: Scan) -> mpsc::Receiver<Result<ScanBatch, StoreError>>;
}

/// Which part of a type to read.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The resource type.
    pub ty: ResourceType,
    /// Go on strictly after this key. Its variant also says in which order the scan goes;
    /// without a key the store chooses: by id, or, where `window` narrows, by lastUpdated.
    pub after: Option<ScanKey>,
    /// Only resources whose `meta.lastUpdated` lies within.
    pub window: Window,
}

/// A window of `meta.lastUpdated` in whole milliseconds since 1970, both ends exclusive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Window {
    /// `_since`: strictly later than this.
    pub after_ms: Option<i64>,
    /// `_until`: strictly earlier than this.
    pub before_ms: Option<i64>,
}

impl Window {
    /// Whether the window lets everything through, resources without lastUpdated included.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.after_ms.is_none() && self.before_ms.is_none()
    }

    /// Whether a resource of this lastUpdated is within. One without is in no bounded window.
    #[must_use]
    pub fn contains(&self, updated_ms: Option<i64>) -> bool {
        match updated_ms {
            None => self.is_open(),
            Some(ms) => {
                self.after_ms.is_none_or(|after| ms > after)
                    && self.before_ms.is_none_or(|before| ms < before)
            }
        }
    }
}

/// The key of a stored document in its collection, in the store's own order: texts by their
/// bytes, then ObjectIds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocId {
    /// A string, most often the resource's id.
    Text(Box<str>),
    /// A MongoDB ObjectId.
    Oid([u8; 12]),
}

impl DocId {
    /// A look at it.
    #[must_use]
    pub fn borrowed(&self) -> DocRef<'_> {
        match self {
            Self::Text(id) => DocRef::Text(id),
            Self::Oid(bytes) => DocRef::Oid(*bytes),
        }
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrowed().fmt(f)
    }
}

/// Where a resource stands in the scan of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanKey {
    /// In a scan by document id.
    Id(DocId),
    /// In a scan by `meta.lastUpdated` (ms since 1970), then document id.
    Updated(i64, DocId),
}

impl ScanKey {
    /// A look at it.
    #[must_use]
    pub fn borrowed(&self) -> KeyRef<'_> {
        match self {
            ScanKey::Id(doc) => KeyRef::Id(doc.borrowed()),
            ScanKey::Updated(ms, doc) => KeyRef::Updated(*ms, doc.borrowed()),
        }
    }

    /// The document's key.
    #[must_use]
    pub fn doc(&self) -> &DocId {
        let (ScanKey::Id(doc) | ScanKey::Updated(_, doc)) = self;
        doc
    }

    /// Where a document would stand in a scan of the same order as `self`. `None`: nowhere,
    /// since it has no lastUpdated to be ordered by.
    #[must_use]
    pub fn same_order(&self, doc: &DocId, updated_ms: Option<i64>) -> Option<ScanKey> {
        match self {
            ScanKey::Id(_) => Some(ScanKey::Id(doc.clone())),
            ScanKey::Updated(..) => updated_ms.map(|ms| ScanKey::Updated(ms, doc.clone())),
        }
    }
}

impl PartialOrd for ScanKey {
    /// Keys of different orders do not compare.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.borrowed().partial_cmp(&other.borrowed())
    }
}

/// A reader of the change log.
///
/// `next` is not cancel-safe: it is called from a task that does nothing else.
#[async_trait]
pub trait Changes: Send {
    /// The next changes. Returns within about a second even if there are none.
    async fn next(&mut self) -> Result<ChangeBatch, StoreError>;

    /// Ends the reading, and returns once the store holds nothing open for it: who counts open
    /// readers waits for that. A reader that is only dropped ends a little later.
    async fn close(self: Box<Self>);
}

/// What one read of the log gave.
#[derive(Debug)]
pub struct ChangeBatch {
    /// In commit order.
    pub changes: Vec<Change>,
    /// All changes up to here have been delivered, with this batch. Never moves back.
    pub level: LogPosition,
    /// The read reached the end of the log as it was then: every change at `level.time`, and
    /// before it, is delivered, and no change will ever be added there.
    pub quiet: bool,
}

/// One change of one resource, as committed.
#[derive(Debug, Clone)]
pub struct Change {
    /// The position of whoever has consumed this change.
    pub position: LogPosition,
    /// When it was committed, as exactly as the store knows.
    pub committed: Timestamp,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum ChangeKind {
    /// Created, updated or replaced.
    Upsert {
        /// The resource's type.
        ty: ResourceType,
        /// The resource's id.
        id: Box<str>,
        /// Its document's key.
        doc: DocId,
        /// Its `meta.lastUpdated` in ms since 1970, if it has one.
        updated_ms: Option<i64>,
        /// The resource after the change, compact JSON.
        json: Bytes,
        /// The resource before the change.
        before: Before,
    },
    /// Deleted.
    Delete {
        /// The resource's type.
        ty: ResourceType,
        /// The resource's id.
        id: Box<str>,
        /// Its document's key.
        doc: DocId,
        /// The resource before the change.
        before: Before,
    },
    /// Everything of a type has gone at once (its collection was dropped or renamed), or has
    /// come at once. Streams of the type start over.
    Replaced {
        /// The type.
        ty: ResourceType,
    },
}

/// The resource as it was before a change.
#[derive(Clone)]
pub enum Before {
    /// There was none.
    Absent,
    /// Nobody knows: the store keeps no before-images of this type.
    Unknown,
    /// As it was stored.
    Known(Image),
}

/// A stored resource that hardly anyone asks for: compact JSON on demand.
#[derive(Clone)]
pub struct Image {
    /// How many bytes it holds until then.
    pub bytes: usize,
    /// Encodes it; `None` where that can't be done.
    pub encode: Arc<dyn Fn() -> Option<Bytes> + Send + Sync>,
}

impl Before {
    /// How many bytes it holds.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Before::Known(image) => image.bytes,
            Before::Absent | Before::Unknown => 0,
        }
    }
}

impl fmt::Debug for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Before::Absent => "Absent",
            Before::Unknown => "Unknown",
            Before::Known(_) => "Known",
        })
    }
}

/// What a store has under an id.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// Nothing, and as far as the store knows there never was anything.
    Absent,
    /// It was deleted; this is the number of the deletion.
    Deleted {
        /// The version number that the deletion took.
        version: u64,
    },
    /// The current version.
    Found {
        /// The resource as compact JSON, `meta` included.
        json: Bytes,
        /// Its `meta.versionId`, 0 where it has none that is a number.
        version: u64,
    },
}

/// One write.
#[derive(Debug, Clone)]
pub struct Write {
    /// The resource's type.
    pub ty: ResourceType,
    /// The resource's id.
    pub id: String,
    /// What to do.
    pub action: Action,
    /// What must be there for the write to happen.
    pub expect: Expect,
}

/// What a write does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Creates or replaces. The store stamps `meta.versionId` and `meta.lastUpdated`. Where the
    /// stored content is the same but for those two, nothing is written.
    Put(Resource),
    /// Deletes, if there is something to delete.
    Delete,
}

/// What must be there for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything or nothing.
    Any,
    /// No current resource.
    Absent,
    /// The current version has this number (`If-Match: W/"n"`).
    Version(u64),
}

/// What a write did.
#[derive(Debug, Clone)]
pub struct Written {
    /// What happened.
    pub effect: Effect,
    /// The number of the version that is current now. A deletion takes a number too, so that
    /// no number is ever used twice for one id.
    pub version: u64,
    /// `meta.lastUpdated` of the current version, or when it was deleted.
    pub last_updated: Timestamp,
    /// The current version as stored; `None` after a deletion.
    pub json: Option<Bytes>,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// There was no current resource; now there is.
    Created,
    /// A new version replaced the current one.
    Updated,
    /// The current version holds the same: nothing was written.
    Unchanged,
    /// The resource is gone.
    Deleted,
    /// There was nothing to delete: nothing was written.
    Missing,
}

/// Why none of the writes happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// `writes[index]` expected something else than the `found` current version (`None`: no
    /// current resource).
    #[error("the current version is not the expected one")]
    Conflict {
        /// Which write.
        index: usize,
        /// The current version's number.
        found: Option<u64>,
    },
    /// `writes[index]` holds what this store can't keep exactly.
    #[error("{why}")]
    Unstorable {
        /// Which write.
        index: usize,
        /// A sentence that names the member.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
