//! Updates that come without their document, as a reader of such a log completes them: the last of
//! a resource in what is read at once gets what a look-up finds, those before it give way.
//!
//! A look-up finds what was there when the last change of that read was made, or, where that is too
//! long ago, what was there later.

use std::collections::{HashMap, HashSet};

use fhirtail::{
    position::LogPosition,
    store::{Change, ChangeKind},
};

use crate::world::{Key, Logged, World};

/// A reader's memory.
#[derive(Default)]
pub struct LookUps {
    /// Whose updates have given way to what is still to come.
    owed: HashSet<Key>,
    /// As of when it last looked.
    looked: u64,
}

/// What is brought of a part of the log.
#[derive(Default)]
pub struct Completed {
    pub changes: Vec<Change>,
    pub owing: Vec<(LogPosition, LogPosition)>,
}

impl LookUps {
    /// `late`: the time of the part itself is too long ago; `later`: that of the last look-up too.
    pub fn complete(
        &mut self,
        part: &[Logged],
        world: &World,
        [late, later]: [bool; 2],
    ) -> Completed {
        let Some(end) = part.last().map(|logged| logged.change.position) else {
            return Completed::default();
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
        let (mut done, mut since) = (Completed::default(), None);
        for logged in part {
            let mut change = logged.change.clone();
            if let (Some(key), true) = (logged.key(), logged.is_open()) {
                let found = state.get(key).filter(|_| last[key] == change.position);
                let Some(found) = found else {
                    self.owed.insert(key.clone());
                    continue;
                };
                if let ChangeKind::Upsert { json, updated_ms, .. } = &mut change.kind {
                    (*json, *updated_ms) = (found.json.clone(), found.updated_ms);
                }
                change.as_of = (seen > end.time).then_some(seen);
            }
            match (&change.kind, logged.key()) {
                (ChangeKind::Replaced { ty }, _) => self.owed.retain(|(of, _)| of != ty),
                (_, Some(key)) => drop(self.owed.remove(key)),
                (_, None) => {}
            }
            if !self.owed.is_empty() {
                since.get_or_insert(change.position);
            } else if let Some(since) = since.take() {
                done.owing.push((since, change.position));
            }
            done.changes.push(change);
        }
        let last = done.changes.last().map(|change| change.position);
        done.owing.extend(since.zip(last));
        done
    }
}
