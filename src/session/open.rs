//! What is known of a stream while it is open: counted in the metrics, told once at its end.

use std::sync::{Arc, OnceLock};

use metrics::{counter, gauge};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tracing::info;

/// What a stream is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    const fn name(self) -> &'static str {
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
pub struct CutOff(Arc<OnceLock<Box<str>>>);

impl CutOff {
    /// The connection ends, and why.
    pub fn say(&self, why: &str) {
        // The first reason is the one.
        let _ = self.0.set(why.into());
    }
}

/// A place among the streams that the server has at once; free again when dropped.
pub type Place = Vec<OwnedSemaphorePermit>;

/// Counts a stream while it is open, and tells once how it ended.
#[derive(Debug)]
pub struct OpenStream {
    format: &'static str,
    phase: Phase,
    opened: Instant,
    events: u64,
    bytes: u64,
    why: Option<Box<str>>,
    cut_off: CutOff,
    _place: Place,
}

impl OpenStream {
    /// A stream that begins now. `format` is a value of the metrics' label of that name.
    #[must_use]
    pub fn new(format: &'static str, place: Place, cut_off: CutOff) -> Self {
        counter!("fhirtail_streams_opened_total", "format" => format).increment(1);
        let phase = Phase::History;
        gauge(format, phase).increment(1.0);
        let opened = Instant::now();
        Self { format, phase, opened, events: 0, bytes: 0, why: None, cut_off, _place: place }
    }

    /// It has come into a phase.
    pub fn enters(&mut self, phase: Phase) {
        if self.phase != phase {
            gauge(self.format, self.phase).decrement(1.0);
            gauge(self.format, phase).increment(1.0);
            self.phase = phase;
        }
    }

    /// So many events, in so many bytes, are on their way.
    pub fn sent(&mut self, events: u64, bytes: usize) {
        self.events += events;
        self.bytes += bytes as u64;
    }

    /// Why it ends; without a word, it was the client who went.
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
        gauge(self.format, self.phase).decrement(1.0);
        let Self { format, events, bytes, .. } = self;
        let why = self.cut_off.0.get().or(self.why.as_ref());
        let why = why.map_or("the client went", |why| &**why);
        let seconds = self.opened.elapsed().as_secs_f64();
        info!(format, events, bytes, seconds, why, "stream ended");
    }
}
