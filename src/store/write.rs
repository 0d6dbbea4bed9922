//! What is written, on which condition, and what became of it.

use bytes::Bytes;
use jiff::Timestamp;

use super::StoreError;
use crate::fhir::{ResourceType, resource::Resource};

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
    /// A write breaks a rule that somebody gave the database.
    #[error("{rule}")]
    Rule {
        /// Which of `writes`, where the database says it.
        index: Option<usize>,
        /// The rule.
        rule: Rule,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WriteError {
    /// Which write is at fault.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        match self {
            Self::Conflict { index, .. } | Self::Unstorable { index, .. } => Some(*index),
            Self::Rule { index, .. } => *index,
            Self::Store(_) => None,
        }
    }
}

/// A rule that somebody gave the database, beside those of FHIR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// A unique index, as it was made or by its name.
    #[error("the database has a unique index {0}, and another resource has the same there")]
    Unique(String),
    /// A validator of documents.
    #[error("the database has a validator for this type, which refuses the resource")]
    Validator,
}
