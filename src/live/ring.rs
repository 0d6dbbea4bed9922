//! The ring: consecutive changes of the log, the last ones read, bounded by bytes. Pure.

use std::{collections::VecDeque, sync::Arc};

use jiff::Timestamp;

use super::entry::{Entry, Page};
use crate::{position::LogPosition, store::ChangeBatch};

/// The last changes of the log.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    capacity: usize,
    /// Every change after this, up to `level`, is in the ring.
    start: LogPosition,
    level: LogPosition,
    quiet: bool,
    /// Every change committed after this is in the ring.
    since: Timestamp,
}

impl Ring {
    pub(super) fn new(start: LogPosition, capacity: usize) -> Self {
        let entries = VecDeque::new();
        let since = Timestamp::MAX;
        Self { entries, bytes: 0, capacity, start, level: start, quiet: false, since }
    }

    /// It begins at an instant: what was committed later is yet to be read.
    pub(super) fn begin(self, now: Timestamp) -> Self {
        Self { since: now, ..self }
    }

    /// Adds what has been read; the oldest changes make room.
    pub(super) fn push(&mut self, batch: ChangeBatch) {
        let (level, quiet) = (batch.level, batch.quiet);
        batch.changes.into_iter().map(Entry::new).for_each(|entry| self.add(entry));
        self.reach(level, quiet);
    }

    /// Adds the next change. All changes of one place belong together: the others are to follow
    /// before anyone reads.
    pub(super) fn add(&mut self, entry: Arc<Entry>) {
        let last = entry.change.position;
        self.bytes += entry.weight();
        self.since = self.since.min(entry.change.committed);
        self.entries.push_back(entry);
        while self.bytes > self.capacity
            && let Some(oldest) = self.entries.pop_front_if(|entry| entry.change.position < last)
        {
            self.bytes -= oldest.weight();
            self.start = oldest.change.position;
            self.since = oldest.change.committed;
        }
        self.reach(last, false);
    }

    /// All changes up to `level` are in.
    pub(super) fn reach(&mut self, level: LogPosition, quiet: bool) {
        self.level = self.level.max(level);
        self.quiet = quiet;
    }

    /// Where the ring would start with `bytes` more in it.
    pub(super) fn start_with(&self, bytes: usize) -> LogPosition {
        let mut too_many = (self.bytes + bytes).saturating_sub(self.capacity);
        let mut start = self.start;
        for oldest in &self.entries {
            if too_many == 0 {
                break;
            }
            too_many = too_many.saturating_sub(oldest.weight());
            start = oldest.change.position;
        }
        start
    }

    /// Where the older half of its bytes ends.
    pub(super) fn middle(&self) -> LogPosition {
        let mut bytes = 0;
        let mut older = self.entries.iter().skip_while(|entry| {
            bytes += entry.weight();
            2 * bytes < self.bytes
        });
        older.next().map_or(self.level, |entry| entry.change.position)
    }

    /// Forgets everything: the log was lost, and goes on at `start`, which is now.
    pub(super) fn restart(&mut self, start: LogPosition, now: Timestamp) {
        *self = Self::new(start, self.capacity).begin(now);
    }

    /// The changes after a position, about `budget` bytes of them. `None`: the ring no longer
    /// reaches back that far.
    pub(super) fn read(&self, after: LogPosition, budget: usize) -> Option<Page> {
        if after < self.start {
            return None;
        }
        let first = self.entries.partition_point(|entry| entry.change.position <= after);
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut level = after;
        for entry in self.entries.range(first..) {
            // A page never ends between two changes of one place (a rename is two): who goes on
            // behind the first would miss the second.
            if bytes >= budget && entry.change.position > level {
                return Some(Page { entries, level, quiet: false, more: true });
            }
            level = entry.change.position;
            bytes += entry.weight();
            entries.push(Arc::clone(entry));
        }
        Some(self.end_of(entries, after))
    }

    /// A page that ends where the ring does, or, for a reader ahead of the tail, where it is:
    /// whether the log rests there is then not known. Only right behind a log at rest, which is
    /// where a handoff stands, the two are one place.
    fn end_of(&self, entries: Vec<Arc<Entry>>, after: LogPosition) -> Page {
        let at_rest = self.quiet && after == LogPosition::past(self.level.time);
        if after <= self.level || at_rest {
            return Page { entries, level: self.level, quiet: self.quiet, more: false };
        }
        Page { entries, level: after, quiet: false, more: false }
    }

    pub(super) fn covers(&self, after: LogPosition) -> bool {
        after >= self.start
    }

    pub(super) fn ends_at(&self, position: LogPosition) -> bool {
        let newest = self.entries.back().map_or(self.start, |entry| entry.change.position);
        position >= self.start && position >= newest
    }

    pub(super) fn start(&self) -> LogPosition {
        self.start
    }

    /// Every change committed after this is in the ring; of those before, some may be.
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    pub(super) fn level(&self) -> LogPosition {
        self.level
    }

    pub(super) fn quiet(&self) -> bool {
        self.quiet
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        fhir::ResourceType,
        store::{Before, Change, ChangeKind, DocId, Image},
    };

    fn deletion(time: u64, image: usize) -> Change {
        let encode = Arc::new(|| None);
        let kind = ChangeKind::Delete {
            ty: ResourceType::parse("Basic").unwrap(),
            id: "1".into(),
            doc: DocId::Text("1".into()),
            before: Before::Known(Image { bytes: image, encode }),
        };
        Change { kind, ..change(time) }
    }

    fn change(time: u64) -> Change {
        let kind = ChangeKind::Upsert {
            ty: ResourceType::parse("Basic").unwrap(),
            id: time.to_string().into(),
            doc: DocId::Text(time.to_string().into()),
            updated_ms: None,
            json: Bytes::from_static(&[b'x'; 100]),
            before: Before::Absent,
        };
        let position = LogPosition { time, consumed: 1 };
        Change::new(position, jiff::Timestamp::UNIX_EPOCH, kind)
    }

    fn batch(times: std::ops::Range<u64>) -> ChangeBatch {
        let level = LogPosition::before(times.end);
        ChangeBatch::new(times.map(change).collect(), level, true)
    }

    fn times(page: &Page) -> Vec<u64> {
        page.entries.iter().map(|entry| entry.change.position.time).collect()
    }

    #[test]
    fn gives_exactly_what_follows_or_says_that_it_can_not() {
        let mut ring = Ring::new(LogPosition::before(10), 5 * 456);
        ring.push(batch(10..20));
        assert_eq!(ring.len(), 5);
        for after in 0..25 {
            let page = ring.read(LogPosition::past(after), usize::MAX);
            match after {
                0..14 => assert!(page.is_none(), "{after}"),
                _ => assert_eq!(times(&page.unwrap()), (after + 1..20).collect::<Vec<_>>()),
            }
        }
    }

    #[test]
    fn reaches_back_to_its_oldest_change_or_its_begin() {
        let second = |second| jiff::Timestamp::from_second(second).unwrap();
        let mut ring = Ring::new(LogPosition::before(10), 3 * 456).begin(second(12));
        assert_eq!(ring.since(), second(12));
        for (time, since) in [(14, 12), (15, 12), (16, 12), (17, 14), (18, 15)] {
            let change = Change { committed: second(time), ..change(time as u64) };
            ring.add(Entry::new(change));
            assert_eq!(ring.since(), second(since), "{time}");
        }
        ring.restart(ring.level(), second(20));
        // Read from before the begin on.
        ring.add(Entry::new(Change { committed: second(19), ..change(19) }));
        assert_eq!(ring.since(), second(19));
    }

    #[test]
    fn what_a_deletion_remembers_counts() {
        let mut ring = Ring::new(LogPosition::before(10), 10_000);
        let changes = (10..30).map(|time| deletion(time, 4_000)).collect();
        ring.push(ChangeBatch { changes, ..batch(10..30) });
        assert_eq!(ring.len(), 2);
    }

    #[test]
    fn a_page_holds_all_changes_of_a_place() {
        let mut ring = Ring::new(LogPosition::before(10), 10_000);
        let changes = [10, 11, 11, 11, 12].map(change).to_vec();
        ring.push(ChangeBatch { changes, ..batch(10..13) });
        for budget in [1, 300, 600, 1_000] {
            let (mut after, mut seen) = (LogPosition::before(10), Vec::new());
            while seen.last() != Some(&12) {
                let page = ring.read(after, budget).unwrap();
                seen.extend(times(&page));
                after = page.level;
            }
            assert_eq!(seen, [10, 11, 11, 11, 12], "{budget}");
        }
    }

    #[test]
    fn a_reader_ahead_of_the_tail_is_never_taken_back() {
        let mut ring = Ring::new(LogPosition::before(10), 10_000);
        ring.push(batch(10..12));
        let ahead = LogPosition::past(15);
        assert_eq!(ring.read(ahead, usize::MAX).unwrap().level, ahead);
        ring.push(batch(12..18));
        assert_eq!(times(&ring.read(ahead, usize::MAX).unwrap()), [16, 17]);
    }

    #[test]
    fn a_reader_ahead_of_the_tail_is_not_told_that_the_log_rests() {
        let mut ring = Ring::new(LogPosition::before(10), 10_000);
        let level = LogPosition { time: 11, consumed: 1 };
        ring.push(ChangeBatch { level, ..batch(10..12) });
        let read = |after| ring.read(after, usize::MAX).unwrap();
        assert!(read(level).quiet);
        let handoff = read(LogPosition::past(11));
        assert_eq!((handoff.level, handoff.quiet), (level, true));
        for ahead in [LogPosition { time: 12, consumed: 1 }, LogPosition::past(12)] {
            assert_eq!((read(ahead).level, read(ahead).quiet), (ahead, false));
        }
    }

    #[test]
    fn a_page_within_a_budget_ends_where_its_last_change_ends() {
        let mut ring = Ring::new(LogPosition::before(10), 10_000);
        ring.push(batch(10..14));
        let mut after = LogPosition::before(10);
        let mut seen = Vec::new();
        loop {
            let page = ring.read(after, 1).unwrap();
            seen.extend(times(&page));
            after = page.level;
            if page.quiet {
                break;
            }
        }
        assert_eq!((seen, after), (vec![10, 11, 12, 13], LogPosition::before(14)));
    }
}
