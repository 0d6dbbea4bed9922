//! What is known of a stream while it is open: counted in the metrics, told once at its end.

use std::{
    sync::{Arc, OnceLock},
    thread,
};

use metrics::{counter, gauge};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tracing::{field, info};

use super::{
    roll::{Asked, Line, Listed, Roll, Whereabouts},
    trace::Trace,
};
use crate::{fhir::ResourceType, position::LogPosition};

/// What a stream is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It waits for a snapshot, or sends one.
    History,
    /// It sends what has changed between two snapshots.
    Replay,
    /// It follows the change log, and is not yet level with it or no longer.
    Behind,
    /// It is level with the change log.
    Live,
}

impl Phase {
    /// All of them, in the order in which a stream goes through them.
    pub const ALL: [Self; 4] = [Self::History, Self::Replay, Self::Behind, Self::Live];

    /// One word, for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Replay => "replay",
            Self::Behind => "behind",
            Self::Live => "live",
        }
    }
}

/// Where a connection says that it is cut off, for those whose streams go over it. They are
/// dropped with it, and can't know.
#[derive(Debug, Clone, Default)]
pub struct CutOff {
    said: Arc<OnceLock<Box<str>>>,
    /// The whole connection's, where it carries other streams too.
    whole: Option<Arc<OnceLock<Box<str>>>>,
}

impl CutOff {
    /// The connection ends, and why.
    pub fn say(&self, why: &str) {
        // The first reason is the one.
        let _ = self.said.set(why.into());
    }

    /// That of one stream among others of a connection whose own this is.
    #[must_use]
    pub fn of_one(&self) -> Self {
        Self { said: Arc::default(), whole: Some(Arc::clone(&self.said)) }
    }

    /// What was said.
    fn why(&self) -> Option<&str> {
        let whole = || self.whole.as_ref()?.get();
        self.said.get().or_else(whole).map(|why| &**why)
    }
}

/// A place among the streams that the server has at once; free again when dropped.
pub type Place = Vec<OwnedSemaphorePermit>;

/// What a stream is let in with.
#[derive(Debug, Default)]
pub struct Admission {
    /// Its place among the server's streams.
    pub place: Place,
    /// Where its connection says why it is cut off.
    pub cut_off: CutOff,
    /// The roll that it is to be on.
    pub roll: Arc<Roll>,
    /// Who asked for it.
    pub asked: Asked,
}

/// A stream while it is open: counted, on the roll, and told of once, when it has ended.
#[derive(Debug)]
pub struct OpenStream {
    line: Listed,
    trace: Trace,
    opened: Instant,
    why: Option<Box<str>>,
    cut_off: CutOff,
    _place: Place,
}

impl OpenStream {
    /// A stream that begins now. `format` is a value of the metrics' label of that name.
    #[must_use]
    pub fn new(format: &'static str, admission: Admission) -> Self {
        let Admission { place, cut_off, roll, asked } = admission;
        counter!("fhirtail_streams_opened_total", "format" => format).increment(1);
        gauge(format, Phase::History).increment(1.0);
        let line = roll.enter(format, asked);
        let trace = Trace::new(line.number, format);
        Self { line, trace, opened: Instant::now(), why: None, cut_off, _place: place }
    }

    /// It has come into a phase.
    pub fn enters(&mut self, phase: Phase) {
        let before = std::mem::replace(&mut self.line.lock().phase, phase);
        if before != phase {
            gauge(self.line.format, before).decrement(1.0);
            gauge(self.line.format, phase).increment(1.0);
            self.trace.enters(phase);
        }
    }

    /// So many events, in so many bytes, are on their way.
    pub fn sent(&mut self, events: u64, bytes: usize) {
        let mut now = self.line.lock();
        now.events += events;
        now.bytes += bytes as u64;
    }

    /// All changes before `at` are on their way: so many events, in so many bytes.
    pub fn delivers(&mut self, at: LogPosition, events: u64, bytes: usize) {
        let mut now = self.line.lock();
        now.at = Some(at);
        now.events += events;
        now.bytes += bytes as u64;
    }

    /// All changes before `at` are on their way. `reading`: the type that its history is at.
    pub fn is_at(&mut self, at: Option<LogPosition>, reading: Option<ResourceType>) {
        let mut now = self.line.lock();
        (now.at, now.reading) = (at, reading);
        let scanned = reading.filter(|_| now.phase == Phase::History);
        drop(now);
        self.trace.reads(scanned);
    }

    /// Why it ends; without a word, it was the client who went, or a defect of ours.
    pub fn ends(&mut self, why: &str) {
        self.why = Some(why.into());
    }
}

/// Adds to what all streams have sent.
pub fn count_sent(format: &'static str, events: u64, bytes: u64) {
    counter!("fhirtail_sent_events_total", "format" => format).increment(events);
    counter!("fhirtail_sent_bytes_total", "format" => format).increment(bytes);
}

fn gauge(format: &'static str, phase: Phase) -> metrics::Gauge {
    gauge!("fhirtail_streams", "format" => format, "phase" => phase.name())
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let Line { number, format, ref asked, .. } = *self.line;
        let Whereabouts { phase, events, bytes, .. } = self.line.now();
        gauge(format, phase).decrement(1.0);
        let is_defect = thread::panicking();
        let unsaid = if is_defect { "a defect" } else { "the client went" };
        let why = self.cut_off.why().or(self.why.as_deref()).unwrap_or(unsaid);
        self.trace.ends(events, bytes, why, is_defect);
        let seconds = self.opened.elapsed().as_secs_f64();
        // What was asked for may name people: the path does not.
        let path = asked.query.split('?').next();
        let (peer, phase) = (asked.peer.map(field::display), phase.name());
        info!(
            stream = number,
            peer, path, format, phase, events, bytes, seconds, why, "stream ended"
        );
    }
}
