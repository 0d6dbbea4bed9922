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
    sync::{Mutex, OwnedMutexGuard, Semaphore, mpsc},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use super::{audience::Leaves, carrier::Carrier, chunked::chunk, direct::Direct};
use crate::live::Hub;

pub(super) use super::audience::Seat;

/// How often, at least, carriers look after silent streams and those whose clients have gone.
const ROUND: Duration = Duration::from_secs(1);

/// How long the place of a carrier that broke off stays empty.
const PAUSE: Duration = Duration::from_secs(1);

/// Who joins a carrier. Held by one at a time: what it leaves is the next one's.
pub(super) type Joining<S> = OwnedMutexGuard<mpsc::UnboundedReceiver<S>>;

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
                let (hub, round) = (Arc::clone(hub), ROUND.min(keep_alive));
                let back = Back { crowd: crowd.clone(), tasks: tasks.clone(), cut: cut.clone() };
                let (drain, cut) = (drain.clone(), cut.clone());
                tasks.spawn(keep(joining, move |joining| {
                    let carrier = Carrier::new(&hub, joining, round, back.clone());
                    let (drain, cut) = (drain.clone(), cut.clone());
                    async move {
                        cut.run_until_cancelled(carrier.run(drain)).await;
                    }
                }));
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
#[derive(Clone)]
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

/// Keeps a carrier at work until it ends. A defect that breaks it off is told, and cuts the streams
/// that it had: they come again. Another takes its place.
async fn keep<S, F>(joining: mpsc::UnboundedReceiver<S>, mut carrier: impl FnMut(Joining<S>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let joining = Arc::new(Mutex::new(joining));
    loop {
        let carried = tokio::spawn(carrier(Arc::clone(&joining).lock_owned().await));
        let Err(broken) = carried.await else { return };
        error!(%broken, "a carrier of level streams broke off: another takes its place");
        // A defect that comes back shall not come at full speed.
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_joins_after_a_carrier_broke_off_is_carried() {
        let (sender, joining) = mpsc::unbounded_channel();
        let (carried, mut seen) = mpsc::unbounded_channel();
        let kept = tokio::spawn(keep(joining, move |mut joining| {
            let carried = carried.clone();
            async move {
                while let Some(seat) = joining.recv().await {
                    assert_ne!(seat, "breaks it", "a defect, as ordered");
                    carried.send(seat).expect("somebody looks");
                }
            }
        }));
        let all = ["first", "breaks it", "waits", "breaks it", "last"];
        all.iter().try_for_each(|seat| sender.send(*seat)).expect("a carrier");
        for seat in ["first", "waits", "last"] {
            assert_eq!(seen.recv().await, Some(seat));
        }
        drop(sender);
        kept.await.expect("it ends with its last carrier");
    }
}
