//! What a client lacks where it is told that it has all up to a place.

use fhirtail::position::LogPosition;

use super::{
    super::{journal::What, verdict::Kind},
    Judge, behind,
};

impl Judge<'_> {
    /// The client has all, it is told: also what was left out for something newer.
    pub(super) fn must_be_paid(&mut self) {
        for (url, index) in std::mem::take(&mut self.owed) {
            if self.copy.get(&url).is_some_and(|had| *had >= index) {
                continue;
            }
            self.misses(index);
        }
    }

    /// Whatever lies before `end` must be in the client's copy.
    pub(super) fn pass(&mut self, end: LogPosition) {
        let Some(live) = self.live else { return self.settle(end) };
        for index in self.journal.between(live, end) {
            let commit = self.journal.get(index);
            let newer = self.copy.get(&commit.url).is_some_and(|had| *had >= index);
            if !self.awaits(commit) || newer {
                continue;
            }
            match (&commit.what, commit.exact) {
                (What::Is(_), false) => drop(self.owed.insert(commit.url.clone(), index)),
                _ => self.misses(index),
            }
        }
    }

    pub(super) fn misses(&mut self, index: usize) {
        let commit = self.journal.get(index);
        let reset = if matches!(commit.what, What::Swept(_)) { ", a reset" } else { "" };
        self.missed.insert(index);
        self.fault(Kind::Missing, format!("{} of {:?}{reset}", commit.url, commit.at));
    }

    /// The history is over: the client's copy must be the database as of right before `end`.
    pub(super) fn settle(&mut self, end: LogPosition) {
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
            if !held && !self.is_asked_for(now) {
                continue;
            }
            // A read as of an instant finds nothing of a collection that was dropped since, be the
            // resource still there by then or not. The client is told so by the reset that the drop
            // asks for.
            let ty = url.split_once('/').map_or("", |(ty, _)| ty);
            if had.is_none() && journal.next_sweep(journal.get(now).at, &[ty]).is_some() {
                self.dropped.push(now);
                continue;
            }
            // What a snapshot has was not looked up; later it may have been, together with what came.
            let read = journal.last_before(commits, self.read_at(url));
            // What its history does not hold came as a change, unless that was looked up.
            let is_held = |read: &usize| {
                let commit = journal.get(*read);
                let scanned = commit.what.value().is_some_and(|value| self.asked.is_later(value));
                let came =
                    commit.what.value().is_some() && commit.exact && self.is_asked_for(*read);
                scanned || came
            };
            let was_read = had >= read.filter(is_held);
            if is_there && !journal.get(now).exact && was_read {
                self.owed.insert(url.to_owned(), now);
            } else {
                self.misses(now);
                self.copy.insert(url.to_owned(), now);
            }
        }
    }

    /// Whether the history has to hold a commit.
    fn is_asked_for(&self, index: usize) -> bool {
        let commit = self.journal.get(index);
        let came_later = self.first.is_some_and(|first| match first.scans {
            true => commit.at >= first.at,
            false => commit.at > first.at,
        });
        came_later || commit.what.value().is_some_and(|value| self.asked.is_later(value))
    }

    pub(super) fn ends(&mut self, end: LogPosition) {
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
