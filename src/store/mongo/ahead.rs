//! Documents that were looked up too late, and so hold what later events bring. Pure.

use std::collections::HashMap;

use super::{lookup::Place, mapping::Step};
use crate::position::LogPosition;

/// Documents that were read as of a time beyond their event's. What happened to them up to then is
/// no news to who has that event; who begins behind it needs each.
#[derive(Default)]
pub(super) struct Ahead {
    documents: HashMap<Place, AsOf>,
    /// Nothing was read as of a later time.
    pub(super) until: u64,
}

/// A document as it was at a time.
struct AsOf {
    time: u64,
    /// The last change that has brought it so.
    said: LogPosition,
}

impl Ahead {
    /// The change that has brought what this one brings.
    pub(super) fn said(&mut self, step: &Step) -> Option<LogPosition> {
        let time = step.change.position.time;
        if time > self.until {
            self.documents.clear();
        }
        let read = self.documents.get(&step.place()?)?;
        (time <= read.time).then_some(read.said)
    }

    /// A document was read as of a time, for the change at this position.
    pub(super) fn read(&mut self, place: Place, time: u64, said: LogPosition) {
        self.until = self.until.max(time);
        match self.documents.get_mut(&place) {
            // Those who have the earlier change, and not this, know no more than that.
            Some(read) if said.time <= read.time => {
                read.said = if time >= read.time { said } else { read.said };
            }
            _ => drop(self.documents.insert(place, AsOf { time, said })),
        }
    }
}
