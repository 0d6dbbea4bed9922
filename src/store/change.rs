//! Changes as the log gives them.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;

use super::DocId;
use crate::{fhir::ResourceType, position::LogPosition};

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
    /// The position of an earlier change of the same way through the log that has brought what this
    /// one brings, as [`Ahead`](super::Ahead) marks it: see [`Change::is_news_to`].
    pub repeats: Option<LogPosition>,
    /// As of which later time of the log it was looked up, where its own was too long ago: what
    /// befell the resource up to then is in it.
    pub as_of: Option<u64>,
}

impl ChangeBatch {
    /// What a read gave.
    #[must_use]
    pub fn new(changes: Vec<Change>, level: LogPosition, quiet: bool) -> Self {
        Self { changes, level, quiet }
    }
}

impl Change {
    /// One that brings its resource as of itself.
    #[must_use]
    pub fn new(position: LogPosition, committed: Timestamp, kind: ChangeKind) -> Self {
        Self { position, committed, kind, repeats: None, as_of: None }
    }

    /// Where who takes it, and all that follows, has the resource as it is there: at the change
    /// itself, but for one that was looked up late, or that waits for another.
    #[must_use]
    pub fn holds_at(&self) -> LogPosition {
        match (&self.kind, self.as_of) {
            (ChangeKind::Deferred { until, .. }, _) => *until,
            (_, Some(time)) => LogPosition::past(time),
            (_, None) => self.position,
        }
    }

    /// Whether it says anything to who has taken all changes on its way after `origin`. One that
    /// repeats another is for those alone who began behind that.
    #[must_use]
    pub fn is_news_to(&self, origin: LogPosition) -> bool {
        self.repeats.is_none_or(|said| said <= origin)
    }
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
    /// Changed to what nobody has looked up, or nobody can any more: a later change of the resource, be
    /// it its deletion or the end of its collection, tells what became of it.
    Deferred {
        /// The resource's type.
        ty: ResourceType,
        /// All up to here is needed to have that.
        until: LogPosition,
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
    /// About how many bytes it holds.
    pub bytes: usize,
    /// Gives it; `None` where that can't be done. It is encoded once.
    pub encode: Arc<dyn Fn() -> Option<Bytes> + Send + Sync>,
}

impl ChangeKind {
    /// The resource before the change.
    #[must_use]
    pub fn before(&self) -> &Before {
        match self {
            Self::Upsert { before, .. } | Self::Delete { before, .. } => before,
            Self::Deferred { .. } | Self::Replaced { .. } => &Before::Unknown,
        }
    }
}

impl Before {
    /// The resource as compact JSON. `None`: there was none, or there is no telling.
    #[must_use]
    pub fn json(&self) -> Option<Bytes> {
        match self {
            Self::Known(image) => (image.encode)(),
            Self::Absent | Self::Unknown => None,
        }
    }

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
