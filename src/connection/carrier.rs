//! A carrier: one task for many level streams, woken when the ring moves.
//!
//! Streams of one voice stand together: what a page of the ring has for them is written as one
//! chunk, and each socket gets that. A page is read once for all, and offered only to those whom
//! it may concern; the others' place is the carrier's. Whoever does not take all at once, must
//! start over, or is to be told good-bye goes back to a task of its own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    audience::{Audience, Leaves, PAGE_BYTES, Part, Seat},
    audiences::Audiences,
    crowd::{Back, Joining},
    index::Slot,
};
use crate::{live::Hub, position::LogPosition};

/// After how many streams, and audiences, a carrier lets others run.
const BREATH: usize = 64;

pub(super) struct Carrier {
    hub: Arc<Hub>,
    moved: watch::Receiver<()>,
    joining: Joining<Seat>,
    audiences: Audiences,
    /// Up to here all changes are said to whom they concern. `None`: there is nobody.
    at: Option<LogPosition>,
    /// The ring has more after that.
    more: bool,
    breath: Breath,
    /// The audience and the seat that are next in a round.
    looking: Option<(Slot, usize)>,
    /// How often it is looked after all.
    round: Duration,
    back: Back,
}

impl Carrier {
    pub(super) fn new(hub: &Arc<Hub>, joining: Joining<Seat>, round: Duration, back: Back) -> Self {
        let (hub, moved) = (Arc::clone(hub), hub.subscribe());
        let (audiences, breath) = Default::default();
        let (at, more, looking) = (None, false, None);
        Self { hub, moved, joining, audiences, at, more, breath, looking, round, back }
    }

    /// Until all are sent home.
    pub(super) async fn run(mut self, drain: CancellationToken) {
        let mut round = interval(self.round);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                joining = self.joining.recv() => match joining {
                    Some(seat) => self.seat(seat),
                    None => return,
                },
                moved = self.moved.changed() => match moved {
                    Ok(()) => self.speak().await,
                    Err(_) => return,
                },
                () = std::future::ready(()), if self.more => self.speak().await,
                _ = round.tick(), if self.looking.is_none() => {
                    self.speak().await;
                    self.looking = Some(Default::default());
                }
                () = yield_now(), if self.looking.is_some() => self.look_round(),
                () = drain.cancelled() => return self.send_home().await,
            }
        }
    }

    /// A stream joins, and gets what the ring has had for it meanwhile.
    fn seat(&mut self, mut seat: Seat) {
        let (slot, audience) = self.audiences.of(seat.voice());
        audience.begin(false);
        let caught_up = audience.catch_up(&self.hub, &mut seat);
        audience.finish();
        if let Err(leaves) = caught_up {
            return self.back.leave(seat, leaves);
        }
        if self.at.is_none_or(|at| seat.at() < at) {
            self.settle();
            self.at = Some(seat.at());
        }
        match self.audiences.get_mut(slot) {
            Some(audience) => audience.seats.push(seat),
            None => self.back.give(seat, Bytes::new()),
        }
    }

    /// What the ring has next, a page of it, for those whom it may concern.
    async fn speak(&mut self) {
        self.more = false;
        let Some(after) = self.at else { return };
        let Some(page) = self.hub.read(after, PAGE_BYTES) else { return self.fall_out().await };
        for (slot, due) in self.audiences.parts(&page) {
            let part = Part::new(after, &page, &due);
            self.each(slot, |audience, _, seat| audience.speak_to(part, seat)).await;
        }
        (self.at, self.more) = (Some(page.level), page.more);
    }

    /// The ring has lost the carrier's place: who is no further has to find its own way.
    async fn fall_out(&mut self) {
        self.settle();
        let mut lowest = None;
        for slot in self.audiences.slots() {
            self.each(slot, |audience, hub, seat| {
                audience.catch_up(hub, seat)?;
                lowest = Some(lowest.map_or(seat.at(), |at| seat.at().min(at)));
                Ok(())
            })
            .await;
        }
        self.at = lowest;
    }

    /// Who has gone is let go, who has long heard nothing hears something: some of them, then
    /// changes may come, and others may run.
    fn look_round(&mut self) {
        let Some((slot, seat)) = self.looking.take() else { return };
        let Some((found, audience)) = self.audiences.next_from(slot) else {
            if !self.audiences.forget_empty() {
                self.at = None;
            }
            return;
        };
        let mut seats = std::mem::take(&mut audience.seats);
        let (first, mut at) = if found == slot { (seat, seat) } else { (0, 0) };
        audience.begin(true);
        while at < first + BREATH
            && let Some(seat) = seats.get_mut(at)
        {
            self.at.into_iter().for_each(|place| seat.comes_to(place));
            match audience.look_after(seat) {
                Ok(()) => at += 1,
                Err(leaves) => self.back.leave(seats.swap_remove(at), leaves),
            }
        }
        audience.finish();
        self.looking = Some(if at < seats.len() { (found, at) } else { (found + 1, 0) });
        audience.seats = seats;
    }

    /// Each is where the carrier is, or further.
    fn settle(&mut self) {
        if let Some(at) = self.at {
            self.audiences.seats_mut().for_each(|seat| seat.comes_to(at));
        }
    }

    /// Serves each seat of an audience in turn; it stays, or leaves.
    async fn each(
        &mut self,
        slot: Slot,
        mut serve: impl FnMut(&mut Audience, &Hub, &mut Seat) -> Result<(), Leaves>,
    ) {
        let Some(audience) = self.audiences.get_mut(slot) else { return };
        let mut seats = std::mem::take(&mut audience.seats);
        let mut at = 0;
        audience.begin(true);
        self.breath.taken().await;
        while let Some(seat) = seats.get_mut(at) {
            match serve(audience, &self.hub, seat) {
                Ok(()) => at += 1,
                // The last takes its place, and is next.
                Err(leaves) => self.back.leave(seats.swap_remove(at), leaves),
            }
            self.breath.taken().await;
        }
        audience.finish();
        audience.seats = seats;
    }

    /// Each stream says its own good-bye.
    async fn send_home(mut self) {
        self.settle();
        for slot in self.audiences.slots() {
            let goes = |_: &mut Audience, _: &Hub, _: &mut Seat| Err(Leaves::Needs(Bytes::new()));
            self.each(slot, goes).await;
        }
        self.joining.close();
        while let Some(seat) = self.joining.recv().await {
            self.back.give(seat, Bytes::new());
        }
    }
}

/// Lets others run now and then.
#[derive(Default)]
struct Breath {
    /// How much was done since.
    served: usize,
}

impl Breath {
    async fn taken(&mut self) {
        self.served += 1;
        if self.served == BREATH {
            self.served = 0;
            yield_now().await;
        }
    }
}
