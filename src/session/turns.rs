//! Whose history is read: no more at once than the server takes, and a history whose client takes
//! nothing gives its turn to one that waits. It goes on later, in a newer snapshot.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{counter, gauge};
use tokio::{
    pin, select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

use crate::telemetry::Counted;

/// How long a history may lie still while another waits, in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much of that is forgiven to who takes what there was for it: a chunk of a history or a
/// search. Who always takes it in less never gives way.
const FORGIVEN: Duration = Duration::from_secs(1);

/// The histories that are read.
#[derive(Debug)]
pub struct Turns {
    most: usize,
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Arc<dyn Rests>>>,
}

/// One history's turn. `None`: it was given to another.
struct Place<H>(Mutex<Option<Held<H>>>);

struct Held<H> {
    _permit: OwnedSemaphorePermit,
    /// What is read, while the client is waited for, and since when.
    resting: Option<(Instant, H)>,
    /// For how long it was waited for before, beyond what is forgiven.
    rested: Duration,
}

impl<H> Held<H> {
    /// For how long the client has been waited for, if it is; beyond what is forgiven.
    fn idle(&self) -> Option<Duration> {
        let (since, _) = self.resting.as_ref()?;
        Some(self.rested + since.elapsed())
    }
}

/// A turn, whatever is read in it.
trait Rests: Send + Sync {
    /// For how long its client has been waited for.
    fn idle(&self) -> Option<Duration>;

    /// Ends it, if its client has been waited for too long. Says whether it did.
    fn call_in(&self) -> bool;
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
    pub fn take_now<H: Send + 'static>(self: &Arc<Self>) -> Option<Turn<H>> {
        let take = || Arc::clone(&self.free).try_acquire_owned().ok();
        let permit = take().or_else(|| {
            self.call_in();
            take()
        });
        permit.map(|permit| self.turn(permit))
    }

    /// Waits for a turn.
    pub async fn take<H: Send + 'static>(self: &Arc<Self>) -> Option<Turn<H>> {
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

    fn turn<H: Send + 'static>(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Turn<H> {
        let held = Held { _permit: permit, resting: None, rested: Duration::ZERO };
        let place = Arc::new(Place(Mutex::new(Some(held))));
        let taken: Arc<dyn Rests> = Arc::<Place<H>>::clone(&place);
        self.taken().push(taken);
        Turn { turns: Arc::clone(self), place }
    }

    /// Ends the turn of the history that has lain still for longest, if that is too long.
    fn call_in(&self) {
        let longest = {
            let taken = self.taken();
            let resting = taken.iter().filter_map(|place| Some((place.idle()?, place)));
            resting.max_by_key(|(idle, _)| *idle).map(|(_, place)| Arc::clone(place))
        };
        if longest.is_some_and(|place| place.call_in()) {
            counter!("fhirtail_scans_set_aside_total").increment(1);
        }
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<dyn Rests>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H> Place<H> {
    fn lock(&self) -> MutexGuard<'_, Option<Held<H>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Send> Rests for Place<H> {
    fn idle(&self) -> Option<Duration> {
        self.lock().as_ref()?.idle()
    }

    fn call_in(&self) -> bool {
        // Its client may have come back meanwhile.
        let ended = self.lock().take_if(|held| held.idle().is_some_and(|idle| idle >= PATIENCE));
        ended.is_some()
    }
}

impl fmt::Debug for dyn Rests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rests").field("idle", &self.idle()).finish()
    }
}

/// A history's turn, until it is dropped or another's. `H`: what is read.
pub struct Turn<H: Send + 'static> {
    turns: Arc<Turns>,
    place: Arc<Place<H>>,
}

/// The turn is another's by now, and what was read is gone.
#[derive(Debug)]
pub struct Lost;

impl<H: Send> Turn<H> {
    /// Lays down what is read, until the client has taken what is there for it.
    pub fn rest(&self, reading: H) {
        if let Some(held) = &mut *self.place.lock() {
            held.resting = Some((Instant::now(), reading));
        }
    }

    /// Goes on with it, if it was laid down.
    ///
    /// # Errors
    /// The client has taken its time while another waited.
    pub fn take_up(&self) -> Result<Option<H>, Lost> {
        match &mut *self.place.lock() {
            Some(held) => {
                held.rested = held.idle().unwrap_or(held.rested).saturating_sub(FORGIVEN);
                Ok(held.resting.take().map(|(_, reading)| reading))
            }
            None => Err(Lost),
        }
    }
}

impl<H: Send + 'static> Drop for Turn<H> {
    fn drop(&mut self) {
        let ours = Arc::as_ptr(&self.place).cast::<()>();
        self.turns.taken().retain(|place| Arc::as_ptr(place).cast::<()>() != ours);
        // Whoever calls in just now has it in hand: the turn ends here all the same.
        drop(self.place.lock().take());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn first(turns: &Arc<Turns>) -> Turn<&'static str> {
        turns.take_now().expect("a turn")
    }

    #[tokio::test(start_paused = true)]
    async fn who_lies_still_gives_way_to_who_waits() {
        let turns = Turns::new(2);
        let (idle, busy) = (first(&turns), first(&turns));
        idle.rest("history");
        busy.rest("history");
        advance(PATIENCE).await;
        assert!(matches!(busy.take_up(), Ok(Some("history"))));
        assert_eq!(turns.running(), 2, "nobody waits");
        let third = turns.take::<()>().await.expect("the idle one's");
        assert!(matches!(idle.take_up(), Err(Lost)));
        assert!(matches!(busy.take_up(), Ok(None)));
        assert!(turns.take_now::<()>().is_none());
        drop(idle);
        assert_eq!(turns.running(), 2);
        drop(third);
        assert_eq!(turns.running(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_all_the_time_keeps_its_turn() {
        let turns = Turns::new(1);
        let turn = first(&turns);
        turn.rest("history");
        advance(PATIENCE - FORGIVEN).await;
        assert!(matches!(turn.take_up(), Ok(Some(_))), "once it may take its time");
        for _ in 0..50 {
            turn.rest("history");
            advance(FORGIVEN).await;
            assert!(turns.take_now::<()>().is_none());
            assert!(matches!(turn.take_up(), Ok(Some(_))));
        }
        assert!(turns.take_now::<()>().is_none(), "it is at work");
        drop(turn);
        assert!(turns.take_now::<()>().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_little_now_and_then_gives_way() {
        let turns = Turns::new(1);
        let turn = first(&turns);
        turn.rest("history");
        advance(PATIENCE - Duration::from_millis(1)).await;
        assert!(turns.take_now::<()>().is_none());
        assert!(matches!(turn.take_up(), Ok(Some(_))));
        assert!(turns.take_now::<()>().is_none(), "it is at work");
        turn.rest("history");
        advance(FORGIVEN).await;
        assert!(turns.take_now::<()>().is_none(), "it has more time left");
        advance(Duration::from_millis(1)).await;
        assert!(turns.take_now::<()>().is_some());
        assert!(matches!(turn.take_up(), Err(Lost)));
    }
}
