//! The live part: one tail reads the change log into a ring, and every stream follows the ring.
//!
//! `follow(P)` delivers every change after P, from the ring where it reaches back that far, else
//! through a private reader until it does. The handoff from a history, a resume and a client
//! that fell behind are the same call.

mod follow;
mod hub;
mod reader;
mod ring;

pub use follow::{Follow, Followed};
pub use hub::{Hub, HubOptions};
pub use ring::{Entry, Page};
