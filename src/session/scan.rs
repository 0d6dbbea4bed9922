//! The scan: what the snapshot holds, one type after another.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::time::sleep;

use super::{CHUNK_BYTES, Ended, Session, Stage};
use crate::{
    frame::{self, Control, Format},
    history::{Cursor, History, Part},
    plan::Members,
    position::{LogPosition, ScanPosition, Stem, write_key},
    store::{KeyRef, ScanKey, Snapshot, StoreError},
};

/// How many snapshots in a row may expire before one resource is read. The next one is then not
/// waited for any longer than that.
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
                self.scan_later(history).await
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_scanned(&mut self, history: &mut History) {
        let log = history.snapshot().position();
        let Some(part) = history.take(CHUNK_BYTES) else { return };
        let type_index = part.type_index;
        if let Some(key) = self.write_part(log, &part) {
            let scan = self.scan_position(Cursor { type_index, key });
            self.tell(log, Some(scan));
        }
        if let Some(cursor) = history.cursor() {
            let scan = self.scan_position(cursor.clone());
            self.checkpoint(log, Some(scan));
        }
    }

    /// Writes those resources that are the stream's. Gives the last one's key.
    fn write_part(&mut self, log: LogPosition, part: &Part<'_>) -> Option<ScanKey> {
        let opening = Format::opening(part.ty, &self.stem(log, part.type_index).to_string());
        let narrowed = self.plan.narrows(part.ty);
        let elements = self.plan.elements.part(part.ty);
        if self.format == Format::Ndjson && !narrowed && elements.is_none() {
            return self.share_part(part);
        }
        self.out.buffer().reserve(CHUNK_BYTES + CHUNK_BYTES / 4);
        let mut last = None;
        for index in part.range.clone() {
            let Some(key) = part.batch.key(index) else { continue };
            if narrowed {
                let (id, json) = (key.doc().to_string(), part.batch.json(index));
                if !self.filter().holds(part.ty, &id, &json) {
                    continue;
                }
            }
            let id = |out: &mut BytesMut| write_key(out, key);
            let own = elements.as_ref().map(|elements| {
                let mut line = elements.of_resource(&part.batch.json(index));
                line.push(b'\n');
                line
            });
            let line = own.as_deref().unwrap_or_else(|| part.batch.line(index));
            self.format.scanned(self.out.buffer(), &opening, id, line);
            self.events += 1;
            last = Some(key);
        }
        last.map(KeyRef::to_key)
    }

    /// Writes all of the resources, as the lines that they are. Gives the last one's key.
    fn share_part(&mut self, part: &Part<'_>) -> Option<ScanKey> {
        let last = part.batch.key(part.range.end.checked_sub(1)?)?;
        self.out.share(&part.batch.lines(part.range.clone()));
        self.events += part.range.len() as u64;
        Some(last.to_key())
    }

    fn stem(&self, log: LogPosition, type_index: usize) -> Stem {
        let members = self.members.as_ref().and_then(Members::hash);
        Stem { epoch: self.epoch, log, members, query: self.query, type_index }
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
    async fn scan_later(&mut self, history: History) -> Result<(), Ended> {
        // An event stream waits for as long as its client stays.
        if self.expiries == MOST_EXPIRIES && self.format != Format::Sse {
            return Err(StoreError::SnapshotExpired.into());
        }
        sleep(Duration::from_millis(50) * self.expiries).await;
        self.expiries = MOST_EXPIRIES.min(self.expiries + 1);
        self.stage = Stage::Scan(history);
        if let Some(later) = self.later() {
            self.stage = later;
        }
        Ok(())
    }
}
