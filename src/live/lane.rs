//! A lane: a small ring of its own behind the hub's, fed by one reader of the log, and the
//! streams that it carries along. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    entry::{Entry, Page},
    ring::Ring,
};
use crate::{position::LogPosition, store::ChangeBatch};

/// How long the reader stands still, in all per ring's length, for streams that take less than
/// others need.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Names a stream's wish to be carried; the lower, the older.
pub(super) type Ticket = u64;

/// Who is carried, by how far it has taken.
type Carried = BTreeMap<(LogPosition, Ticket), Arc<Notify>>;

/// What was read and is not yet in a lane's ring.
#[derive(Debug)]
pub(super) struct Pending {
    entries: VecDeque<Arc<Entry>>,
    level: LogPosition,
    quiet: bool,
}

impl Pending {
    pub(super) fn new(batch: ChangeBatch) -> Self {
        let (level, quiet) = (batch.level, batch.quiet);
        Self { entries: batch.changes.into_iter().map(Entry::new).collect(), level, quiet }
    }

    /// How many of the next changes belong to one place, and their bytes.
    fn place(&self) -> Option<(usize, usize)> {
        let first = self.entries.front()?.change.position;
        let place = self.entries.iter().take_while(|entry| entry.change.position == first);
        Some(place.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.weight())))
    }
}

/// How feeding a lane ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// All of it is in the ring.
    All,
    /// The rest would push out what a carried stream has yet to take.
    Full,
    /// There is nobody to read for.
    Nobody,
}

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    ring: Ring,
    carried: Carried,
    /// The reader stands until all have taken up to here.
    awaited: Option<LogPosition>,
    /// For how long it may yet, and how much was fed since that was set.
    patience: Duration,
    fed: usize,
    /// Wakes the reader where it stands.
    reader: Arc<Notify>,
    /// It takes nobody any more.
    closed: bool,
}

impl Lane {
    pub(super) fn new(start: LogPosition, bytes: usize) -> Self {
        Self {
            ring: Ring::new(start, bytes),
            carried: Carried::new(),
            awaited: None,
            patience: GRACE,
            fed: 0,
            reader: Arc::default(),
            closed: false,
        }
    }

    pub(super) fn reader(&self) -> &Arc<Notify> {
        &self.reader
    }

    pub(super) fn carries(&self) -> usize {
        self.carried.len()
    }

    /// How far the lane still is from a stream; `None`: it has passed it.
    pub(super) fn distance(&self, position: LogPosition) -> Option<u64> {
        let ahead = !self.closed && self.ring.covers(position);
        ahead.then(|| position.time.saturating_sub(self.ring.level().time))
    }

    /// Carries a stream, whose position it has not passed.
    pub(super) fn carry(&mut self, position: LogPosition, ticket: Ticket, wake: Arc<Notify>) {
        wake.notify_one();
        self.carried.insert((position, ticket), wake);
    }

    pub(super) fn leave(&mut self, position: LogPosition, ticket: Ticket) {
        self.carried.remove(&(position, ticket));
        self.wake_reader();
    }

    /// The next changes for a stream; empty where it has to wait. `None`: it is not carried.
    pub(super) fn take(
        &mut self,
        position: LogPosition,
        ticket: Ticket,
        budget: usize,
    ) -> Option<Page> {
        let wake = self.carried.remove(&(position, ticket))?;
        let page = self.ring.read(position, budget)?;
        self.carried.insert((page.level, ticket), wake);
        self.wake_reader();
        Some(page)
    }

    /// Moves into the ring what has room there, and wakes whom that brings something.
    pub(super) fn feed(&mut self, pending: &mut Pending) -> Fed {
        let (level, quiet) = (self.ring.level(), self.ring.quiet());
        let fed = self.fill(pending);
        if fed == Fed::All {
            self.ring.reach(pending.level, pending.quiet);
        }
        if (level, quiet) != (self.ring.level(), self.ring.quiet()) {
            let news = (level, Ticket::MIN)..=(self.ring.level(), Ticket::MAX);
            self.carried.range(news).for_each(|(_, wake)| wake.notify_one());
        }
        fed
    }

    fn fill(&mut self, pending: &mut Pending) -> Fed {
        self.awaited = None;
        let Some(&(slowest, _)) = self.carried.keys().next() else {
            self.closed = true;
            return Fed::Nobody;
        };
        while let Some((count, bytes)) = pending.place() {
            let start = self.ring.start_with(bytes);
            if slowest < start {
                self.awaited = Some(start);
                return Fed::Full;
            }
            pending.entries.drain(..count).for_each(|entry| self.ring.add(entry));
            self.count(bytes);
        }
        Fed::All
    }

    /// With each ring's length the patience is new.
    fn count(&mut self, bytes: usize) {
        self.fed += bytes;
        if self.fed >= self.ring.capacity() {
            (self.patience, self.fed) = (GRACE, 0);
        }
    }

    /// For how long the reader may stand; `None`: nobody is held up by that.
    pub(super) fn patience(&self, others_wait: bool) -> Option<Duration> {
        (others_wait || self.needed()).then_some(self.patience)
    }

    /// Whether a carried stream has taken all that there is.
    fn needed(&self) -> bool {
        let quickest = self.carried.last_key_value();
        quickest.is_some_and(|((position, _), _)| *position >= self.ring.level())
    }

    /// The reader stood for so long while somebody needed it. Once that is too long, who is in
    /// the older half of the ring falls out.
    pub(super) fn stood(&mut self, time: Duration) {
        self.patience = self.patience.saturating_sub(time);
        if let (Some(awaited), true) = (self.awaited, self.patience.is_zero()) {
            let end = self.ring.middle().max(awaited);
            self.carried = self.carried.split_off(&(end, Ticket::MIN));
            (self.patience, self.fed) = (GRACE, 0);
        }
    }

    /// Whoever is still carried, when the lane ends.
    pub(super) fn close(&mut self) -> impl Iterator<Item = (LogPosition, Ticket, Arc<Notify>)> {
        self.closed = true;
        let carried = std::mem::take(&mut self.carried).into_iter();
        carried.map(|((position, ticket), wake)| (position, ticket, wake))
    }

    /// Where what the reader waits for has changed: there is room, nobody, or somebody in need.
    fn wake_reader(&self) {
        let Some(awaited) = self.awaited else { return };
        let slowest = self.carried.first_key_value();
        let room = slowest.is_none_or(|((position, _), _)| *position >= awaited);
        if room || self.needed() {
            self.reader.notify_one();
        }
    }
}
