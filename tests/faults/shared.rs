//! What writers, clients, servers and the test itself know of each other.

use std::sync::{
    Mutex, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use jiff::Timestamp;
use serde_json::Value;

use crate::writers::Sink;

/// What a client's stream is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    History,
    Replay,
    CatchUp,
    Live,
}

impl Phase {
    pub(crate) const ALL: [Self; 4] = [Self::History, Self::Replay, Self::CatchUp, Self::Live];
}

pub(crate) struct Shared {
    pub(crate) sink: Sink,
    /// How long a text is that each resource holds.
    pub(crate) padding: usize,
    /// Each change of an observation comes with what it was before.
    pub(crate) keeps_images: bool,
    /// It is the servers that fail: they may not answer.
    pub(crate) servers_fail: bool,
    /// After how many events, at most, a client cuts its stream: the more is written, the more.
    pub(crate) patience: u64,
    /// What some clients' histories go back to.
    pub(crate) since: OnceLock<Timestamp>,
    /// Where the servers are at the moment.
    pub(crate) urls: Mutex<Vec<String>>,
    /// What was acknowledged: `Type/id`, and the resource; `None`, a deletion.
    pub(crate) acknowledged: Mutex<Vec<(String, Option<Value>)>>,
    /// How many commits were not.
    pub(crate) refused: AtomicUsize,
    /// Clients cut their streams no more.
    pub(crate) calm: AtomicBool,
    /// Writers come to an end.
    pub(crate) enough: AtomicBool,
    /// Nothing is written any more; who has all comes once more, to hear just that.
    pub(crate) rest: AtomicBool,
    /// Who comes to this phase reads no further, and cuts its stream once this is another.
    pub(crate) trap: Mutex<Option<Phase>>,
    /// How many have come to it.
    pub(crate) trapped: AtomicUsize,
    /// How many streams ended without a word of why, and how many were not answered.
    pub(crate) ended: AtomicUsize,
    pub(crate) unreached: AtomicUsize,
    /// How many exports went on in a newer snapshot.
    pub(crate) renewed: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(sink: Sink, padding: usize, writers: u64) -> Self {
        Self {
            sink,
            padding,
            keeps_images: true,
            servers_fail: false,
            patience: 130 * writers,
            since: OnceLock::new(),
            urls: Mutex::default(),
            acknowledged: Mutex::default(),
            refused: AtomicUsize::new(0),
            calm: AtomicBool::new(false),
            enough: AtomicBool::new(false),
            rest: AtomicBool::new(false),
            trap: Mutex::new(None),
            trapped: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            unreached: AtomicUsize::new(0),
            renewed: AtomicUsize::new(0),
        }
    }

    /// When this was asked first, to the millisecond, as stores keep it.
    pub(crate) fn since(&self) -> Timestamp {
        let now = || Timestamp::from_millisecond(Timestamp::now().as_millisecond());
        *self.since.get_or_init(|| now().expect("a time"))
    }

    pub(crate) fn acknowledge(&self, write: (String, Option<Value>)) {
        self.acknowledged.lock().expect("no panic while locked").push(write);
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().expect("no panic while locked").len()
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.load(SeqCst)
    }

    /// Where all the servers are.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.urls.lock().expect("no panic while locked").clone()
    }

    pub(crate) fn trap(&self, phase: Option<Phase>) {
        self.trapped.store(0, SeqCst);
        *self.trap.lock().expect("no panic while locked") = phase;
    }

    pub(crate) fn is_trapped(&self, phase: Phase) -> bool {
        *self.trap.lock().expect("no panic while locked") == Some(phase)
    }
}
