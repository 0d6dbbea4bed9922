//! The oracle: what the database's own log says, held against what each client was sent.
//!
//! [`log`] reads the log with a change stream of its own and keeps no code of the product between
//! the database and the [`journal::Journal`]: other cursor, other BSON reader, other counting.
//! [`file`] reads the embedded store's in the same way.
//! [`transcript::Transcript`] is all that one client saw, over all its connections.
//! [`judge::judge`] is pure, and gives a [`verdict::Verdict`]: what is missing, repeated, out of
//! order, wrong or untrue; [`judge::exports`] is the same for a history as lines.

pub mod file;
pub mod journal;
pub mod judge;
pub mod log;
pub mod transcript;
pub mod verdict;
