//! A transcript against the journal. Pure.
//!
//! What is held against a client's events, by the guarantees G1 and G2:
//!
//! - in its history, each resource is what it was at the place that the event's id names, and no
//!   version comes twice, or after a newer one;
//! - where it becomes live, its copy is the database at that place, whole;
//! - `_since` narrows that by `meta.lastUpdated`: what was not updated later it need not hold, unless
//!   it was changed since the history began;
//! - from there on, each commit comes, in the order of the log, under its own place;
//! - what its search no longer finds is told as a deletion that says so, once; what it finds neither
//!   before a commit nor after it is told by nothing;
//! - `caught-up` comes only when all is sent that was written before the client asked;
//! - who has consumed an id resumes by it, and is sent what follows; after `reset`, all anew.

pub mod exports;
mod lacking;
mod sent;

use std::collections::{BTreeMap, BTreeSet};

use fhirtail::{
    client::sse::{Event, Item},
    position::LogPosition,
};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    journal::{Commit, Journal, What},
    transcript::{Cursor, Place, Seen, Transcript},
    verdict::{Fault, Kind, Verdict},
};

/// What a client asks for. Where that is a part of its types, the journal is
/// [narrowed](Journal::narrowed) to it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub types: &'a [&'a str],
    /// Its `_since`.
    pub since: Option<Timestamp>,
}

impl<'a> Asked<'a> {
    /// All of these types.
    pub const fn all(types: &'a [&'a str]) -> Self {
        Self { types, since: None }
    }

    /// Whether a history holds a resource.
    fn is_later(&self, resource: &Value) -> bool {
        let updated = resource["meta"]["lastUpdated"].as_str().and_then(|text| text.parse().ok());
        self.since.is_none_or(|since| updated.is_some_and(|updated: Timestamp| updated > since))
    }
}

/// Judges a client that was there until it had all up to `end`, if it was.
pub fn judge(
    journal: &Journal,
    asked: Asked<'_>,
    transcript: &Transcript,
    end: Option<LogPosition>,
) -> Verdict {
    let mut judge = Judge::new(journal, asked);
    for (line, seen) in transcript.seen.iter().enumerate() {
        judge.line = line;
        match seen {
            Seen::Connected { from, written } => judge.connected(from.as_deref(), *written),
            Seen::Said(Item::Event(event)) => judge.event(event),
            Seen::Said(Item::Checkpoint(id)) => judge.checkpoint(id),
            Seen::Said(Item::Retry(_)) => {}
        }
    }
    if let Some(end) = end {
        judge.ends(end);
    }
    judge.verdict
}

struct Judge<'j> {
    journal: &'j Journal,
    asked: Asked<'j>,
    verdict: Verdict,
    line: usize,
    last_id: Option<String>,
    /// Which commit of each resource the client has.
    copy: BTreeMap<String, usize>,
    /// Up to here it has all; `None`: it is in its history.
    live: Option<LogPosition>,
    /// The first place of its history: what is written from there on comes, whenever it says that it
    /// was updated.
    first: Option<Place>,
    /// The place of the last snapshot or replayed commit of its history.
    scanned: LogPosition,
    /// Commits that were found missing: they may yet come, out of order.
    missed: BTreeSet<usize>,
    /// Updates without a document: a later version must come in their place, before the client is
    /// told that it has all up to there.
    owed: BTreeMap<String, usize>,
    /// Up to where each of its snapshots was read.
    snapshots: Vec<(Cursor, LogPosition)>,
    caught_up: bool,
    written: u64,
    /// What its history did not hold, since its collection was dropped before it was read: its
    /// client is to hear of the drop by a reset.
    dropped: Vec<usize>,
    /// It has heard nothing yet since it connected.
    begins: bool,
    /// What the last reset was for. It is behind all that the client hears next.
    swept: LogPosition,
    starts_behind: Option<LogPosition>,
}

/// Whether an OperationOutcome says that there is no place, or that the server stops.
fn asks_to_come_again(outcome: &str) -> bool {
    let outcome: Value = serde_json::from_str(outcome).unwrap_or_default();
    let issue = &outcome["issue"][0];
    let said = |name: &str| issue[name].as_str().unwrap_or_default();
    said("code") == "throttled"
        || (said("code") == "transient" && said("diagnostics").ends_with("is stopping"))
}

/// Whether an OperationOutcome says that the store did not answer.
fn is_unanswered(outcome: &str) -> bool {
    let outcome: Value = serde_json::from_str(outcome).unwrap_or_default();
    let issue = &outcome["issue"][0];
    let why = issue["diagnostics"].as_str().unwrap_or_default();
    issue["code"] == "transient" && why.starts_with("the store does not answer")
}

/// Right behind a place.
const fn behind(at: LogPosition) -> LogPosition {
    LogPosition { time: at.time, consumed: at.consumed + 1 }
}

impl<'j> Judge<'j> {
    fn new(journal: &'j Journal, asked: Asked<'j>) -> Self {
        Self {
            journal,
            asked,
            verdict: Verdict::default(),
            line: 0,
            last_id: None,
            copy: BTreeMap::new(),
            live: None,
            first: None,
            scanned: LogPosition::default(),
            missed: BTreeSet::new(),
            owed: BTreeMap::new(),
            snapshots: Vec::new(),
            caught_up: false,
            written: 0,
            dropped: Vec::new(),
            begins: false,
            swept: LogPosition::default(),
            starts_behind: None,
        }
    }

    fn fault(&mut self, kind: Kind, what: impl Into<String>) {
        self.verdict.faults.push(Fault { kind, line: self.line, what: what.into() });
    }

    fn wants(&self, url: &str) -> bool {
        url.split_once('/').is_some_and(|(ty, _)| self.asked.types.contains(&ty))
    }

    /// Whether the client is to hear of a commit.
    fn awaits(&self, commit: &Commit) -> bool {
        commit.what != What::Unseen && self.wants(&commit.url)
    }

    fn connected(&mut self, from: Option<&str>, written: u64) {
        self.verdict.connections += 1;
        self.begins = true;
        if from != self.last_id.as_deref() {
            self.fault(
                Kind::Untrue,
                format!("it resumes from {from:?}, having {:?}", self.last_id),
            );
        }
        if from.is_none() {
            self.starts_over();
        }
        self.caught_up = false;
        self.written = written;
    }

    fn starts_over(&mut self) {
        self.copy.clear();
        self.missed.clear();
        self.owed.clear();
        self.snapshots.clear();
        self.dropped.clear();
        self.live = None;
        self.first = None;
        self.scanned = LogPosition::default();
        self.caught_up = false;
    }

    fn event(&mut self, event: &Event) {
        self.verdict.events += 1;
        let begins = std::mem::take(&mut self.begins);
        if event.event == "OperationOutcome" {
            // Why a stream ends: it changes nothing, and has no id.
            match begins {
                true if asks_to_come_again(&event.data) => self.verdict.turned_away += 1,
                true => self.fails_at_once(&event.data),
                false => self.verdict.broken_off += 1,
            }
            return;
        }
        let before = std::mem::take(&mut self.last_id);
        self.last_id = Some(event.id.clone()).filter(|id| !id.is_empty());
        if event.event == "reset" {
            if !event.id.is_empty() {
                self.fault(Kind::Untrue, "a reset with an id");
            }
            let had = before.as_deref().and_then(Place::of).map(|had| had.at);
            return self.reset(had, &event.data);
        }
        let Some(place) = Place::of(&event.id) else {
            let what = format!("{} without a place: {event:?}", event.event);
            return self.fault(Kind::Untrue, what);
        };
        self.is_behind_its_reset(place);
        self.first.get_or_insert(place);
        match event.event.as_str() {
            "caught-up" => self.is_caught_up(place),
            "fell-behind" => {
                if !std::mem::take(&mut self.caught_up) {
                    self.fault(Kind::Untrue, "it fell behind without having caught up");
                }
                self.moved_to(place);
            }
            "deleted" => self.deleted(place, &event.data),
            name => self.resource(name, place, &event.data),
        }
        if place.scans {
            self.reads_on(&event.id, place);
        }
    }

    /// A collection of its went behind what it had: behind its last id, or, where it has none, behind
    /// what was written before it asked, and what an earlier reset was for.
    fn reset(&mut self, had: Option<LogPosition>, why: &str) {
        let had = had.unwrap_or_else(|| self.swept.max(LogPosition::past(self.written)));
        match self.journal.next_sweep(had, self.asked.types) {
            Some(at) => (self.swept, self.starts_behind) = (at, Some(at)),
            None => self.fault(Kind::Untrue, format!("a reset without a cause: {why}")),
        }
        self.verdict.resets += 1;
        self.starts_over();
    }

    fn is_behind_its_reset(&mut self, place: Place) {
        if let Some(at) = self.starts_behind.take_if(|at| *at > place.at) {
            self.fault(Kind::Untrue, format!("a reset ahead of its cause at {at:?}"));
        }
        self.starts_behind = None;
    }

    /// All that is said is why there is no stream. Of one that goes on the store is asked nothing
    /// before it begins.
    fn fails_at_once(&mut self, outcome: &str) {
        let kind = match self.last_id.is_none() && is_unanswered(outcome) {
            true => Kind::Unanswered,
            false => Kind::Untrue,
        };
        self.fault(kind, format!("it fails: {outcome}"));
    }

    /// A snapshot has been read up to here. What is replayed leaves that as it is.
    fn reads_on(&mut self, id: &str, place: Place) {
        let Some(cursor) = Cursor::of(id) else {
            return self.fault(Kind::Untrue, format!("a history without a cursor: {id}"));
        };
        match self.snapshots.last_mut() {
            Some((last, _)) if *last > cursor => {
                self.fault(Kind::OutOfOrder, format!("back to {cursor:?}"));
            }
            Some((last, _)) if *last == cursor => {}
            Some((last, at)) if *at == place.at => *last = cursor,
            _ => self.snapshots.push((cursor, place.at)),
        }
    }

    /// As of where a resource was read; what was written later it was, or will be, sent anew. The
    /// last snapshot may have been read to the end.
    fn read_at(&self, url: &str) -> LogPosition {
        let (ty, id) = url.split_once('/').unwrap_or_default();
        let ty = self.asked.types.iter().position(|name| *name == ty).unwrap_or_default();
        let cursor = Cursor { ty, updated: None, id: id.to_owned() };
        // Along the time a resource moves: it was read in the first one of its type, or later.
        let at = self.snapshots.partition_point(|(last, _)| *last < cursor);
        let snapshot = self.snapshots.get(at).or(self.snapshots.last());
        snapshot.map_or(LogPosition::default(), |(_, at)| *at)
    }

    fn checkpoint(&mut self, id: &str) {
        self.last_id = Some(id.to_owned());
        self.begins = false;
        let place = Place::of(id);
        if let Some(place) = place {
            self.is_behind_its_reset(place);
            self.first.get_or_insert(place);
        }
        match place {
            Some(place) if place.scans => self.reads_on(id, place),
            Some(place) => {
                self.moved_to(place);
            }
            None => self.fault(Kind::Untrue, format!("a checkpoint without a place: {id}")),
        }
    }

    fn is_caught_up(&mut self, place: Place) {
        self.verdict.caught_up += 1;
        if std::mem::replace(&mut self.caught_up, true) {
            self.fault(Kind::Untrue, "caught up twice");
        }
        self.moved_to(place);
        self.must_be_paid();
        for index in std::mem::take(&mut self.dropped) {
            self.misses(index);
        }
        let rest = self.journal.between(place.at, LogPosition::past(self.written));
        let early = rest.map(|index| self.journal.get(index)).find(|commit| self.awaits(commit));
        if let Some(commit) = early {
            let what = format!("caught up before {} of {:?}", commit.url, commit.at);
            self.fault(Kind::Untrue, what);
        }
    }

    /// All up to a place is sent, says the server.
    fn moved_to(&mut self, place: Place) {
        if place.scans {
            return self.fault(Kind::Untrue, "a control event in the history");
        }
        let before = self.live.unwrap_or(self.scanned);
        // Right behind the last commit of a time, and before the next time, are one place.
        if !self.journal.between(place.at, behind(before)).is_empty() {
            return self.fault(Kind::OutOfOrder, format!("back to {:?}", place.at));
        }
        let place = place.at.max(before);
        self.pass(behind(place));
        self.live = Some(place);
    }
}
