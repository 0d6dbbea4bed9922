//! The commands that stand on the other side of the socket: [`follow`] reads a stream, [`load`]
//! fills a store, [`health`] asks whether the server lives.

mod backoff;
pub mod follow;
pub mod health;
mod http;
pub mod load;
pub mod sse;

use std::io::{self, Write};

/// Why a command ends, as one line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A line for people, on stderr. That it is closed is no reason to stop.
fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "fhirtail: {text}");
}
