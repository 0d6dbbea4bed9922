//! The crowd: all streams that are level with the ring, carried by a few tasks. Whoever can't be
//! carried goes back to a task of its own; nobody waits for anybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use super::{audience::Leaves, carrier::Carrier, chunked::chunk, direct::Direct};
use crate::live::Hub;

pub(super) use super::audience::Seat;

/// How often, at least, carriers look after silent streams and those whose clients have gone.
const ROUND: Duration = Duration::from_secs(1);

/// Where level streams are left.
pub(super) struct Crowd {
    carriers: Vec<mpsc::UnboundedSender<Seat>>,
    next: AtomicUsize,
    /// Whose turn it is among those with much to send.
    turns: Semaphore,
}

impl Crowd {
    /// Starts a carrier for each core.
    pub(super) fn start(
        hub: &Arc<Hub>,
        keep_alive: Duration,
        tasks: &TaskTracker,
        drain: &CancellationToken,
        cut: &CancellationToken,
    ) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new_cyclic(|crowd| {
            let carriers = (0..cores).map(|_| {
                let (sender, joining) = mpsc::unbounded_channel();
                let back = Back { crowd: crowd.clone(), tasks: tasks.clone(), cut: cut.clone() };
                let carrier = Carrier::new(hub, joining, ROUND.min(keep_alive), back);
                let (drain, cut) = (drain.clone(), cut.clone());
                let carried = tokio::spawn(async move {
                    cut.run_until_cancelled(carrier.run(drain)).await;
                });
                tasks.spawn(told(carried));
                sender
            });
            // A core is left over, where there are two: the level streams hear of a change at once.
            let turns = Semaphore::new(cores.saturating_sub(1).max(1));
            Self { carriers: carriers.collect(), next: AtomicUsize::new(0), turns }
        })
    }

    /// Carries a stream until its end: in this task while it needs one, then in the crowd.
    pub(super) async fn carry(&self, direct: Direct) {
        let begin = chunk(&direct.coding.begin());
        self.carry_rest(direct, begin).await;
    }

    async fn carry_rest(&self, direct: Direct, unsent: Bytes) {
        let Some(seat) = direct.run(unsent, &self.turns, true).await else { return };
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.carriers.len();
        if let Err(mpsc::error::SendError(seat)) = self.carriers[next].send(seat) {
            // The crowd has gone home.
            seat.leave().run(Bytes::new(), &self.turns, false).await;
        }
    }
}

/// How a stream leaves its carrier.
pub(super) struct Back {
    crowd: std::sync::Weak<Crowd>,
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Back {
    pub(super) fn leave(&self, seat: Seat, leaves: Leaves) {
        match leaves {
            Leaves::Needs(unsent) => self.give(seat, unsent),
            Leaves::Gone(why) => seat.end(&why),
        }
    }

    /// To a task of its own, which first writes what is unsent.
    pub(super) fn give(&self, mut seat: Seat, unsent: Bytes) {
        if !unsent.is_empty() {
            seat.falls_behind();
        }
        let Some(crowd) = self.crowd.upgrade() else { return };
        let (direct, cut) = (seat.leave(), self.cut.clone());
        self.tasks.spawn(async move {
            cut.run_until_cancelled(crowd.carry_rest(direct, unsent)).await;
        });
    }
}

/// Tells of a carrier that breaks off. Its streams are cut: they come again, and are then carried
/// by tasks of their own.
async fn told(carried: JoinHandle<()>) {
    if let Err(broken) = carried.await {
        error!(%broken, "a carrier of level streams broke off");
    }
}
