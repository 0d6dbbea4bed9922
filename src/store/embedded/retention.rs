//! How much of the log stays: bounded by bytes and by age, trimmed as part of each group commit.

use std::time::Duration;

use redb::{ReadableTable, Table};

use super::{
    Stopwatch,
    tables::{Fault, LogRow, log_row_bytes},
};

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
        let most = wrote.saturating_mul(ROWS_PER_WRITE).saturating_add(ROWS_BEYOND);
        let too_old = self.last_too_old(log, most, now_ms)?;
        for _ in 0..most {
            let Some((seq, size)) = oldest(log)? else { break };
            let is_over = bytes > self.bytes || too_old.is_some_and(|too_old| seq <= too_old);
            if seq == last || !is_over {
                break;
            }
            log.remove(seq)?;
            bytes = bytes.saturating_sub(size);
        }
        Ok(bytes)
    }

    /// The last of the oldest rows that is too old. So is each before it, whatever the clock showed
    /// when that was written.
    fn last_too_old(
        &self,
        log: &Table<'_, u64, LogRow>,
        most: usize,
        now_ms: i64,
    ) -> Result<Option<u64>, Fault> {
        let mut too_old = None;
        for entry in log.iter()?.take(most) {
            let (seq, row) = entry?;
            let age = now_ms.saturating_sub(row.value().0);
            if u128::try_from(age).is_ok_and(|age| age > self.age.as_millis()) {
                too_old = Some(seq.value());
            } else if age >= 0 {
                break;
            }
        }
        Ok(too_old)
    }
}

fn oldest(log: &Table<'_, u64, LogRow>) -> Result<Option<(u64, u64)>, Fault> {
    let first = log.first()?;
    Ok(first.map(|(seq, row)| (seq.value(), log_row_bytes(row.value()))))
}

/// The time by which the log ages: what the clock shows, but no more than has passed, by the
/// stopwatch, since the newest change of before. So a clock that jumps ahead costs nobody its
/// position; after one that was wrong, the log is kept for longer.
pub(super) struct Age {
    stopwatch: Stopwatch,
    /// A time, and what the stopwatch showed then.
    since: Option<(i64, Duration)>,
}

impl Age {
    pub(super) fn new(stopwatch: Stopwatch) -> Self {
        Self { stopwatch, since: None }
    }

    /// What it is, where the clock shows this. `newest_ms`: when the newest change was committed.
    pub(super) fn now(&mut self, shown_ms: i64, newest_ms: Option<i64>) -> i64 {
        let passed = (self.stopwatch)();
        let (ms, then) = self.since.unwrap_or((newest_ms.unwrap_or(shown_ms), passed));
        let since = passed.saturating_sub(then).as_millis();
        let reached = ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX));
        // Else as it began: milliseconds that are cut off one by one would add up.
        self.since = Some(if shown_ms < reached { (shown_ms, passed) } else { (ms, then) });
        shown_ms.min(reached)
    }
}
