//! The lanes at work: a reader of the log for each, and the rides of the streams they carry.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{counter, gauge};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tracing::error;

use super::{
    board::{Board, Opening, Taken},
    hub::Hub,
    lane::{Fed, Pending, Ticket},
    reader::LogReader,
};
use crate::{
    position::LogPosition,
    store::{ChangeBatch, StoreError, detached},
};

/// How many bytes of changes a lane holds at most for the streams that it carries.
const LANE_BYTES: usize = 4 << 20;

/// How long the place of a reader that broke off stays empty.
const PAUSE: Duration = Duration::from_secs(1);

/// The lanes of one hub.
#[derive(Debug)]
pub(super) struct Lanes {
    board: Mutex<Board>,
}

impl Lanes {
    /// At most `most` lanes at once, and at least one. None holds more than `bytes`.
    pub(super) fn new(most: usize, bytes: usize) -> Self {
        Self { board: Mutex::new(Board::new(most.max(1), bytes.min(LANE_BYTES))) }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what changes who is where, and tells the metrics.
    fn change<T>(&self, change: impl FnOnce(&mut Board) -> T) -> T {
        let mut board = self.board();
        let result = change(&mut board);
        // Told while nobody else can change it: the last word is the latest.
        let census = board.census();
        gauge!("fhirtail_catch_ups").set(census.lanes as f64);
        gauge!("fhirtail_catch_up_streams").set(census.carried as f64);
        gauge!("fhirtail_catch_ups_waiting").set(census.waiting as f64);
        result
    }
}

/// A stream's place in a lane, or among those who wait for one. Given up when dropped.
#[derive(Debug)]
pub(super) struct Ride {
    hub: Arc<Hub>,
    ticket: Ticket,
    /// All up to here is taken.
    position: LogPosition,
    wake: Arc<Notify>,
}

impl Ride {
    /// Asks for one at the end of the queue.
    pub(super) fn ask(hub: &Arc<Hub>, position: LogPosition) -> Self {
        let (wake, home) = (Arc::<Notify>::default(), hub.start_of_ring());
        let (ticket, opening) =
            hub.lanes.change(|board| board.ask(position, Arc::clone(&wake), home));
        opening.into_iter().for_each(|opening| start(hub, opening));
        Self { hub: Arc::clone(hub), ticket, position, wake }
    }

    /// What comes next, about `budget` bytes of it.
    pub(super) fn take(&mut self, budget: usize) -> Taken {
        let taken = self.hub.lanes.board().take(self.ticket, self.position, budget);
        if let Taken::Page(page) = &taken {
            self.position = page.level;
        }
        taken
    }

    /// Waits until there may be something new to take. Cancel-safe.
    pub(super) async fn news(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        self.hub.lanes.change(|board| board.leave(self.ticket, self.position));
    }
}

/// Reads a lane in a task of its own. Its slot is free again once its reader is closed.
fn start(hub: &Arc<Hub>, opening: Opening) {
    counter!("fhirtail_catch_ups_total").increment(1);
    let hub = Arc::clone(hub);
    let spawn = hub.tasks.clone();
    spawn.spawn(async move {
        let lane = opening.lane;
        if let Err(broken) = detached(read(Arc::clone(&hub), opening)).await {
            error!(%broken, "a reader for streams behind the ring broke off");
            // Another will take its place: a defect that comes back shall not come at full speed.
            sleep(PAUSE).await;
        }
        let home = hub.start_of_ring();
        let openings = hub.lanes.change(|board| board.end(lane, home));
        if !hub.stop.is_cancelled() {
            openings.into_iter().for_each(|opening| start(&hub, opening));
        }
    });
}

/// Reads for whoever the lane carries, until that is nobody.
async fn read(hub: Arc<Hub>, opening: Opening) -> Result<(), StoreError> {
    let mut reader = LogReader::new(Arc::clone(&hub.store), opening.start);
    while !hub.stop.is_cancelled() {
        match reader.next(|_| ()).await {
            Ok(batch) => {
                if !feed(&hub, &opening, batch).await {
                    break;
                }
            }
            Err(lost) => {
                let at = reader.position();
                hub.lanes.change(|board| board.lose(opening.lane, at, &lost));
                break;
            }
        }
    }
    reader.close().await;
    Ok(())
}

/// Brings what was read into the lane's ring, at the pace of those it carries. `false`: there is
/// nobody any more.
async fn feed(hub: &Hub, opening: &Opening, batch: ChangeBatch) -> bool {
    let mut pending = Pending::new(batch);
    loop {
        let (fed, patience) = {
            let mut board = hub.lanes.board();
            (board.feed(opening.lane, &mut pending), board.patience(opening.lane))
        };
        match fed {
            Fed::All => return true,
            Fed::Nobody => return false,
            Fed::Full => {}
        }
        let since = Instant::now();
        tokio::select! {
            () = opening.reader.notified() => {}
            () = sleep(patience.unwrap_or(Duration::MAX)) => {}
            () = hub.stop.cancelled() => return false,
        }
        if patience.is_some() {
            hub.lanes.change(|board| board.stood(opening.lane, since.elapsed()));
        }
    }
}
