//! follow(P): every change after P, from the ring or, behind it, from a lane.

use std::{sync::Arc, vec};

use tokio::{sync::watch, task::consume_budget};

use super::{
    board::Taken,
    entry::{Entry, Page},
    hub::Hub,
    lanes::Ride,
};
use crate::{
    position::LogPosition,
    store::{ChangeKind, StoreError},
};

/// About how many bytes of changes are taken at once.
const PAGE_BYTES: usize = 64 << 10;

/// One stream's way through the log.
#[derive(Debug)]
pub struct Follow {
    hub: Arc<Hub>,
    position: LogPosition,
    /// Where it was when it came to what it reads, the ring or a lane: all since is from there.
    origin: LogPosition,
    /// Changes have come.
    moved: watch::Receiver<()>,
    /// Anything is new.
    told: watch::Receiver<()>,
    rests: bool,
    /// Where it waits or is carried while it is behind the ring.
    ride: Option<Ride>,
    /// What is left of the page at hand.
    page: vec::IntoIter<Arc<Entry>>,
    /// Where the page at hand ends, until that is told.
    end: Option<(LogPosition, bool)>,
    /// The last end that was told.
    last_end: (LogPosition, bool),
    /// It has read the ring, and not been behind since.
    in_ring: bool,
    /// From here on nothing is awaited to which a change was deferred.
    whole_at: LogPosition,
    /// Up to this time of the log its reader has looked ahead: another would tell that again.
    ahead: u64,
}

/// What following gives.
#[derive(Debug)]
pub enum Followed {
    /// The next change.
    Change(Arc<Entry>),
    /// No more changes are at hand, and all up to [`Follow::position`] are delivered.
    Level {
        /// The log ended there when it was last read.
        quiet: bool,
    },
    /// The ring no longer reaches back to this stream; changes go on through a lane.
    FellBehind,
}

impl Follow {
    pub(super) fn new(
        hub: Arc<Hub>,
        (origin, position): (LogPosition, LogPosition),
        moved: watch::Receiver<()>,
        told: watch::Receiver<()>,
    ) -> Self {
        Self {
            hub,
            position,
            origin,
            moved,
            told,
            rests: false,
            ride: None,
            page: Vec::new().into_iter(),
            end: None,
            last_end: (position, false),
            in_ring: false,
            whole_at: LogPosition::default(),
            ahead: 0,
        }
    }

    /// Its stream has been in the ring: it is told if it no longer is.
    #[must_use]
    pub fn go_on(self) -> Self {
        Self { in_ring: true, ..self }
    }

    /// All changes up to here are delivered.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// All since is from the ring: see [`Hub::follow_since`].
    #[must_use]
    pub fn origin(&self) -> LogPosition {
        // What a lane has said is of another reader.
        if self.ride.is_some() { self.position } else { self.origin }
    }

    /// Whether who has been given all up to the end of a page has what each change up to there made.
    /// Else it is still to come, with one to which another was deferred.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.has_passed(self.whole_at)
    }

    /// Whether a [`Followed::Level`] without changes may come late, after some seconds: so that
    /// who waits for nothing but changes is not woken for it each time.
    pub fn rest(&mut self, rests: bool) {
        self.rests = rests;
    }

    /// What comes next in the log; waits for it. Cancel-safe.
    ///
    /// # Errors
    /// [`StoreError::PositionLost`]: the log no longer holds what follows.
    pub async fn next(&mut self) -> Result<Followed, StoreError> {
        loop {
            if let Some(next) = self.advance().await? {
                return Ok(next);
            }
        }
    }

    /// The same for changes before `end`; `None`: the next one is not. Cancel-safe.
    ///
    /// # Errors
    /// [`StoreError::PositionLost`]: the log no longer holds what follows.
    pub async fn next_before(&mut self, end: LogPosition) -> Result<Option<Followed>, StoreError> {
        loop {
            let next = self.page.as_slice().first();
            if next.is_some_and(|entry| entry.change.position >= end) {
                return Ok(None);
            }
            if let next @ Some(_) = self.advance().await? {
                return Ok(next);
            }
        }
    }

    /// One step: through the page at hand, or to the next one.
    async fn advance(&mut self) -> Result<Option<Followed>, StoreError> {
        // Pages are taken without waiting: who has far to go lets others run in between.
        consume_budget().await;
        if let Some(entry) = self.page.next() {
            self.position = entry.change.position;
            self.ahead = self.ahead.max(entry.change.as_of.unwrap_or_default());
            if let ChangeKind::Deferred { until, .. } = entry.change.kind {
                self.whole_at = self.whole_at.max(until);
            }
            let is_news = entry.change.is_news_to(self.origin);
            return Ok(is_news.then_some(Followed::Change(entry)));
        }
        if let Some(end) = self.end.take() {
            self.last_end = end;
            self.position = end.0;
            return Ok(Some(Followed::Level { quiet: end.1 }));
        }
        if self.ride.is_some() && self.hub.covers(self.position) && self.has_what_was_ahead() {
            self.ride = None;
            self.origin = self.position;
            // What the lane has told of its end, the ring tells anew.
            self.last_end = (LogPosition::default(), false);
        }
        if self.ride.is_some() {
            self.ride().await?;
        } else if self.turn_page().await {
            return Ok(Some(Followed::FellBehind));
        }
        Ok(None)
    }

    /// Takes the next page from the ring, or waits until there may be one. Says whether a stream
    /// that had been in the ring no longer is.
    async fn turn_page(&mut self) -> bool {
        // Marked as seen before the ring is read: what the tail adds in between wakes us.
        self.moved.mark_unchanged();
        self.told.mark_unchanged();
        match self.hub.read(self.position, PAGE_BYTES) {
            None => {
                self.ask();
                return std::mem::take(&mut self.in_ring);
            }
            Some(page) => {
                self.in_ring = true;
                if !self.turn_to(page) {
                    let news = if self.rests { &mut self.moved } else { &mut self.told };
                    // The hub, which sends, is held here too.
                    drop(news.changed().await);
                }
            }
        }
        false
    }

    /// Whether all is delivered that its reader has looked up ahead of the changes.
    fn has_what_was_ahead(&self) -> bool {
        self.has_passed(LogPosition::past(self.ahead))
    }

    /// Whether nothing before a place is still to come.
    fn has_passed(&self, place: LogPosition) -> bool {
        let quiet = self.last_end == (self.position, true);
        self.position >= place || (quiet && LogPosition::past(self.position.time) >= place)
    }

    /// Asks for a lane.
    fn ask(&mut self) {
        self.origin = self.position;
        self.ride = Some(Ride::ask(&self.hub, self.position));
    }

    /// Takes the next page from a lane, or waits until there may be one.
    async fn ride(&mut self) -> Result<(), StoreError> {
        let Some(ride) = &mut self.ride else { return Ok(()) };
        let waits = match ride.take(PAGE_BYTES) {
            Taken::Page(page) => !self.turn_to(page),
            Taken::Nothing => true,
            Taken::LeftBehind => {
                self.ask();
                false
            }
            Taken::Lost(lost) => return Err(lost),
        };
        if let (Some(ride), true) = (&self.ride, waits) {
            tokio::select! {
                () = ride.news() => {}
                () = self.hub.stop.cancelled() => {
                    return Err(StoreError::Unavailable("the server is stopping".into()));
                }
            }
        }
        Ok(())
    }

    /// Goes on with a page, if that says anything new.
    fn turn_to(&mut self, page: Page) -> bool {
        let end = (page.level, page.quiet);
        let news = !page.entries.is_empty() || end != self.last_end;
        if news {
            self.end = Some(end);
            self.page = page.entries.into_iter();
        }
        news
    }
}
