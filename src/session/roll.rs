//! The roll: all open streams, who asked for each, and where it is. Each stream keeps its own line;
//! `/streams` reads them all.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::open::Phase;
use crate::{fhir::ResourceType, position::LogPosition};

/// Who asked for a stream, and for what.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The other end of the connection: a proxy's, where there is one.
    pub peer: Option<SocketAddr>,
    /// For whom a proxy says that it asks. Anybody can say so.
    pub forwarded: Option<Box<str>>,
    /// Path and query, without the position.
    pub query: Box<str>,
}

/// Where a stream is, and what it has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whereabouts {
    /// What it is doing.
    pub phase: Phase,
    /// All changes before this are delivered; in a history, those that its snapshot holds. `None`:
    /// it has none yet, or is a search.
    pub at: Option<LogPosition>,
    /// The type that its history is at.
    pub reading: Option<ResourceType>,
    /// Events or lines given to its socket.
    pub events: u64,
    /// Their bytes, before compression.
    pub bytes: u64,
}

/// One open stream.
#[derive(Debug)]
pub struct Line {
    /// Counts the streams of this process.
    pub number: u64,
    /// When it was opened.
    pub since: Timestamp,
    /// `sse`, `ndjson` or `bundle`.
    pub format: &'static str,
    /// Who asked, for what.
    pub asked: Asked,
    now: Mutex<Whereabouts>,
}

impl Line {
    /// Where it is.
    #[must_use]
    pub fn now(&self) -> Whereabouts {
        *self.lock()
    }

    /// Changes where it is.
    pub(super) fn lock(&self) -> MutexGuard<'_, Whereabouts> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All open streams of a process.
#[derive(Debug, Default)]
pub struct Roll(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    last: u64,
    open: BTreeMap<u64, Arc<Line>>,
}

impl Roll {
    /// A stream is open, until what this gives is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, format: &'static str, asked: Asked) -> Listed {
        let (phase, at, reading) = (Phase::History, None, None);
        let now = Mutex::new(Whereabouts { phase, at, reading, events: 0, bytes: 0 });
        let since = Timestamp::now();
        let mut lines = self.lock();
        lines.last += 1;
        let line = Arc::new(Line { number: lines.last, since, format, asked, now });
        lines.open.insert(line.number, Arc::clone(&line));
        Listed { line, roll: Arc::clone(self) }
    }

    /// The open streams, the oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<Arc<Line>> {
        self.lock().open.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's line, for as long as the stream is open.
#[derive(Debug)]
pub struct Listed {
    line: Arc<Line>,
    roll: Arc<Roll>,
}

impl std::ops::Deref for Listed {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.line
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.roll.lock().open.remove(&self.line.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_open_is_on_the_roll_in_the_order_of_coming() {
        let roll = Arc::new(Roll::default());
        let [first, second, third] = [1, 2, 3].map(|_| roll.enter("sse", Asked::default()));
        drop(second);
        first.lock().events = 7;
        let lines = roll.lines();
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((lines[0].now().events, lines[0].now().phase), (7, Phase::History));
        drop((first, third));
        assert!(roll.lines().is_empty(), "though somebody still reads the lines");
        assert_eq!(roll.enter("sse", Asked::default()).number, 4);
    }
}
