//! The live stage: what changes, and word of when the client's copy is whole.

use std::sync::Arc;

use jiff::Timestamp;

use super::{CHUNK_BYTES, Ended, Goal, Session, Stage};
use crate::{
    frame::{self, Control},
    live::{Follow, Followed},
    position::LogPosition,
    store::{StoreError, detached},
};

impl Session {
    pub(super) async fn live(
        &mut self,
        mut follow: Follow,
        mut goal: Option<Goal>,
    ) -> Result<(), Ended> {
        if goal.is_none() && !self.caught_up {
            let end = self.goal().await?;
            // A snapshot's handoff lies right past its T; nobody has consumed anything there.
            if follow.position() > LogPosition::past(end.head.time) {
                self.stage = Stage::Live { follow, goal };
                return self.wait_for_the_log().await;
            }
            self.ahead = 0;
            goal = Some(end);
        }
        follow.rest(goal.is_none());
        while self.out.len() < CHUNK_BYTES {
            match follow.next().await {
                Ok(Followed::Change(entry)) => {
                    let verdict = self.filter().verdict(&entry);
                    if !self.write_change(&entry, verdict, None)? {
                        return Ok(());
                    }
                }
                Ok(Followed::Level { quiet }) => {
                    self.level(&follow, quiet, &mut goal);
                    // Also with nothing to write: a level stream may be given away.
                    break;
                }
                Ok(Followed::FellBehind) => {
                    self.fell_behind(follow.position());
                    break;
                }
                Err(StoreError::PositionLost(why)) => return self.reset(&why),
                Err(error) => return Err(error.into()),
            }
        }
        self.stage = Stage::Live { follow, goal };
        Ok(())
    }

    /// The end of the log as it is now: who has passed it has all that was written before.
    async fn goal(&self) -> Result<Goal, Ended> {
        let at = Timestamp::now();
        // In a task of its own: who waits in the queue for an answer must go on as soon as it is
        // there, and a stream goes on only when it is its turn to write.
        let asked = || {
            let hub = Arc::clone(&self.hub);
            detached(async move { hub.head().await })
        };
        let head = self.insist(asked).await?;
        Ok(Goal { head, at })
    }

    fn level(&mut self, follow: &Follow, quiet: bool, goal: &mut Option<Goal>) {
        let position = follow.position();
        // Past the goal in a lane it is still behind, and will not be told so again: it is live
        // only once it is in the ring. Where a change was deferred the copy is not whole.
        let is_whole = self.hub.covers(position) && follow.is_whole();
        match goal {
            Some(reached) if is_whole && reached.is_reached(position, quiet) => {
                let data = frame::transaction_time(reached.at);
                self.write_control(Control::CaughtUp, &data, position);
                self.caught_up = true;
                *goal = None;
            }
            _ if self.out.is_empty() => self.checkpoint(position, None),
            _ => {}
        }
    }

    fn fell_behind(&mut self, position: LogPosition) {
        if std::mem::take(&mut self.caught_up) {
            let data = frame::transaction_time(Timestamp::now());
            self.write_control(Control::FellBehind, &data, position);
        }
    }
}

impl Goal {
    fn is_reached(&self, position: LogPosition, quiet: bool) -> bool {
        position.time > self.head.time || (quiet && position.time >= self.head.time)
    }
}
