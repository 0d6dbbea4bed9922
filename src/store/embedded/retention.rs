//! How much of the log stays: bounded by bytes and by age, trimmed as part of each group commit.

use std::time::Duration;

use redb::{ReadableTable, Table};

use super::tables::{Fault, LogRow, log_row_bytes};

/// How many rows one trim removes for each row that its group wrote, and beyond: so that the log
/// shrinks, yet no commit waits long.
const ROWS_PER_WRITE: usize = 4;
const ROWS_BEYOND: usize = 64;

/// The bounds of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) bytes: u64,
    pub(super) age: Duration,
}

impl Retention {
    /// Removes the oldest rows while the log is over a bound; the newest row always stays.
    /// Gives the bytes of the log after it.
    pub(super) fn trim(
        &self,
        log: &mut Table<'_, u64, LogRow>,
        mut bytes: u64,
        wrote: usize,
        now_ms: i64,
    ) -> Result<u64, Fault> {
        let last = log.last()?.map_or(0, |(seq, _)| seq.value());
        for _ in 0..wrote.saturating_mul(ROWS_PER_WRITE).saturating_add(ROWS_BEYOND) {
            let Some((seq, committed_ms, size)) = oldest(log)? else { break };
            if seq == last || !self.is_over(bytes, committed_ms, now_ms) {
                break;
            }
            log.remove(seq)?;
            bytes = bytes.saturating_sub(size);
        }
        Ok(bytes)
    }

    fn is_over(&self, bytes: u64, committed_ms: i64, now_ms: i64) -> bool {
        let age = now_ms.saturating_sub(committed_ms);
        bytes > self.bytes || u128::try_from(age).is_ok_and(|age| age > self.age.as_millis())
    }
}

fn oldest(log: &Table<'_, u64, LogRow>) -> Result<Option<(u64, i64, u64)>, Fault> {
    let first = log.first()?;
    Ok(first.map(|(seq, row)| (seq.value(), row.value().0, log_row_bytes(row.value()))))
}
