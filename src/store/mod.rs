//! The store contract: reads as of one instant, the change log after an instant, and writes.
//!
//! Two implementations, [`mongo`] and [`embedded`], pass one conformance suite
//! (`tests/conformance.rs`). Nothing above this module knows which of them it talks to.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    fhir::ResourceType,
    position::{Epoch, LogPosition},
};

mod ahead;
mod batch;
mod change;
mod clue;
mod detached;
pub mod embedded;
mod key;
pub mod mongo;
mod open;
mod scan;
mod write;

pub use ahead::Ahead;
pub use batch::{ScanBatch, Scanned};
pub use change::{Before, Change, ChangeBatch, ChangeKind, Image};
pub use clue::{Clue, Place, Sought};
pub use detached::detached;
pub use key::{DocId, DocRef, KeyRef, ScanKey};
pub use open::{MONGODB_SCHEMES, OpenError, open};
pub use scan::{Along, Scan, Window};
pub use write::{Action, Effect, Expect, Lookup, Rule, Write, WriteError, Written};

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

/// How far apart two places of a log are, as that log counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// So many changes.
    Changes(u64),
    /// So many seconds between two commits.
    Seconds(u64),
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
    /// honours if that is younger. Never past the [`head`](Self::head): who has all that was written
    /// would lie before it, until somebody writes.
    async fn recent(&self, back: Duration) -> Result<LogPosition, StoreError>;

    /// When the oldest entry was made that the log still holds: as of then, all positions work.
    /// `None`: it holds none, or the store may not be asked (which it logs once).
    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError>;

    /// How far it is from a place of the log to a later one; none from a later to an earlier one.
    fn distance(&self, from: LogPosition, to: LogPosition) -> Distance {
        // A log that numbers its changes.
        let count = |place: LogPosition| place.time.saturating_add(place.consumed.into());
        Distance::Changes(count(to).saturating_sub(count(from)))
    }

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
