//! The replay: what changed between two snapshots, in the part that was scanned in the older.
//!
//! The store may have looked a change up as of a time after the newer snapshot, or have deferred it to
//! one that comes after that. What the log then tells of that time has been sent, or what it tells of
//! the time before has not, where the change was; and the other way round where the scan is yet to
//! bring the resource as the snapshot has it. So the replay goes on, up to a snapshot in which there
//! is no such difference. Where the stream goes on live, what was deferred comes then.

use super::{CHUNK_BYTES, Ended, Replay, Session, Stage};
use crate::{
    filter::Verdict,
    history::Cursor,
    live::Followed,
    position::LogPosition,
    store::{Change, ChangeKind, StoreError},
};

impl Session {
    pub(super) async fn replay(&mut self, mut replay: Replay) -> Result<(), Ended> {
        let end = replay.snapshot.position();
        while self.out.len() < CHUNK_BYTES {
            let is_past = match replay.follow.next_before(end).await {
                Ok(Some(Followed::Change(entry))) => {
                    let live = self.filter().verdict(&entry);
                    let verdict = replay.cursor.replay(&self.plan, &entry.change, live);
                    if verdict != Verdict::Skip || self.lacks(&entry.change, &replay.cursor) {
                        replay.holds_at = replay.holds_at.max(entry.change.holds_at());
                    }
                    let scan = self.scan_position(replay.cursor.clone());
                    if !self.write_change(&entry, verdict, Some(scan))? {
                        return Ok(());
                    }
                    continue;
                }
                Ok(None) => true,
                Ok(Some(Followed::Level { quiet })) => {
                    is_past(replay.follow.position(), quiet, end)
                }
                Ok(Some(Followed::FellBehind)) => continue,
                Err(StoreError::PositionLost(why)) => return self.reset(&why),
                Err(error) => return Err(error.into()),
            };
            if is_past {
                if replay.holds_at > end {
                    if self.out.is_empty() {
                        return self.replay_on(replay).await;
                    }
                    // What there is goes out before a snapshot is asked for.
                    break;
                }
                self.scan_on(replay.snapshot, Some(replay.cursor));
                return Ok(());
            }
            if self.out.is_empty() {
                let scan = self.scan_position(replay.cursor.clone());
                self.checkpoint(replay.follow.position(), Some(scan));
            }
            if !self.out.is_empty() {
                break;
            }
        }
        self.stage = Stage::Replay(replay);
        Ok(())
    }

    /// Whether a history with an end may lack what a change made that it skips, unless it goes on to
    /// where that is told.
    fn lacks(&self, change: &Change, cursor: &Cursor) -> bool {
        let (ChangeKind::Deferred { ty, .. } | ChangeKind::Upsert { ty, .. }) = change.kind else {
            return false;
        };
        let index = self.plan.index_of(ty);
        !self.plan.follow && index.is_some_and(|index| index <= cursor.type_index)
    }
}

/// Whether all changes before `end`, which is the place right after a time T, are delivered.
fn is_past(position: LogPosition, quiet: bool, end: LogPosition) -> bool {
    position >= end || (quiet && position.time.saturating_add(1) >= end.time)
}
