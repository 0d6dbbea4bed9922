//! The history: the plan's types, one after another, as of one snapshot.
//!
//! And the pure rule by which changes are replayed when a scan goes on in a newer snapshot:
//! a client's state is (P, cursor), the scan being done up to the cursor and all changes up to
//! P sent for that part.

use std::{ops::Range, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    fhir::ResourceType,
    filter::Verdict,
    plan::Plan,
    store::{
        Along, Change, ChangeKind, Clue, KeyRef, Scan, ScanBatch, ScanKey, Snapshot, StoreError,
    },
};

/// How far a scan has come: all types before `type_index` are done, and that type up to `key`.
///
/// It names the last resource that was read, even once its type is done: whatever has come
/// after it in that type since is then the next scan's to send, not the replay's.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    /// The index of the type in the plan.
    pub type_index: usize,
    /// The last key of that type that was read.
    pub key: ScanKey,
}

impl Cursor {
    /// What a change in (P, T₁] means to a stream whose scan goes on from here at T₁, given what
    /// it would mean to a live one.
    ///
    /// An upsert is the scan's to send if the scan will come across it as it is now. A deletion
    /// of what was never sent is told only where nobody can know that it was not.
    #[must_use]
    pub fn replay(&self, plan: &Plan, change: &Change, live: Verdict) -> Verdict {
        let (ty, doc, updated_ms) = match &change.kind {
            ChangeKind::Upsert { ty, doc, updated_ms, .. } => (*ty, doc, *updated_ms),
            ChangeKind::Delete { ty, doc, .. } => (*ty, doc, None),
            ChangeKind::Deferred { .. } | ChangeKind::Replaced { .. } => return live,
        };
        let Some(index) = plan.index_of(ty) else { return live };
        let ahead = match index.cmp(&self.type_index) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => {
                self.key.same_order(doc, updated_ms).is_some_and(|key| key > self.key)
            }
        };
        // Only a scan by id never moves a resource from one side of the cursor to the other.
        let by_id = plan.window.is_open();
        match live {
            Verdict::Upsert if ahead && plan.window.contains(updated_ms) => Verdict::Skip,
            Verdict::Upsert if plan.window.contains(updated_ms) => Verdict::Upsert,
            // Out of the window, which in a stream that goes on live only bounds the history.
            Verdict::Upsert if plan.window.before_ms.is_none() => Verdict::Upsert,
            Verdict::Upsert => Verdict::Gone,
            Verdict::Gone if ahead && by_id => Verdict::Skip,
            other => other,
        }
    }
}

/// A scan of the plan's types in one snapshot.
pub struct History {
    plan: Arc<Plan>,
    snapshot: Arc<dyn Snapshot>,
    along: Along,
    clues: Arc<[Clue]>,
    cursor: Option<Cursor>,
    type_index: usize,
    scan: Option<mpsc::Receiver<Result<ScanBatch, StoreError>>>,
    batch: ScanBatch,
    /// How many resources of the batch are taken.
    taken: usize,
}

/// Resources that a [`History`] has brought.
#[derive(Debug)]
pub struct Part<'h> {
    /// Their type.
    pub ty: ResourceType,
    /// The index of the type in the plan.
    pub type_index: usize,
    /// Where they are.
    pub batch: &'h ScanBatch,
    /// Which of the batch they are: none, where a stretch without any was read.
    pub range: Range<usize>,
}

impl History {
    /// Starts at the beginning, or goes on after a cursor.
    #[must_use]
    pub fn new(plan: Arc<Plan>, snapshot: Arc<dyn Snapshot>, cursor: Option<Cursor>) -> Self {
        let type_index = cursor.as_ref().map_or(0, |cursor| cursor.type_index);
        Self {
            plan,
            snapshot,
            along: Along::default(),
            clues: Arc::default(),
            cursor,
            type_index,
            scan: None,
            batch: ScanBatch::default(),
            taken: 0,
        }
    }

    /// The same in another order, of which nothing is wanted that has not what the clues say.
    #[must_use]
    pub fn going(self, along: Along, clues: Arc<[Clue]>) -> Self {
        Self { along, clues, ..self }
    }

    /// The snapshot that is read.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<dyn Snapshot> {
        &self.snapshot
    }

    /// The type that is read; `None`: all are.
    #[must_use]
    pub fn ty(&self) -> Option<ResourceType> {
        self.plan.types.get(self.type_index).copied()
    }

    /// How far the resources have been taken; `None`: none yet.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Waits for resources, or for word that the scan has moved without finding any; `false`:
    /// there are no more. Cancel-safe.
    ///
    /// # Errors
    /// Those of a scan. The cursor stands where a newer snapshot is to go on.
    pub async fn fetch(&mut self) -> Result<bool, StoreError> {
        while self.taken == self.batch.len() && self.batch.reached.is_none() {
            let Some(&ty) = self.plan.types.get(self.type_index) else { return Ok(false) };
            let scan = match &mut self.scan {
                Some(scan) => scan,
                none => {
                    let reached = self.cursor.as_ref().filter(|c| c.type_index == self.type_index);
                    let after = reached.map(|cursor| cursor.key.clone());
                    let (window, along) = (self.plan.window, self.along);
                    let clues = match self.plan.filters.clues(ty) {
                        [] => Arc::clone(&self.clues),
                        clues => clues.into(),
                    };
                    let scan = Scan { ty, after, window, along, clues };
                    none.insert(self.snapshot.scan(scan))
                }
            };
            match scan.recv().await {
                Some(batch) => (self.batch, self.taken) = (batch?, 0),
                None => {
                    self.scan = None;
                    self.type_index += 1;
                }
            }
        }
        Ok(true)
    }

    /// Takes of the resources that [`fetch`](Self::fetch) has brought as many as have about so
    /// many bytes, one at least. The cursor moves behind them.
    pub fn take(&mut self, bytes: usize) -> Option<Part<'_>> {
        let ty = *self.plan.types.get(self.type_index)?;
        let start = self.taken;
        let mut taken_bytes = 0;
        while self.taken < self.batch.len() && taken_bytes < bytes {
            taken_bytes += self.batch.line(self.taken).len();
            self.taken += 1;
        }
        let reached = match self.taken == self.batch.len() {
            true => self.batch.reached.take(),
            false => None,
        };
        let last = || self.batch.key(self.taken.checked_sub(1)?).map(KeyRef::to_key);
        if let Some(key) = reached.or_else(last) {
            self.cursor = Some(Cursor { type_index: self.type_index, key });
        }
        let (type_index, range) = (self.type_index, start..self.taken);
        Some(Part { ty, type_index, batch: &self.batch, range })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        plan::{Grant, Scope},
        position::LogPosition,
        store::{Before, DocId, Window},
    };

    /// A snapshot whose scans find nothing up to "m", and then it has expired.
    struct Expiring;

    #[async_trait::async_trait]
    impl Snapshot for Expiring {
        fn position(&self) -> LogPosition {
            LogPosition::default()
        }

        fn instant(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }

        async fn read(&self, _: ResourceType, _: &str) -> Result<Option<Bytes>, StoreError> {
            Ok(None)
        }

        fn scan(&self, _: Scan) -> mpsc::Receiver<Result<ScanBatch, StoreError>> {
            let (batches, scan) = mpsc::channel(2);
            let mut stretch = ScanBatch::default();
            stretch.reached = Some(ScanKey::Id(doc("m")));
            batches.try_send(Ok(stretch)).unwrap();
            batches.try_send(Err(StoreError::SnapshotExpired)).unwrap();
            scan
        }
    }

    #[tokio::test]
    async fn what_was_searched_in_vain_is_not_searched_again() {
        let plan = plan(Window { after_ms: Some(100), before_ms: None });
        let mut history = History::new(Arc::new(plan), Arc::new(Expiring), None);
        assert!(matches!(history.fetch().await, Ok(true)), "that is progress");
        assert!(history.take(1).is_some_and(|part| part.range.is_empty()));
        assert!(matches!(history.fetch().await, Err(StoreError::SnapshotExpired)));
        let reached = Cursor { type_index: 0, key: ScanKey::Id(doc("m")) };
        assert_eq!(history.cursor(), Some(&reached));
    }

    fn ty(name: &str) -> ResourceType {
        ResourceType::parse(name).unwrap()
    }

    fn plan(window: Window) -> Plan {
        let types = [ty("Condition"), ty("Observation"), ty("Patient")];
        Plan::new(Scope::System, Some(&types), window, true, Grant::Everything)
    }

    fn change(kind: ChangeKind) -> Change {
        let committed = jiff::Timestamp::UNIX_EPOCH;
        Change::new(LogPosition::default(), committed, kind)
    }

    fn doc(id: &str) -> DocId {
        DocId::Text(id.into())
    }

    fn upsert(name: &str, id: &str, updated_ms: i64) -> Change {
        change(ChangeKind::Upsert {
            ty: ty(name),
            id: id.into(),
            doc: doc(id),
            updated_ms: Some(updated_ms),
            json: Bytes::new(),
            before: Before::Absent,
        })
    }

    fn delete(name: &str, id: &str) -> Change {
        let before = Before::Unknown;
        change(ChangeKind::Delete { ty: ty(name), id: id.into(), doc: doc(id), before })
    }

    #[test]
    fn by_id_each_change_is_told_by_exactly_one_side() {
        let plan = plan(Window::default());
        let cursor = Cursor { type_index: 1, key: ScanKey::Id(doc("m")) };
        let replay = |change, live| cursor.replay(&plan, &change, live);
        let sent = [("Condition", "z"), ("Observation", "a"), ("Observation", "m")];
        let ahead = [("Observation", "n"), ("Patient", "a")];
        for (name, id) in sent {
            assert_eq!(replay(upsert(name, id, 1), Verdict::Upsert), Verdict::Upsert);
            assert_eq!(replay(delete(name, id), Verdict::Gone), Verdict::Gone);
        }
        for (name, id) in ahead {
            assert_eq!(replay(upsert(name, id, 1), Verdict::Upsert), Verdict::Skip);
            assert_eq!(replay(delete(name, id), Verdict::Gone), Verdict::Skip);
        }
    }

    #[test]
    fn what_a_window_keeps_from_the_scan_is_replayed() {
        let since = plan(Window { after_ms: Some(100), before_ms: None });
        let cursor = Cursor { type_index: 1, key: ScanKey::Updated(150, doc("m")) };
        let replay = |updated_ms| {
            cursor.replay(&since, &upsert("Observation", "x", updated_ms), Verdict::Upsert)
        };
        assert_eq!(replay(160), Verdict::Skip);
        assert_eq!(replay(140), Verdict::Upsert);
        // Backdated: the scan will not bring it.
        assert_eq!(replay(90), Verdict::Upsert);
        // It may have been sent from its older place.
        let gone = cursor.replay(&since, &delete("Observation", "zzz"), Verdict::Gone);
        assert_eq!(gone, Verdict::Gone);
    }

    #[test]
    fn what_leaves_a_history_that_ends_is_gone() {
        let until = plan(Window { after_ms: None, before_ms: Some(200) });
        let cursor = Cursor { type_index: 1, key: ScanKey::Updated(150, doc("m")) };
        let replay = |updated_ms| {
            cursor.replay(&until, &upsert("Observation", "x", updated_ms), Verdict::Upsert)
        };
        assert_eq!(replay(140), Verdict::Upsert);
        assert_eq!(replay(250), Verdict::Gone);
    }

    #[test]
    fn a_reset_stays_a_reset() {
        let cursor = Cursor { type_index: 0, key: ScanKey::Id(doc("m")) };
        let reset = Verdict::Reset("why".into());
        let replaced = change(ChangeKind::Replaced { ty: ty("Patient") });
        let plan = plan(Window::default());
        assert_eq!(cursor.replay(&plan, &replaced, reset.clone()), reset);
        assert_eq!(cursor.replay(&plan, &upsert("Patient", "1", 0), reset.clone()), reset);
    }
}
