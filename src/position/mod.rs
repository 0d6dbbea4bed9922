//! Positions: the ids of events, from which anyone goes on anywhere.
//!
//! A position is a fact about the database, not about a process. Its text, numbers in base 36:
//!
//! ```text
//! live      1l~epoch~seconds.increment.consumed[~members]
//! history   1h~epoch~seconds.increment.consumed~query[.members]~type~key
//! key       i<id>  |  o<ObjectId in hex>  |  b<id in base64url>  |  u<ms>.<one of the former>
//! ```
//!
//! `seconds.increment` is a cluster time, `consumed` how many changes of that time are consumed
//! (the writes of one transaction share a time). Pure: no I/O, no clock.

use crate::store::ScanKey;

mod hash;
mod text;

pub use hash::StableHash;
pub use text::write_key;

/// Which log a position belongs to: derived from the replica set's id, or drawn when an
/// embedded store is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

/// A point between two changes of the log.
///
/// Everything before `time`, and the first `consumed` changes at `time`, lie before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// A cluster time (seconds since 1970 in the upper 32 bits, increment in the lower), or the
    /// sequence number of an embedded store's log.
    pub time: u64,
    /// How many changes of that time are consumed.
    pub consumed: u32,
}

impl LogPosition {
    /// Before every change at `time`.
    #[must_use]
    pub const fn before(time: u64) -> Self {
        Self { time, consumed: 0 }
    }

    /// After every change at `time`.
    #[must_use]
    pub const fn past(time: u64) -> Self {
        Self::before(time.saturating_add(1))
    }
}

/// A client's whole state: all that it has been sent lies before it, all else after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Which log.
    pub epoch: Epoch,
    /// All changes before this are sent (in history: for the part that is scanned).
    pub log: LogPosition,
    /// A hash of the group's members, in streams of a group.
    pub members: Option<u32>,
    /// How far the scan has come; `None`: it is done, the stream is live.
    pub scan: Option<ScanPosition>,
}

/// How far a stream's history has come.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanPosition {
    /// A hash of the query that the scan answers.
    pub query: u32,
    /// The index of the type in the plan. All before it are done.
    pub type_index: usize,
    /// The last key of that type that was sent.
    pub key: ScanKey,
}

/// Why a text is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// What the positions of one type's scan share: their texts begin with its text, and end with
/// their key's, which [`write_key`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Stem {
    /// Which log.
    pub epoch: Epoch,
    /// Where in the log the snapshot lies that is scanned.
    pub log: LogPosition,
    /// A hash of the group's members, in streams of a group.
    pub members: Option<u32>,
    /// A hash of the query.
    pub query: u32,
    /// The index of the type in the plan.
    pub type_index: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_log_are_ordered() {
        let time = LogPosition::before(7);
        assert!(time < LogPosition { time: 7, consumed: 1 });
        assert!(LogPosition { time: 7, consumed: 9 } < LogPosition::past(7));
        assert_eq!(LogPosition::past(7), LogPosition::before(8));
    }
}
