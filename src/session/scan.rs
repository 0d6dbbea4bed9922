//! The scan: what the snapshot holds, one type after another.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{CHUNK_BYTES, Ended, Session, Stage};
use crate::{
    frame::{self, Control},
    history::{Cursor, History},
    plan::Members,
    position::ScanPosition,
    store::{Snapshot, StoreError},
};

/// How many snapshots in a row may expire before one resource is read.
const MOST_EXPIRIES: u32 = 20;

impl Session {
    pub(super) async fn scan(&mut self, mut history: History) -> Result<(), Ended> {
        match history.fetch().await {
            Ok(true) => {
                self.expiries = 0;
                self.write_scanned(&mut history);
                self.stage = Stage::Scan(history);
                Ok(())
            }
            Ok(false) => {
                self.end_history(history.snapshot());
                Ok(())
            }
            Err(StoreError::SnapshotExpired | StoreError::Unavailable(_)) => {
                self.scan_later(&history).await
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_scanned(&mut self, history: &mut History) {
        let log = history.snapshot().position();
        let mut passed_over = None;
        while self.out.len() < CHUNK_BYTES
            && let Some((ty, cursor, json)) = history.take()
        {
            let id = cursor.key.doc().to_string();
            let scan = self.scan_position(cursor);
            passed_over = if self.filter().holds(ty, &id, &json) {
                self.write_resource(ty, &json, log, scan);
                None
            } else {
                Some(scan)
            };
        }
        if let Some(scan) = passed_over {
            self.checkpoint(log, Some(scan));
        }
    }

    pub(super) fn scan_position(&self, cursor: Cursor) -> ScanPosition {
        let Cursor { type_index, key } = cursor;
        ScanPosition { query: self.query, type_index, key }
    }

    fn end_history(&mut self, snapshot: &Arc<dyn Snapshot>) {
        let log = snapshot.position();
        self.turn = None;
        if self.plan.follow {
            self.stage = self.live_at(log);
        } else {
            let data = frame::transaction_time(snapshot.instant());
            self.write_control(Control::CaughtUp, &data, log);
        }
    }

    /// The snapshot is gone, or the store is away: the state (T, cursor) is enough to go on in
    /// a newer one.
    async fn scan_later(&mut self, history: &History) -> Result<(), Ended> {
        self.expiries += 1;
        if self.expiries > MOST_EXPIRIES {
            return Err(StoreError::SnapshotExpired.into());
        }
        sleep(Duration::from_millis(50) * (self.expiries - 1)).await;
        let members = self.members.as_ref().map(Members::hash);
        let log = history.snapshot().position();
        self.stage = match history.cursor().cloned() {
            Some(cursor) => Stage::Resume { log, cursor, members },
            None => Stage::Begin,
        };
        Ok(())
    }
}
