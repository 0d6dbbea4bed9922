//! What people see of a load: a bar on a terminal, else a line now and then.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::{task::JoinHandle, time::interval};

use super::read::Place;
use crate::store::Effect;

const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);
const TEMPLATE: &str = "{bar:30} {bytes}/{total_bytes}  {msg}  {eta} left";

/// What has come of the resources so far, and where the bad ones are told.
#[derive(Debug)]
pub(super) struct Tally {
    created: AtomicU64,
    updated: AtomicU64,
    unchanged: AtomicU64,
    deleted: AtomicU64,
    failed: AtomicU64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Tally {
    /// Begins to count. `bytes` is the size of all files.
    pub(super) fn new(bytes: u64) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE);
        let bar = style.ok().filter(|_| io::stderr().is_terminal());
        Self {
            created: AtomicU64::new(0),
            updated: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            started: Instant::now(),
            bar: bar.map(|style| ProgressBar::new(bytes).with_style(style)),
        }
    }

    /// Counts one that was loaded.
    pub(super) fn good(&self, effect: Effect) {
        let counter = match effect {
            Effect::Created => &self.created,
            Effect::Updated => &self.updated,
            Effect::Unchanged => &self.unchanged,
            Effect::Deleted | Effect::Missing => &self.deleted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether none was left out.
    pub(super) fn is_all_good(&self) -> bool {
        self.failed.load(Ordering::Relaxed) == 0
    }

    /// Counts one that was not loaded, and tells of it.
    pub(super) fn bad(&self, Place { file, line }: &Place, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.tell(&format!("{file}:{line}: {why}"));
    }

    fn tell(&self, line: &str) {
        let print = || drop(writeln!(io::stderr().lock(), "{line}"));
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Resources done with, failed ones included.
    fn done(&self) -> u64 {
        let counters = [&self.created, &self.updated, &self.unchanged, &self.deleted, &self.failed];
        counters.into_iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    fn rate(&self) -> f64 {
        self.done() as f64 / self.started.elapsed().as_secs_f64().max(0.001)
    }

    /// Shows progress until the task is aborted. `read` counts the bytes of the files.
    pub(super) fn show(self: &Arc<Self>, read: Arc<AtomicU64>, total: u64) -> JoinHandle<()> {
        let tally = Arc::clone(self);
        tokio::spawn(async move {
            let every = if tally.bar.is_some() { BAR_EVERY } else { LINE_EVERY };
            let mut ticks = interval(every);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                tally.tick(read.load(Ordering::Relaxed), total);
            }
        })
    }

    fn tick(&self, read: u64, total: u64) {
        let rate = self.rate();
        let Some(bar) = &self.bar else {
            let share = (read * 100).checked_div(total);
            let share = share.map_or(String::new(), |percent| format!(", {percent} %"));
            return self.tell(&format!("{} resources{share} ({rate:.0}/s)", self.done()));
        };
        bar.set_length(total.max(read));
        bar.set_position(read);
        bar.set_message(format!("{} resources ({rate:.0}/s)", self.done()));
    }

    /// The last line, on stdout.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let _ = writeln!(io::stdout().lock(), "{}", self.summary());
    }

    fn summary(&self) -> String {
        let at = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let deleted = match at(&self.deleted) {
            0 => String::new(),
            count => format!("{count} deleted, "),
        };
        format!(
            "{} resources: {} created, {} updated, {} unchanged, {deleted}{} failed in {:.1} s ({:.0}/s)",
            self.done(),
            at(&self.created),
            at(&self.updated),
            at(&self.unchanged),
            at(&self.failed),
            self.started.elapsed().as_secs_f64(),
            self.rate()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_all() {
        let tally = Tally::new(1);
        tally.created.store(3, Ordering::Relaxed);
        tally.bad(&Place { file: "f".into(), line: 1 }, "why");
        let summary = tally.summary();
        let start = "4 resources: 3 created, 0 updated, 0 unchanged, 1 failed in ";
        assert!(summary.starts_with(start), "{summary}");
        tally.deleted.store(2, Ordering::Relaxed);
        assert!(
            tally
                .summary()
                .contains("6 resources: 3 created, 0 updated, 0 unchanged, 2 deleted, 1")
        );
    }
}
