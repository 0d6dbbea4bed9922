//! A transcript against the journal. Pure.
//!
//! What is held against a client's events, by the guarantees G1 and G2:
//!
//! - in its history, each resource is what it was at the place that the event's id names, and no
//!   version comes twice, or after a newer one;
//! - where it becomes live, its copy is the database at that place, whole;
//! - from there on, each commit comes, in the order of the log, under its own place;
//! - `caught-up` comes only when all is sent that was written before the client asked;
//! - who has consumed an id resumes by it, and is sent what follows; after `reset`, all anew.

use std::collections::{BTreeMap, BTreeSet};

use fhirtail::{
    client::sse::{Event, Item},
    position::LogPosition,
};
use serde_json::Value;

use super::{
    journal::{Journal, What},
    transcript::{Cursor, Place, Seen, Transcript},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Missing,
    Repeated,
    OutOfOrder,
    /// What was never committed, or not under this id.
    Wrong,
    /// A control event, or the transcript itself, says what does not hold.
    Untrue,
}

#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: Kind,
    /// Which line of the transcript shows it.
    pub line: usize,
    pub what: String,
}

/// What is to be said of one client.
#[derive(Debug, Default)]
pub struct Verdict {
    pub events: usize,
    pub connections: usize,
    pub resets: usize,
    pub caught_up: usize,
    /// How many streams ended with word of a failure.
    pub broken_off: usize,
    /// How often it was told to come again, and nothing else.
    pub turned_away: usize,
    pub faults: Vec<Fault>,
}

impl Verdict {
    pub fn count(&self, kind: Kind) -> usize {
        self.faults.iter().filter(|fault| fault.kind == kind).count()
    }
}

/// Judges a client of these types, that was there until it had all up to `end`, if it was.
pub fn judge(
    journal: &Journal,
    types: &[&str],
    transcript: &Transcript,
    end: Option<LogPosition>,
) -> Verdict {
    let mut judge = Judge::new(journal, types);
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
    types: &'j [&'j str],
    verdict: Verdict,
    line: usize,
    last_id: Option<String>,
    /// Which commit of each resource the client has.
    copy: BTreeMap<String, usize>,
    /// Up to here it has all; `None`: it is in its history.
    live: Option<LogPosition>,
    /// The place of the last snapshot or replayed commit of its history.
    scanned: LogPosition,
    /// Commits that were found missing: they may yet come, out of order.
    missed: BTreeSet<usize>,
    /// Updates without a document: a later version must come in their place, before the client is
    /// told that it has all up to there.
    owed: BTreeMap<String, usize>,
    /// Where it connected: who was cut between the two knows no more than before, and nor does the
    /// server that it comes to. `caught-up` holds all the same.
    began: LogPosition,
    /// Up to where each of its snapshots was read.
    snapshots: Vec<(Cursor, LogPosition)>,
    caught_up: bool,
    written: u64,
    /// What its history did not hold, since its collection was dropped before it was read: its
    /// client is to hear of the drop by a reset.
    dropped: Vec<usize>,
    /// It has heard nothing yet since it connected.
    begins: bool,
}

/// Whether an OperationOutcome says that there is no place, or that the server stops.
fn asks_to_come_again(outcome: &str) -> bool {
    let outcome: Value = serde_json::from_str(outcome).unwrap_or_default();
    let issue = &outcome["issue"][0];
    let said = |name: &str| issue[name].as_str().unwrap_or_default();
    said("code") == "throttled"
        || (said("code") == "transient" && said("diagnostics").ends_with("is stopping"))
}

/// Right behind a place.
const fn behind(at: LogPosition) -> LogPosition {
    LogPosition { time: at.time, consumed: at.consumed + 1 }
}

impl<'j> Judge<'j> {
    fn new(journal: &'j Journal, types: &'j [&'j str]) -> Self {
        Self {
            journal,
            types,
            verdict: Verdict::default(),
            line: 0,
            last_id: None,
            copy: BTreeMap::new(),
            live: None,
            scanned: LogPosition::default(),
            missed: BTreeSet::new(),
            owed: BTreeMap::new(),
            began: LogPosition::default(),
            snapshots: Vec::new(),
            caught_up: false,
            written: 0,
            dropped: Vec::new(),
            begins: false,
        }
    }

    fn fault(&mut self, kind: Kind, what: impl Into<String>) {
        self.verdict.faults.push(Fault { kind, line: self.line, what: what.into() });
    }

    fn wants(&self, url: &str) -> bool {
        url.split_once('/').is_some_and(|(ty, _)| self.types.contains(&ty))
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
        self.began = self.live.unwrap_or_default();
        self.written = written;
    }

    fn starts_over(&mut self) {
        self.copy.clear();
        self.missed.clear();
        self.owed.clear();
        self.snapshots.clear();
        self.dropped.clear();
        self.live = None;
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
                true => self.fault(Kind::Untrue, format!("it fails at once: {}", event.data)),
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
            let had = before.as_deref().and_then(Place::of).map_or(self.scanned, |had| had.at);
            if !self.journal.sweeps(had, self.types) {
                self.fault(Kind::Untrue, format!("a reset without a cause: {}", event.data));
            }
            self.verdict.resets += 1;
            return self.starts_over();
        }
        let Some(place) = Place::of(&event.id) else {
            let what = format!("{} without a place: {event:?}", event.event);
            return self.fault(Kind::Untrue, what);
        };
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
        let ty = self.types.iter().position(|name| *name == ty).unwrap_or_default();
        let cursor = Cursor { ty, id: id.to_owned() };
        let at = self.snapshots.partition_point(|(last, _)| *last < cursor);
        let snapshot = self.snapshots.get(at).or(self.snapshots.last());
        snapshot.map_or(LogPosition::default(), |(_, at)| *at)
    }

    /// The client has all, it is told: also what was left out for something newer. That is still to
    /// come only where nothing is found any more, and a deletion follows.
    fn must_be_paid(&mut self, since: LogPosition) {
        for (url, index) in std::mem::take(&mut self.owed) {
            if self.copy.get(&url).is_some_and(|had| *had >= index) {
                continue;
            }
            if self.journal.get(index).at <= since {
                self.owed.insert(url, index);
                continue;
            }
            let mut later = self.journal.of(&url).iter().filter(|later| **later > index);
            let exact = later
                .find_map(|later| Some(self.journal.get(*later)).filter(|commit| commit.exact));
            match exact.is_some_and(|commit| commit.what.value().is_none()) {
                true => drop(self.owed.insert(url, index)),
                false => self.misses(index),
            }
        }
    }

    fn checkpoint(&mut self, id: &str) {
        self.last_id = Some(id.to_owned());
        self.begins = false;
        match Place::of(id) {
            Some(place) if place.scans => self.reads_on(id, place),
            Some(place) => {
                self.moved_to(place);
                self.must_be_paid(self.began);
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
        self.must_be_paid(LogPosition::default());
        for index in std::mem::take(&mut self.dropped) {
            self.misses(index);
        }
        let rest = self.journal.between(place.at, LogPosition::past(self.written));
        let early =
            rest.map(|index| self.journal.get(index)).find(|commit| self.wants(&commit.url));
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

    /// Whatever lies before `end` must be in the client's copy.
    fn pass(&mut self, end: LogPosition) {
        let Some(live) = self.live else { return self.settle(end) };
        for index in self.journal.between(live, end) {
            let commit = self.journal.get(index);
            let newer = self.copy.get(&commit.url).is_some_and(|had| *had >= index);
            if !self.wants(&commit.url) || newer {
                continue;
            }
            match (&commit.what, commit.exact) {
                (What::Is(_), false) => drop(self.owed.insert(commit.url.clone(), index)),
                _ => self.misses(index),
            }
        }
    }

    fn misses(&mut self, index: usize) {
        let commit = self.journal.get(index);
        let reset = if matches!(commit.what, What::Swept(_)) { ", a reset" } else { "" };
        self.missed.insert(index);
        self.fault(Kind::Missing, format!("{} of {:?}{reset}", commit.url, commit.at));
    }

    /// The history is over: the client's copy must be the database as of right before `end`.
    fn settle(&mut self, end: LogPosition) {
        let journal = self.journal;
        for (url, commits) in journal.resources() {
            let Some(now) = journal.last_before(commits, end).filter(|_| self.wants(url)) else {
                continue;
            };
            let had = self.copy.get(url).copied();
            let is_there = journal.get(now).what.value().is_some();
            let held = had.is_some_and(|had| journal.get(had).what.value().is_some());
            // A document that was looked up may be of a later commit.
            let newer = had.is_some_and(|had| had > now);
            if had == Some(now) || newer || !(is_there || held) {
                continue;
            }
            // A read as of an instant finds nothing of a collection that was dropped since. The
            // client is told so by the reset that the drop asks for.
            let is_drop = |index: &&usize| matches!(journal.get(**index).what, What::Swept(None));
            if commits.iter().filter(|index| **index > now).any(|index| is_drop(&index)) {
                self.dropped.push(now);
                continue;
            }
            // What a snapshot has was not looked up; later it may have been, together with what came.
            let read = journal.last_before(commits, self.read_at(url));
            let was_read = had >= read.filter(|read| journal.get(*read).what.value().is_some());
            if is_there && !journal.get(now).exact && was_read {
                self.owed.insert(url.to_owned(), now);
            } else {
                self.misses(now);
                self.copy.insert(url.to_owned(), now);
            }
        }
    }

    fn resource(&mut self, name: &str, place: Place, data: &str) {
        let value: Value = serde_json::from_str(data).unwrap_or_default();
        let member = |name: &str| value[name].as_str().unwrap_or_default();
        let url = format!("{}/{}", member("resourceType"), member("id"));
        if name != member("resourceType") || !self.wants(&url) {
            return self.fault(Kind::Wrong, format!("{name} with {data}"));
        }
        // Where a version was written more than once, the one that the id names.
        let (journal, named) = (self.journal, behind(place.at));
        let versions = journal.of(&url);
        let before = versions.partition_point(|index| journal.get(*index).at < named);
        let (before, after) = versions.split_at(before);
        let is_it = |index: &&usize| journal.get(**index).what.value() == Some(&value);
        match before.iter().rev().find(is_it).or_else(|| after.iter().find(is_it)).copied() {
            Some(version) => self.takes(url, version, place),
            None => self.fault(Kind::Wrong, format!("never written: {data}")),
        }
    }

    fn deleted(&mut self, place: Place, data: &str) {
        let bundle: Value = serde_json::from_str(data).unwrap_or_default();
        let url = bundle["entry"][0]["request"]["url"].as_str().unwrap_or_default().to_owned();
        let is_it = |index: &usize| {
            let commit = self.journal.get(*index);
            commit.at == place.at && commit.what == What::Gone
        };
        match self.journal.of(&url).iter().copied().find(is_it) {
            Some(version) => self.takes(url, version, place),
            None => self.fault(Kind::Wrong, format!("{url} was not deleted at {:?}", place.at)),
        }
    }

    /// The client takes a commit that was sent under a place.
    fn takes(&mut self, url: String, version: usize, place: Place) {
        let had = self.copy.get(&url).copied();
        let what = format!("{url} of {:?}", self.journal.get(version).at);
        if self.missed.remove(&version) {
            // Not missing, then, but late.
            self.verdict.faults.retain(|f| f.kind != Kind::Missing || !f.what.starts_with(&what));
            self.copy.entry(url).and_modify(|had| *had = version.max(*had)).or_insert(version);
            return self.fault(Kind::OutOfOrder, what);
        }
        match had.cmp(&Some(version)) {
            std::cmp::Ordering::Equal => return self.fault(Kind::Repeated, what),
            std::cmp::Ordering::Greater => return self.fault(Kind::OutOfOrder, what),
            std::cmp::Ordering::Less => {}
        }
        if !self.is_named(&url, version, place) {
            self.fault(Kind::Wrong, format!("{what} under {:?}", place.at));
        }
        match (place.scans, self.live) {
            (true, None) if place.at < self.scanned => {
                self.fault(Kind::OutOfOrder, format!("{what} under {:?}", place.at));
            }
            (true, None) => self.scanned = place.at,
            (true, Some(_)) => self.fault(Kind::Untrue, format!("history after live: {what}")),
            (false, live) if place.at <= live.unwrap_or(self.scanned) => {
                return self.fault(Kind::OutOfOrder, format!("{what} under {:?}", place.at));
            }
            (false, _) => {
                self.pass(place.at);
                self.live = Some(place.at);
            }
        }
        self.copy.insert(url, version);
    }

    /// Whether the place is that of the version: in a scan, that of a snapshot in which it was
    /// the current one; else its own.
    fn is_named(&self, url: &str, version: usize, place: Place) -> bool {
        let of_it = self.journal.of(url);
        if place.scans && place.at.consumed == 0 {
            return self.journal.last_before(of_it, place.at) == Some(version);
        }
        let named = of_it.iter().copied().find(|index| self.journal.get(*index).at == place.at);
        named.is_some_and(|named| {
            named == version || (!self.journal.get(named).exact && named < version)
        })
    }

    fn ends(&mut self, end: LogPosition) {
        self.pass(behind(end));
        for index in std::mem::take(&mut self.dropped) {
            self.misses(index);
        }
        for (url, index) in std::mem::take(&mut self.owed) {
            if self.copy.get(&url).is_none_or(|had| *had < index) {
                self.misses(index);
            }
        }
    }
}
