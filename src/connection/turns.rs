//! Turns of those who have much to send: few at once, and none while the crowd is served, as far
//! as that ends.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::timeout,
};

/// How long a turn gives way to the crowd. At a load that the crowd alone can't bear, the others
/// still come on.
const GIVE_WAY: Duration = Duration::from_millis(2);

/// The turns of one server.
#[derive(Debug)]
pub(super) struct Turns {
    free: Semaphore,
    /// How many carriers serve the crowd.
    carrying: watch::Sender<usize>,
}

impl Turns {
    /// So many at once that a core is left over, where there are two.
    pub(super) fn of(cores: usize) -> Self {
        let free = Semaphore::new(cores.saturating_sub(1).max(1));
        Self { free, carrying: watch::Sender::new(0) }
    }

    /// Waits for a turn, which ends when dropped.
    pub(super) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes them: at worst it does not wait.
        let turn = self.free.acquire().await.ok();
        if *self.carrying.borrow() > 0 {
            let mut carrying = self.carrying.subscribe();
            let served = carrying.wait_for(|carriers| *carriers == 0);
            // Late or not, it is its turn.
            drop(timeout(GIVE_WAY, served).await);
        }
        turn
    }

    /// The crowd is served until this is dropped.
    pub(super) fn carry(&self) -> Carrying<'_> {
        self.carrying.send_modify(|carriers| *carriers += 1);
        Carrying(self)
    }
}

/// The crowd is being served.
pub(super) struct Carrying<'t>(&'t Turns);

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        self.0.carrying.send_modify(|carriers| *carriers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_turn_gives_way_to_the_crowd_but_not_for_ever() {
        let turns = Turns::of(2);
        let crowd = turns.carry();
        let mut turn = Box::pin(turns.take());
        assert!(turn.as_mut().now_or_never().is_none());
        turn.await;
        drop(crowd);
        assert!(turns.take().now_or_never().is_some());
    }

    #[tokio::test]
    async fn one_turn_at_a_time_on_two_cores() {
        let turns = Turns::of(2);
        let first = turns.take().await;
        let mut second = Box::pin(turns.take());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_some());
    }
}
