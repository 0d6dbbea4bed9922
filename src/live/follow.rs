//! follow(P): every change after P, from the ring or, behind it, from a private reader.

use std::{sync::Arc, time::Duration, vec};

use metrics::{counter, gauge};
use tokio::{
    sync::{mpsc, watch},
    task::consume_budget,
};

use super::{
    hub::Hub,
    reader::LogReader,
    ring::{Entry, Page},
};
use crate::{position::LogPosition, store::StoreError};

/// About how many bytes of changes are taken from the ring at once.
const PAGE_BYTES: usize = 64 << 10;

/// How long a private reader waits for a stream that takes nothing before others get its turn.
const GIVE_WAY_AFTER: Duration = Duration::from_secs(2);

/// One stream's way through the log.
#[derive(Debug)]
pub struct Follow {
    hub: Arc<Hub>,
    position: LogPosition,
    moved: watch::Receiver<()>,
    private: Option<mpsc::Receiver<Result<Page, StoreError>>>,
    /// What is left of the page at hand.
    page: vec::IntoIter<Arc<Entry>>,
    /// Where the page at hand ends, until that is told.
    end: Option<(LogPosition, bool)>,
    read_any: bool,
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
    /// The ring no longer reaches back to this stream; changes go on through a private reader.
    FellBehind,
}

impl Follow {
    pub(super) fn new(
        hub: Arc<Hub>,
        position: LogPosition,
        mut moved: watch::Receiver<()>,
    ) -> Self {
        moved.mark_changed();
        let page = Vec::new().into_iter();
        Self { hub, position, moved, private: None, page, end: None, read_any: false }
    }

    /// Its stream has been in the ring: it is told if it no longer is.
    #[must_use]
    pub fn go_on(self) -> Self {
        Self { read_any: true, ..self }
    }

    /// All changes up to here are delivered.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// What comes next in the log; waits for it. Cancel-safe.
    ///
    /// # Errors
    /// [`StoreError::PositionLost`]: the log no longer holds what follows.
    pub async fn next(&mut self) -> Result<Followed, StoreError> {
        loop {
            // The ring is read without waiting: who has far to go lets others run in between.
            consume_budget().await;
            if let Some(entry) = self.page.next() {
                self.position = entry.change.position;
                return Ok(Followed::Change(entry));
            }
            if let Some((level, quiet)) = self.end.take() {
                self.position = level;
                return Ok(Followed::Level { quiet });
            }
            if self.private.is_some() && self.hub.covers(self.position) {
                self.private = None;
            }
            if let Some(private) = &mut self.private {
                match private.recv().await {
                    Some(page) => self.turn_to(page?),
                    None if self.hub.stop.is_cancelled() => return Err(stopping()),
                    // It gave way while this stream took nothing: wait for another turn.
                    None => self.private = Some(self.open_private()),
                }
            } else if self.turn_page().await? {
                return Ok(Followed::FellBehind);
            }
        }
    }

    /// Takes the next page from the ring, once there is one. Says whether a stream that had
    /// been in the ring no longer is.
    async fn turn_page(&mut self) -> Result<bool, StoreError> {
        // Marked as seen before the ring is read: what the tail adds in between wakes us.
        let moved = self.moved.borrow_and_update().has_changed();
        match self.hub.read(self.position, PAGE_BYTES) {
            None => {
                self.private = Some(self.open_private());
                return Ok(self.read_any);
            }
            // Without changes it may still tell that the log has come to rest.
            Some(page) if moved || !page.entries.is_empty() => self.turn_to(page),
            Some(_) => {
                self.moved.changed().await.map_err(|_| stopping())?;
                // Seen, but not yet looked at: the ring may only have risen.
                self.moved.mark_changed();
            }
        }
        Ok(false)
    }

    fn turn_to(&mut self, page: Page) {
        self.end = Some((page.level, page.quiet));
        self.page = page.entries.into_iter();
        self.read_any = true;
    }

    fn open_private(&self) -> mpsc::Receiver<Result<Page, StoreError>> {
        let (pages, receiver) = mpsc::channel(1);
        let (hub, after) = (Arc::clone(&self.hub), self.position);
        self.hub.tasks.spawn(read_privately(hub, after, pages));
        receiver
    }
}

fn stopping() -> StoreError {
    StoreError::Unavailable("the server is stopping".into())
}

/// Reads for one stream until it goes away or is back in the ring.
async fn read_privately(
    hub: Arc<Hub>,
    after: LogPosition,
    pages: mpsc::Sender<Result<Page, StoreError>>,
) {
    gauge!("fhirtail_catch_ups_waiting").increment(1.0);
    let permit = tokio::select! {
        permit = Arc::clone(&hub.private).acquire_owned() => permit.ok(),
        () = pages.closed() => None,
        () = hub.stop.cancelled() => None,
    };
    gauge!("fhirtail_catch_ups_waiting").decrement(1.0);
    if permit.is_none() {
        return;
    }
    counter!("fhirtail_catch_ups_total").increment(1);
    gauge!("fhirtail_catch_ups").increment(1.0);
    let mut reader = LogReader::new(Arc::clone(&hub.store), after);
    while !pages.is_closed() && !hub.stop.is_cancelled() {
        let page = reader.next(|_| ()).await.map(|batch| Page {
            entries: batch.changes.into_iter().map(Entry::new).collect(),
            level: batch.level,
            quiet: batch.quiet,
            more: false,
        });
        let last = page.is_err();
        // A page that is not taken is read again: the stream keeps its own position.
        let sent = tokio::time::timeout(GIVE_WAY_AFTER, pages.send(page)).await;
        if !matches!(sent, Ok(Ok(()))) || last {
            break;
        }
    }
    gauge!("fhirtail_catch_ups").decrement(1.0);
}
