//! How much of the log stays: bounded by bytes and by age, trimmed as part of each group commit.
//!
//! Age is time for which the store was open, by a clock that nobody sets. What the one on the wall
//! shows, or showed when a change was written, may lie: nobody loses a position by it.

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

/// Of an age, how much a change may outlive it: one in so many.
const NOTES: u64 = 64;

/// The bounds of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) bytes: u64,
    pub(super) age: Duration,
}

impl Retention {
    /// Removes the oldest rows while the log is over a bound; those that the group wrote always
    /// stay, whatever the bound: nobody has read them yet. Gives the bytes of the log after it.
    pub(super) fn trim(
        &self,
        (log, ages): (&mut Table<'_, u64, LogRow>, &mut Table<'_, u64, u64>),
        mut bytes: u64,
        wrote: usize,
        open_ms: u64,
    ) -> Result<u64, Fault> {
        let newest = log.last()?.map_or(0, |(seq, _)| seq.value());
        let last_of_before = newest.saturating_sub(wrote as u64);
        let most = wrote.saturating_mul(ROWS_PER_WRITE).saturating_add(ROWS_BEYOND);
        let too_old = self.last_too_old(ages, open_ms)?;
        for _ in 0..most {
            let Some((seq, size)) = oldest(log)? else { break };
            let is_over = bytes > self.bytes || too_old.is_some_and(|too_old| seq <= too_old);
            if seq > last_of_before || !is_over {
                break;
            }
            log.remove(seq)?;
            bytes = bytes.saturating_sub(size);
        }
        Ok(bytes)
    }

    /// Notes when the last commit of before was, and its last change, unless another was noted a
    /// moment ago.
    pub(super) fn note(
        &self,
        ages: &mut Table<'_, u64, u64>,
        (then_ms, last): (u64, u64),
        open_ms: u64,
    ) -> Result<(), Fault> {
        let noted = ages.last()?.map(|(at, _)| at.value());
        let step = self.age_ms() / NOTES;
        if noted.is_none_or(|at| open_ms >= at.saturating_add(step)) {
            ages.insert(then_ms, last)?;
        }
        Ok(())
    }

    /// The last change that is too old. Of what was noted before it nothing is needed any more.
    fn last_too_old(
        &self,
        ages: &mut Table<'_, u64, u64>,
        open_ms: u64,
    ) -> Result<Option<u64>, Fault> {
        let Some(least) = open_ms.checked_sub(self.age_ms()) else { return Ok(None) };
        let noted = ages.range(..least)?.next_back().transpose()?;
        let Some((at, seq)) = noted.map(|(at, seq)| (at.value(), seq.value())) else {
            return Ok(None);
        };
        ages.retain_in(..at, |_, _| false)?;
        Ok(Some(seq))
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX)
    }
}

fn oldest(log: &Table<'_, u64, LogRow>) -> Result<Option<(u64, u64)>, Fault> {
    let first = log.first()?;
    Ok(first.map(|(seq, row)| (seq.value(), log_row_bytes(row.value()))))
}

/// For how long the store has been open in all.
pub(super) struct Age {
    stopwatch: Stopwatch,
    /// What the stopwatch showed when the store was opened.
    opened: Duration,
    /// For how long it had been open before that, in ms.
    before: Option<u64>,
}

impl Age {
    /// Of a store that is opened now.
    pub(super) fn new(stopwatch: Stopwatch) -> Self {
        let opened = stopwatch();
        Self { stopwatch, opened, before: None }
    }

    /// It, in ms, where it was so long at the last commit of before.
    pub(super) fn now(&mut self, then: u64) -> u64 {
        let before = *self.before.get_or_insert(then);
        let since = (self.stopwatch)().saturating_sub(self.opened).as_millis();
        before.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}
