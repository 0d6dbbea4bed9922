//! Whose history is read: no more at once than the server takes, and a history whose client takes
//! nothing gives its turn to one that waits. It goes on later, in a newer snapshot.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{counter, gauge};
use tokio::{
    pin, select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

use super::Stage;
use crate::telemetry::Counted;

/// How long a history may lie still while another waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// The histories that are read.
#[derive(Debug)]
pub struct Turns {
    most: usize,
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Arc<Place>>>,
}

/// One history's turn. `None`: it was given to another.
type Place = Mutex<Option<Held>>;

struct Held {
    _permit: OwnedSemaphorePermit,
    /// What is read, while the client is waited for, and since when.
    resting: Option<(Instant, Stage)>,
}

impl Turns {
    /// So many at once.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        let most = most.min(Semaphore::MAX_PERMITS);
        let free = Arc::new(Semaphore::new(most));
        Arc::new(Self { most, free, taken: Mutex::default() })
    }

    /// How many are taken.
    #[must_use]
    pub fn running(&self) -> usize {
        self.most.saturating_sub(self.free.available_permits())
    }

    /// A turn at once, or none.
    #[must_use]
    pub fn take_now(self: &Arc<Self>) -> Option<Turn> {
        let take = || Arc::clone(&self.free).try_acquire_owned().ok();
        let permit = take().or_else(|| {
            self.call_in();
            take()
        });
        permit.map(|permit| self.turn(permit))
    }

    /// Waits for a turn.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Turn> {
        let _waiting = Counted::new(gauge!("fhirtail_scans_waiting"));
        let permit = Arc::clone(&self.free).acquire_owned();
        pin!(permit);
        loop {
            select! {
                // Nobody closes them: at worst it does not wait.
                permit = &mut permit => return Some(self.turn(permit.ok()?)),
                () = sleep(PATIENCE) => self.call_in(),
            }
        }
    }

    fn turn(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Turn {
        let held = Held { _permit: permit, resting: None };
        let place = Arc::new(Mutex::new(Some(held)));
        self.taken().push(Arc::clone(&place));
        Turn { turns: Arc::clone(self), place }
    }

    /// Ends the turn of the history that has lain still for longest, if that is too long.
    fn call_in(&self) {
        let since = |place: &Arc<Place>| Some(lock(place).as_ref()?.resting.as_ref()?.0);
        let longest = {
            let taken = self.taken();
            let resting = taken.iter().filter_map(|place| Some((since(place)?, place)));
            resting.min_by_key(|(since, _)| *since).map(|(_, place)| Arc::clone(place))
        };
        let Some(place) = longest else { return };
        // Its client may have come back meanwhile.
        let ended = lock(&place).take_if(|held| {
            held.resting.as_ref().is_some_and(|(since, _)| since.elapsed() >= PATIENCE)
        });
        if ended.is_some() {
            counter!("fhirtail_scans_set_aside_total").increment(1);
        }
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A history's turn, until it is dropped or another's.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    place: Arc<Place>,
}

/// The turn is another's by now, and what was read is gone.
#[derive(Debug)]
pub(super) struct Lost;

impl Turn {
    /// Lays down what is read, until the client has taken what is there for it.
    pub(super) fn rest(&self, stage: Stage) {
        if let Some(held) = &mut *lock(&self.place) {
            held.resting = Some((Instant::now(), stage));
        }
    }

    /// Goes on with it, if it was laid down.
    pub(super) fn take_up(&self) -> Result<Option<Stage>, Lost> {
        match &mut *lock(&self.place) {
            Some(held) => Ok(held.resting.take().map(|(_, stage)| stage)),
            None => Err(Lost),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.taken().retain(|place| !Arc::ptr_eq(place, &self.place));
        // Whoever calls in just now has it in hand: the turn ends here all the same.
        drop(lock(&self.place).take());
    }
}

fn lock(place: &Place) -> MutexGuard<'_, Option<Held>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("rests", &self.resting.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_lies_still_gives_way_to_who_waits() {
        let turns = Turns::new(2);
        let (idle, busy) = (turns.take_now().unwrap(), turns.take_now().unwrap());
        idle.rest(Stage::Begin);
        busy.rest(Stage::Begin);
        advance(PATIENCE).await;
        assert!(matches!(busy.take_up(), Ok(Some(Stage::Begin))));
        assert_eq!(turns.running(), 2, "nobody waits");
        let third = turns.take().await.expect("the idle one's");
        assert!(matches!(idle.take_up(), Err(Lost)));
        assert!(matches!(busy.take_up(), Ok(None)));
        assert!(turns.take_now().is_none());
        drop(idle);
        assert_eq!(turns.running(), 2);
        drop(third);
        assert_eq!(turns.running(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_been_given_something_keeps_its_turn() {
        let turns = Turns::new(1);
        let turn = turns.take_now().unwrap();
        for _ in 0..5 {
            turn.rest(Stage::Begin);
            advance(PATIENCE - Duration::from_millis(1)).await;
            assert!(turns.take_now().is_none());
            assert!(matches!(turn.take_up(), Ok(Some(_))));
        }
        assert!(turns.take_now().is_none(), "it is at work");
        drop(turn);
        assert!(turns.take_now().is_some());
    }
}
