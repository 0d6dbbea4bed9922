//! The replay: what changed between two snapshots, in the part that was scanned in the older.

use std::sync::Arc;

use super::{CHUNK_BYTES, Ended, Session, Stage};
use crate::{
    history::Cursor,
    live::{Follow, Followed},
    position::LogPosition,
    store::{Snapshot, StoreError},
};

impl Session {
    pub(super) async fn replay(
        &mut self,
        mut follow: Follow,
        snapshot: Arc<dyn Snapshot>,
        cursor: Cursor,
    ) -> Result<(), Ended> {
        let end = snapshot.position();
        while self.out.len() < CHUNK_BYTES {
            let quiet = match follow.next().await {
                Ok(Followed::Change(entry)) if entry.change.position < end => {
                    let live = self.filter().verdict(&entry);
                    let verdict = cursor.replay(&self.plan, &entry.change, live);
                    let scan = self.scan_position(cursor.clone());
                    if !self.write_change(&entry, verdict, Some(scan))? {
                        return Ok(());
                    }
                    continue;
                }
                Ok(Followed::Change(_)) => true,
                Ok(Followed::Level { quiet }) => quiet,
                Ok(Followed::FellBehind) => continue,
                Err(StoreError::PositionLost(why)) => return self.reset(&why),
                Err(error) => return Err(error.into()),
            };
            if is_past(follow.position(), quiet, end) {
                self.scan_on(snapshot, Some(cursor));
                return Ok(());
            }
            if self.out.is_empty() {
                let scan = self.scan_position(cursor.clone());
                self.checkpoint(follow.position(), Some(scan));
            }
            if !self.out.is_empty() {
                break;
            }
        }
        self.stage = Stage::Replay { follow, snapshot, cursor };
        Ok(())
    }
}

/// Whether all changes before `end`, which is the place right after a time T, are delivered.
fn is_past(position: LogPosition, quiet: bool, end: LogPosition) -> bool {
    position >= end || (quiet && position.time.saturating_add(1) >= end.time)
}
