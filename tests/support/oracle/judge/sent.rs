//! What a client is sent: a commit, under its own place, and none that it has.

use serde_json::Value;

use super::{
    super::{journal::What, transcript::Place, verdict::Kind},
    Judge, behind,
};

impl Judge<'_> {
    pub(super) fn resource(&mut self, name: &str, place: Place, data: &str) {
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
        if place.scans && place.at.consumed == 0 && !self.asked.is_later(&value) {
            self.fault(Kind::Untrue, format!("a history of what was not updated since: {data}"));
        }
        match before.iter().rev().find(is_it).or_else(|| after.iter().find(is_it)).copied() {
            Some(version) => self.takes(url, version, place),
            None => self.fault(Kind::Wrong, format!("never written: {data}")),
        }
    }

    pub(super) fn deleted(&mut self, place: Place, data: &str) {
        let bundle: Value = serde_json::from_str(data).unwrap_or_default();
        let url = bundle["entry"][0]["request"]["url"].as_str().unwrap_or_default().to_owned();
        let (said, what) = match bundle["meta"]["tag"][0]["code"].as_str() {
            None => ("deleted", What::Gone),
            Some("left-stream") => ("left", What::Left),
            Some(_) => return self.fault(Kind::Wrong, format!("gone for no known reason: {data}")),
        };
        let is_it = |index: &usize| {
            let commit = self.journal.get(*index);
            commit.at == place.at && commit.what == what
        };
        match self.journal.of(&url).iter().copied().find(is_it) {
            Some(version) => {
                self.verdict.left += usize::from(what == What::Left);
                self.takes(url, version, place);
            }
            None => self.fault(Kind::Wrong, format!("{url} was not {said} at {:?}", place.at)),
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
}
