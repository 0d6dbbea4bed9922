//! The log, read in commit order. One reading for the handoff, for a resume and for the tail.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable};
use tokio::sync::watch;

use super::{
    file::DataFile,
    tables::{self, Fault, log_span},
    work::blocking,
    writer::instant,
};
use crate::{
    fhir::ResourceType,
    position::LogPosition,
    store::{Before, Change, ChangeBatch, ChangeKind, Changes, DocId, Image, StoreError},
};

/// Bytes of JSON in one batch.
const BATCH_BYTES: usize = 512 << 10;
/// How long an idle reader waits before it says that there is nothing.
const IDLE: Duration = Duration::from_millis(250);

/// The number of the first change after a position. Each change has a number of its own, so
/// (n, 1) and (n + 1, 0) are one place.
pub(super) fn first_after(position: LogPosition) -> u64 {
    position.time.saturating_add(u64::from(position.consumed > 0)).max(1)
}

/// Refuses a place that the log has trimmed, or has not reached.
pub(super) fn check_place(next: u64, (oldest, last): (u64, u64)) -> Result<(), StoreError> {
    let lost = |text: String| Err(StoreError::PositionLost(text));
    if next < oldest {
        return lost(format!(
            "the log begins at change {oldest}; change {next} is no longer in it"
        ));
    }
    if next > last + 1 {
        return lost(format!("the log ends at change {last}; change {next} is not in it"));
    }
    Ok(())
}

/// A reader of the log.
pub(super) struct EmbeddedChanges {
    file: Arc<DataFile>,
    committed: watch::Receiver<()>,
    next: u64,
    /// The last batch reached the end: there is nothing to read before the next commit.
    idle: bool,
}

impl EmbeddedChanges {
    pub(super) fn new(file: Arc<DataFile>, committed: watch::Receiver<()>, next: u64) -> Self {
        Self { file, committed, next, idle: false }
    }
}

#[async_trait]
impl Changes for EmbeddedChanges {
    async fn next(&mut self) -> Result<ChangeBatch, StoreError> {
        if self.idle {
            // At the end of the wait, for whatever reason, the log itself is asked.
            let told = tokio::time::timeout(IDLE, self.committed.changed()).await;
            // The writer has gone, and will not tell.
            if let Ok(Err(_)) = told {
                tokio::time::sleep(IDLE).await;
            }
        }
        self.committed.mark_unchanged();
        let (file, next) = (self.file.clone(), self.next);
        let batch = blocking(move || {
            file.read(|txn| match check_place(next, span(&txn)?) {
                Ok(()) => read_batch(&txn, next).map(Ok),
                Err(lost) => Ok(Err(lost)),
            })
        })
        .await??;
        self.next = batch.level.time + 1;
        self.idle = batch.quiet;
        Ok(batch)
    }

    // Between two reads nothing is open.
    async fn close(self: Box<Self>) {}
}

/// The sequence numbers that the log holds, as of the transaction.
pub(super) fn span(txn: &ReadTransaction) -> Result<(u64, u64), Fault> {
    log_span(&txn.open_table(tables::LOG)?)
}

/// When the oldest change was committed that the log holds, as of the transaction.
pub(super) fn oldest(txn: &ReadTransaction) -> Result<Option<Timestamp>, Fault> {
    let log = txn.open_table(tables::LOG)?;
    let first = log.first()?;
    Ok(first.map(|(_, row)| instant(row.value().0)))
}

fn read_batch(txn: &ReadTransaction, mut next: u64) -> Result<ChangeBatch, Fault> {
    let mut changes = Vec::new();
    let mut bytes = 0;
    let mut quiet = true;
    for entry in txn.open_table(tables::LOG)?.range(next..)? {
        if bytes >= BATCH_BYTES {
            quiet = false;
            break;
        }
        let (seq, row) = entry?;
        let (_, _, _, before, after) = row.value();
        bytes += before.len() + after.len();
        changes.push(change(seq.value(), row.value())?);
        next = seq.value() + 1;
    }
    // Not before(next), where a change may yet come: where the last one is consumed.
    let level = LogPosition { time: next.saturating_sub(1), consumed: 1 };
    Ok(ChangeBatch::new(changes, level, quiet))
}

fn change(
    seq: u64,
    (ms, ty, id, before, after): (i64, &str, &str, &[u8], &[u8]),
) -> Result<Change, Fault> {
    let no_type = || Fault::Corrupted(format!("'{ty}' is no resource type"));
    let ty = ResourceType::parse(ty).ok_or_else(no_type)?;
    let doc = DocId::Text(id.into());
    let (id, before) = (id.into(), before_image(before));
    let kind = if after.is_empty() {
        ChangeKind::Delete { ty, id, doc, before }
    } else {
        let json = Bytes::copy_from_slice(after);
        ChangeKind::Upsert { ty, id, doc, updated_ms: Some(ms), json, before }
    };
    let position = LogPosition { time: seq, consumed: 1 };
    Ok(Change::new(position, instant(ms), kind))
}

fn before_image(json: &[u8]) -> Before {
    if json.is_empty() {
        return Before::Absent;
    }
    let json = Bytes::copy_from_slice(json);
    let bytes = json.len();
    Before::Known(Image { bytes, encode: Arc::new(move || Some(json.clone())) })
}

/// The number of the first change that was committed at or after an instant; the last one's if
/// there is none, and 0 of an empty log. Where the clock once went back, it is near that.
pub(super) fn first_since(txn: &ReadTransaction, since_ms: i64) -> Result<u64, Fault> {
    let log = txn.open_table(tables::LOG)?;
    let (mut low, last) = log_span(&log)?;
    let mut high = last;
    while low < high {
        let middle = low + (high - low) / 2;
        let committed_ms = log.get(middle)?.map_or(i64::MIN, |row| row.value().0);
        if committed_ms < since_ms {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low.min(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_whose_writer_has_gone_waits_all_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = Arc::new(DataFile::open(directory.path(), 1 << 20).expect("a file").0);
        let (sender, committed) = watch::channel(());
        drop(sender);
        let mut reader = EmbeddedChanges::new(file, committed, 1);
        assert!(reader.next().await.expect("a batch").quiet);
        let began = tokio::time::Instant::now();
        assert!(reader.next().await.expect("a batch").quiet);
        assert!(began.elapsed() >= IDLE, "{:?}", began.elapsed());
    }
}
