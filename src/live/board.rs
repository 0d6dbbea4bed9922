//! Who is carried by which lane: the streams behind the ring, the few lanes, and who waits for
//! one. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    entry::Page,
    lane::{Fed, Lane, Pending, Ticket},
};
use crate::{position::LogPosition, store::StoreError};

/// Names a lane for as long as it takes up a slot.
pub(super) type LaneId = u64;

/// A lane that is to be read from its start on.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) lane: LaneId,
    pub(super) start: LogPosition,
    /// Wakes the reader where it stands.
    pub(super) reader: Arc<Notify>,
}

/// What a stream gets that is behind the ring.
#[derive(Debug)]
pub(super) enum Taken {
    /// The next changes, or none yet.
    Page(Page),
    /// It has to wait for a lane.
    Nothing,
    /// Its lane has gone on without it: it has to ask again.
    LeftBehind,
    /// The log no longer holds what follows.
    Lost(StoreError),
}

/// How many streams are carried, how many wait, and by how many lanes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) lanes: usize,
    pub(super) carried: usize,
    pub(super) waiting: usize,
}

/// All lanes and all streams behind the ring.
#[derive(Debug)]
pub(super) struct Board {
    slots: usize,
    lane_bytes: usize,
    /// The next ticket or lane.
    next: u64,
    lanes: BTreeMap<LaneId, Lane>,
    /// In the order in which they asked.
    waiting: BTreeMap<Ticket, (LogPosition, Arc<Notify>)>,
    lost: HashMap<Ticket, StoreError>,
}

impl Board {
    pub(super) fn new(slots: usize, lane_bytes: usize) -> Self {
        let (lanes, waiting, lost) = Default::default();
        Self { slots, lane_bytes, next: 0, lanes, waiting, lost }
    }

    /// A stream wants to be carried from a position on. `home`: where the hub's ring starts.
    pub(super) fn ask(
        &mut self,
        position: LogPosition,
        wake: Arc<Notify>,
        home: LogPosition,
    ) -> (Ticket, Vec<Opening>) {
        let ticket = self.number();
        self.settle(ticket, position, wake, home);
        let openings = self.openings(home);
        if self.waiting.contains_key(&ticket) {
            // Where a lane stands, somebody needs it from now on.
            self.lanes.values().for_each(|lane| lane.reader().notify_one());
        }
        (ticket, openings)
    }

    /// The next changes for a stream that has taken all up to `position`. It has then taken all
    /// up to the page's level.
    pub(super) fn take(&mut self, ticket: Ticket, position: LogPosition, budget: usize) -> Taken {
        let take = |lane: &mut Lane| lane.take(position, ticket, budget);
        if let Some(page) = self.lanes.values_mut().find_map(take) {
            return Taken::Page(page);
        }
        match self.lost.remove(&ticket) {
            Some(lost) => Taken::Lost(lost),
            None if self.waiting.contains_key(&ticket) => Taken::Nothing,
            None => Taken::LeftBehind,
        }
    }

    /// A stream goes, or is back in the ring.
    pub(super) fn leave(&mut self, ticket: Ticket, position: LogPosition) {
        self.waiting.remove(&ticket);
        self.lost.remove(&ticket);
        self.lanes.values_mut().for_each(|lane| lane.leave(position, ticket));
    }

    /// Adds to a lane what was read for it.
    pub(super) fn feed(&mut self, lane: LaneId, pending: &mut Pending) -> Fed {
        self.lanes.get_mut(&lane).map_or(Fed::Nobody, |lane| lane.feed(pending))
    }

    /// For how long the reader of a full lane may stand; `None`: nobody is held up by that.
    pub(super) fn patience(&self, lane: LaneId) -> Option<Duration> {
        self.lanes.get(&lane)?.patience(!self.waiting.is_empty())
    }

    /// The reader of a lane stood for so long while somebody needed it.
    pub(super) fn stood(&mut self, lane: LaneId, time: Duration) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.stood(time);
        }
    }

    /// The log no longer holds what follows a position at which a lane stands. That is true for
    /// whoever has come no further; the others keep their turn.
    pub(super) fn lose(&mut self, lane: LaneId, at: LogPosition, lost: &StoreError) {
        let Some(lane) = self.lanes.get_mut(&lane) else { return };
        for (position, ticket, wake) in lane.close() {
            if position <= at {
                wake.notify_one();
                self.lost.insert(ticket, lost.clone());
            } else {
                self.waiting.insert(ticket, (position, wake));
            }
        }
    }

    /// A lane's reader is closed: its slot is for others.
    pub(super) fn end(&mut self, lane: LaneId, home: LogPosition) -> Vec<Opening> {
        if let Some(mut lane) = self.lanes.remove(&lane) {
            let carried = lane.close().map(|(position, ticket, wake)| (ticket, (position, wake)));
            self.waiting.extend(carried);
        }
        self.settle_all(home);
        self.openings(home)
    }

    pub(super) fn census(&self) -> Census {
        Census {
            lanes: self.lanes.len(),
            carried: self.lanes.values().map(Lane::carries).sum(),
            waiting: self.waiting.len(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn open(&mut self, start: LogPosition) -> Opening {
        let id = self.number();
        let lane = self.lanes.entry(id).or_insert(Lane::new(start, self.lane_bytes));
        Opening { lane: id, start, reader: Arc::clone(lane.reader()) }
    }

    /// Opens lanes while there are slots and streams that wait.
    fn openings(&mut self, home: LogPosition) -> Vec<Opening> {
        let mut openings = Vec::new();
        while self.lanes.len() < self.slots
            && let Some(start) = self.next_start(home)
        {
            openings.push(self.open(start));
            self.settle_all(home);
        }
        openings
    }

    fn settle_all(&mut self, home: LogPosition) {
        for (ticket, (position, wake)) in std::mem::take(&mut self.waiting) {
            self.settle(ticket, position, wake, home);
        }
    }

    /// Puts a stream into the nearest lane that has not passed it, or among those who wait.
    ///
    /// While there is a free slot, only into one that is no farther from the stream than that is
    /// from the ring: it then arrives at most twice as late as alone, and of the way to the ring
    /// each lane leaves the next at most half.
    fn settle(
        &mut self,
        ticket: Ticket,
        position: LogPosition,
        wake: Arc<Notify>,
        home: LogPosition,
    ) {
        let free = self.lanes.len() < self.slots;
        let distances = self.lanes.values_mut().filter_map(|lane| {
            let distance = lane.distance(position)?;
            (!free || is_near(distance, position, home)).then_some((distance, lane))
        });
        match distances.min_by_key(|(distance, _)| *distance) {
            Some((_, lane)) => lane.carry(position, ticket, wake),
            None => drop(self.waiting.insert(ticket, (position, wake))),
        }
    }

    /// Where a lane starts that takes whoever has waited longest: at the oldest of those who
    /// wait near enough behind it.
    fn next_start(&self, home: LogPosition) -> Option<LogPosition> {
        let (head, _) = self.waiting.values().next()?;
        let positions = self.waiting.values().map(|(position, _)| *position);
        let near =
            |position: &LogPosition| is_near(head.time.saturating_sub(position.time), *head, home);
        positions.filter(|position| position <= head).filter(near).min()
    }
}

/// Whether a stream is at least as far from the ring as a lane from the stream.
fn is_near(distance: u64, position: LogPosition, home: LogPosition) -> bool {
    distance <= home.time.saturating_sub(position.time)
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
