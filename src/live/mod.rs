//! The live part: one tail reads the change log into a ring, and every stream follows the ring.
//!
//! `follow(P)` delivers every change after P, from the ring where it reaches back that far, else
//! from a lane until it does: one of few readers of the log, each of which carries all streams
//! that it meets on its way to the ring. The handoff from a history, a resume and a client that
//! fell behind are the same call.
//!
//! ```text
//!   the log ──▶ tail ──▶ ring ─────────────────────▶ follow ─▶ session
//!          └──▶ reader ─▶ lane (a ring of its own) ──▶ ┘
//! ```

mod beat;
mod board;
mod entry;
mod follow;
mod head;
mod headroom;
mod hub;
mod lane;
mod lanes;
mod reader;
mod ring;

pub use entry::{Entry, Page};
pub use follow::{Follow, Followed};
pub use hub::{Hub, HubOptions};
