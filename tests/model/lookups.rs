//! Updates that come without their document, as a reader of such a log completes them: the last of
//! a resource in what is read at once gets what a look-up finds, those before it are deferred to it.
//!
//! A look-up finds what was there when the last change of that read was made, or, where that is too
//! long ago, what was there later.

use std::collections::HashMap;

use fhirtail::{
    position::LogPosition,
    store::{Change, ChangeKind},
};

use crate::world::{Key, Logged, World};

/// A reader's memory.
#[derive(Default)]
pub struct LookUps {
    /// As of when it last looked.
    looked: u64,
}

impl LookUps {
    /// `late`: the time of the part itself is too long ago; `later`: that of the last look-up too.
    pub fn complete(
        &mut self,
        part: &[Logged],
        world: &World,
        [late, later]: [bool; 2],
    ) -> Vec<Change> {
        let Some(end) = part.last().map(|logged| logged.change.position) else {
            return Vec::new();
        };
        let seen = match late {
            false => end.time,
            true if self.looked >= end.time && !later => self.looked,
            true => world.now(),
        };
        self.looked = self.looked.max(seen);
        let state = world.state_at(LogPosition::past(seen));
        let last: HashMap<&Key, LogPosition> =
            part.iter().filter_map(|l| Some((l.key()?, l.change.position))).collect();
        // Where what is found of a resource is told.
        let told = |key: &Key| {
            let is_last = |l: &&Logged| l.key() == Some(key) && l.change.position == last[key];
            let is_told = |l: &Logged| !l.is_open() || state.contains_key(key);
            part.iter().find(is_last).filter(|l| is_told(l)).map(|l| l.change.position)
        };
        let complete = |logged: &Logged| {
            let mut change = logged.change.clone();
            let Some(key) = logged.key().filter(|_| logged.is_open()) else { return change };
            let found = state.get(key).filter(|_| last[key] == change.position);
            if let ChangeKind::Upsert { ty, json, updated_ms, .. } = &mut change.kind {
                if let Some(found) = found {
                    (*json, *updated_ms) = (found.json.clone(), found.updated_ms);
                    change.as_of = (seen > end.time).then_some(seen);
                } else {
                    let until = next(part, logged).or_else(|| told(key));
                    let until = until.unwrap_or(LogPosition::past(seen));
                    change.kind = ChangeKind::Deferred { ty: *ty, until };
                }
            }
            change
        };
        part.iter().map(complete).collect()
    }
}

/// The next change of the same resource that needs no look-up.
fn next(part: &[Logged], logged: &Logged) -> Option<LogPosition> {
    let behind = part.iter().filter(|l| l.change.position > logged.change.position);
    let mut theirs = behind.filter(|l| l.key() == logged.key() && !l.is_open());
    theirs.next().map(|l| l.change.position)
}
