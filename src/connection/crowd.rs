//! The crowd: all streams that are level with the ring, carried by a few tasks.
//!
//! A carrier wakes when the ring moves. Streams of one voice stand together: what the ring has
//! for them is written as one chunk, and each socket gets that. Whoever does not take all of it
//! at once, must start over, or is to be told good-bye goes back to a task of its own; nobody
//! waits for anybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, yield_now},
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use super::{
    audience::{Audience, Leaves},
    direct::Direct,
};
use crate::live::Hub;

pub(super) use super::audience::Seat;

/// How often, at least, carriers look after silent streams and those whose clients have gone.
const ROUND: Duration = Duration::from_secs(1);

/// After how many streams, and voices of streams, a carrier lets others run.
const BREATH: usize = 64;

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
                let carrier = Carrier {
                    hub: Arc::clone(hub),
                    moved: hub.subscribe(),
                    joining,
                    audiences: Vec::new(),
                    served: 0,
                    looking: None,
                    round: ROUND.min(keep_alive),
                    back: Back { crowd: crowd.clone(), tasks: tasks.clone(), cut: cut.clone() },
                };
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
        let begin = direct.coding.begin();
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

/// How a stream gets a task of its own again.
struct Back {
    crowd: std::sync::Weak<Crowd>,
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Back {
    fn give(&self, mut seat: Seat, unsent: Bytes) {
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

struct Carrier {
    hub: Arc<Hub>,
    moved: watch::Receiver<()>,
    joining: mpsc::UnboundedReceiver<Seat>,
    audiences: Vec<Audience>,
    /// How much it has done since it let others run.
    served: usize,
    /// How often it is looked after all.
    round: Duration,
    /// The audience and the seat that are next in a round.
    looking: Option<(usize, usize)>,
    back: Back,
}

impl Carrier {
    /// Until all are sent home.
    async fn run(mut self, drain: CancellationToken) {
        let mut round = interval(self.round);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Each of these is short but the first two: a change waits for little else.
            tokio::select! {
                () = drain.cancelled() => return self.send_home().await,
                moved = self.moved.changed() => match moved {
                    Ok(()) => self.speak().await,
                    Err(_) => return,
                },
                joining = self.joining.recv() => match joining {
                    Some(seat) => self.seat(seat),
                    None => return,
                },
                _ = round.tick(), if self.looking.is_none() => self.looking = Some((0, 0)),
                () = yield_now(), if self.looking.is_some() => self.look_round(),
            }
        }
    }

    /// A stream joins, and gets what the ring has had for it meanwhile.
    fn seat(&mut self, mut seat: Seat) {
        let known = self.audiences.iter_mut().position(|audience| audience.is_of(&seat));
        let index = known.unwrap_or_else(|| {
            self.audiences.push(Audience::of(&seat));
            self.audiences.len() - 1
        });
        let audience = &mut self.audiences[index];
        audience.begin(false);
        let spoken = audience.speak_to(&self.hub, &mut seat);
        audience.finish();
        match spoken {
            Ok(()) => audience.seats.push(seat),
            Err(leaves) => self.leave(seat, leaves),
        }
    }

    /// The ring has moved.
    async fn speak(&mut self) {
        for index in 0..self.audiences.len() {
            self.audiences[index].begin(true);
            let mut at = 0;
            self.breathe().await;
            while let Some(stays) = self.serve(index, at, Audience::speak_to) {
                at += usize::from(stays);
                self.breathe().await;
            }
            self.audiences[index].finish();
        }
    }

    /// Who has gone is let go, who has long heard nothing hears something: some of them, then
    /// others may run.
    fn look_round(&mut self) {
        let Some((index, from)) = self.looking.take() else { return };
        let Some(audience) = self.audiences.get_mut(index) else {
            return self.audiences.retain(|audience| !audience.seats.is_empty());
        };
        audience.begin(true);
        let mut at = Some(from);
        for _ in 0..BREATH {
            let Some(seat) = at else { break };
            let stays = self.serve(index, seat, |audience, hub, seat| {
                audience.speak_to(hub, seat).and_then(|()| audience.look_after(seat))
            });
            at = stays.map(|stays| seat + usize::from(stays));
        }
        self.audiences[index].finish();
        self.looking = Some(at.map_or((index + 1, 0), |at| (index, at)));
    }

    /// Serves one seat of an audience: does it stay? Where it does not, the last takes its
    /// place. `None`: nobody sits there.
    fn serve(
        &mut self,
        index: usize,
        at: usize,
        serve: impl FnOnce(&mut Audience, &Hub, &mut Seat) -> Result<(), Leaves>,
    ) -> Option<bool> {
        let audience = &mut self.audiences[index];
        let mut seats = std::mem::take(&mut audience.seats);
        let served = seats.get_mut(at).map(|seat| serve(audience, &self.hub, seat));
        let stays = served.map(|served| match served {
            Ok(()) => true,
            Err(leaves) => {
                self.leave(seats.swap_remove(at), leaves);
                false
            }
        });
        self.audiences[index].seats = seats;
        stays
    }

    async fn breathe(&mut self) {
        self.served += 1;
        if self.served == BREATH {
            self.served = 0;
            yield_now().await;
        }
    }

    fn leave(&self, seat: Seat, leaves: Leaves) {
        match leaves {
            Leaves::Needs(unsent) => self.back.give(seat, unsent),
            Leaves::Gone(why) => seat.end(&why),
        }
    }

    /// Each stream says its own good-bye.
    async fn send_home(mut self) {
        for audience in std::mem::take(&mut self.audiences) {
            for seat in audience.seats {
                self.back.give(seat, Bytes::new());
            }
            yield_now().await;
        }
        self.joining.close();
        while let Some(seat) = self.joining.recv().await {
            self.back.give(seat, Bytes::new());
        }
    }
}
