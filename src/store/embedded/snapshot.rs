//! Reads as of one instant: a read transaction of the file, held for a bounded time.
//!
//! While it is held, the file can reuse no page that it still shows; so it expires, whoever
//! still reads, and the reader goes on from a new one.

use std::{
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use redb::ReadTransaction;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    file::{DataFile, fault},
    tables::{self, Fault, after_type},
    work::blocking,
};
use crate::{
    fhir::ResourceType,
    position::LogPosition,
    store::{
        DocId, DocRef, KeyRef, Lookup, Place, Scan, ScanBatch, ScanKey, Snapshot, Sought,
        StoreError, Window, batch::Lines,
    },
};

/// Bounds of one batch: bytes of JSON, resources, and rows looked at.
const BATCH_BYTES: usize = 512 << 10;
const BATCH_RESOURCES: usize = 1_000;
const BATCH_ROWS: usize = 20_000;

/// A snapshot of the embedded store.
pub(super) struct EmbeddedSnapshot {
    held: Held,
    position: LogPosition,
    instant: Timestamp,
}

impl EmbeddedSnapshot {
    /// Of a transaction whose last change has number `last`.
    pub(super) fn new(held: Held, last: u64, now: Timestamp) -> Self {
        Self { held, position: LogPosition::past(last), instant: now }
    }
}

#[async_trait]
impl Snapshot for EmbeddedSnapshot {
    fn position(&self) -> LogPosition {
        self.position
    }

    fn instant(&self) -> Timestamp {
        self.instant
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Option<Bytes>, StoreError> {
        let id = id.to_owned();
        match self.held.read(move |txn| tables::lookup(txn, ty.name(), &id)).await? {
            Lookup::Found { json, .. } => Ok(Some(json)),
            Lookup::Deleted { .. } | Lookup::Absent => Ok(None),
        }
    }

    fn scan(&self, scan: Scan) -> mpsc::Receiver<Result<ScanBatch, StoreError>> {
        let (batches, receiver) = mpsc::channel(1);
        tokio::spawn(run_scan(self.held.clone(), scan, batches));
        receiver
    }
}

/// The transaction until it expires, shared by the snapshot and its scans: it ends in time even
/// if only a scan that nobody reads is left of them.
#[derive(Clone)]
pub(super) struct Held(Arc<Expiring>);

struct Expiring {
    file: Arc<DataFile>,
    txn: Mutex<Option<Arc<ReadTransaction>>>,
    _reaper: AbortOnDropHandle<()>,
}

impl Held {
    /// Takes over a transaction of the file.
    pub(super) fn new(file: Arc<DataFile>, txn: ReadTransaction, life: Duration) -> Self {
        Self(Arc::new_cyclic(|held: &Weak<Expiring>| {
            let held = held.clone();
            let reaper = tokio::spawn(async move {
                tokio::time::sleep(life).await;
                if let Some(held) = held.upgrade() {
                    held.lock().take();
                }
            });
            Expiring {
                file,
                txn: Mutex::new(Some(Arc::new(txn))),
                _reaper: AbortOnDropHandle::new(reaper),
            }
        }))
    }

    /// Reads, away from the async threads. The transaction outlives its expiry by no more than
    /// the one read under way.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let txn = self.0.lock().clone().ok_or(StoreError::SnapshotExpired)?;
        let held = Arc::clone(&self.0);
        let read = move || {
            work(&txn).map_err(|error| {
                held.file.heed(&error);
                expired_or_fault(error)
            })
        };
        blocking(read).await
    }
}

impl Expiring {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<ReadTransaction>>> {
        self.txn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction ends with its database: when the store closes, or opens its file anew.
fn expired_or_fault(error: Fault) -> StoreError {
    match error {
        Fault::DatabaseClosed | Fault::PreviousIo => StoreError::SnapshotExpired,
        other => fault(other),
    }
}

async fn run_scan(
    held: Held,
    mut scan: Scan,
    batches: mpsc::Sender<Result<ScanBatch, StoreError>>,
) {
    let in_time = match scan.after {
        Some(ScanKey::Updated(..)) => true,
        Some(ScanKey::Id(_)) => false,
        None => scan.along.is_by_time() || !scan.window.is_open(),
    };
    let named = if in_time { None } else { named(&scan) };
    if scan.along.is_by_time() && scan.window.is_open() {
        scan.window = window(&scan);
    }
    // A place in the channel first, then the read: one batch ahead of the reader, no more.
    while let Ok(place) = batches.reserve().await {
        let (part, named) = (scan.clone(), named.clone());
        let read = move |txn: &ReadTransaction| match named {
            Some(ids) => of_ids(txn, &part, &ids),
            None if in_time => by_time(txn, &part),
            None => by_id(txn, &part),
        };
        match held.read(read).await {
            Ok(batch) => {
                scan.after.clone_from(&batch.reached);
                place.send(Ok(batch));
            }
            Err(error) => return place.send(Err(error)),
        }
        if scan.after.is_none() {
            return;
        }
    }
}

/// Resources in the making of a batch.
#[derive(Default)]
struct Page {
    lines: Lines,
    looked_at: usize,
}

impl Page {
    fn push(&mut self, key: KeyRef<'_>, json: &[u8]) {
        self.lines.text.extend_from_slice(json);
        self.lines.end_line(key);
    }

    fn is_full(&self) -> bool {
        self.lines.text.len() >= BATCH_BYTES
            || self.lines.len() >= BATCH_RESOURCES
            || self.looked_at >= BATCH_ROWS
    }

    /// The batch; `next` is the key to go on after, `None` where the type has ended.
    fn into_batch(self, next: Option<KeyRef<'_>>) -> ScanBatch {
        self.lines.finish(next.map(KeyRef::to_key))
    }
}

/// The ids of all that is wanted, in the order of the scan, if the clues name them.
fn named(scan: &Scan) -> Option<Arc<[Box<str>]>> {
    let ids = scan.clues.iter().find_map(|clue| {
        let [place] = clue.places.as_slice() else { return None };
        let text = |sought: &Sought| match sought {
            Sought::Text(id) => Some(id.as_str().into()),
            _ => None,
        };
        let is_id = place.path == ["id"];
        place.values.iter().map(text).collect::<Option<Vec<Box<str>>>>().filter(|_| is_id)
    });
    let mut ids = ids?;
    ids.sort_unstable();
    ids.dedup();
    if scan.along.is_down() {
        ids.reverse();
    }
    Some(ids.into())
}

/// Between which instants all lies that is wanted, if the clues tell.
fn window(scan: &Scan) -> Window {
    let instants = scan.clues.iter().find_map(|clue| match clue.places.as_slice() {
        [Place { path, values }] if *path == ["meta", "lastUpdated"] => match values.as_slice() {
            [Sought::Instant(from, to)] => Some((*from, *to)),
            _ => None,
        },
        _ => None,
    });
    let (from, to) = instants.unwrap_or_default();
    Window { after_ms: from.map(|ms| ms - 1), before_ms: to.map(|ms| ms + 1) }
}

/// Those of the ids that lie beyond the key that the scan goes on after.
fn of_ids(txn: &ReadTransaction, scan: &Scan, ids: &[Box<str>]) -> Result<ScanBatch, Fault> {
    let down = scan.along.is_down();
    let is_beyond = |id: &str| match &scan.after {
        Some(ScanKey::Id(DocId::Text(after))) => {
            if down {
                id < &**after
            } else {
                id > &**after
            }
        }
        Some(_) => down,
        None => true,
    };
    let resources = txn.open_table(tables::RESOURCES)?;
    let mut page = Page::default();
    for id in ids.iter().filter(|id| is_beyond(id)) {
        let Some(row) = resources.get((scan.ty.name(), &**id))? else { continue };
        let (_, updated_ms, json) = row.value();
        let key = KeyRef::Id(DocRef::Text(id));
        if scan.window.contains(Some(updated_ms)) {
            page.push(key, json);
        }
        if page.is_full() {
            return Ok(page.into_batch(Some(key)));
        }
    }
    Ok(page.into_batch(None))
}

/// The next of a range, from its first on or from its last.
fn next<I: DoubleEndedIterator>(range: &mut I, down: bool) -> Option<I::Item> {
    if down { range.next_back() } else { range.next() }
}

fn by_id(txn: &ReadTransaction, scan: &Scan) -> Result<ScanBatch, Fault> {
    let (ty, end) = (scan.ty.name(), after_type(scan.ty.name()));
    let down = scan.along.is_down();
    let first = Bound::Included((ty, ""));
    let last = Bound::Excluded((&*end, ""));
    let range = match &scan.after {
        Some(ScanKey::Id(DocId::Text(id))) if down => (first, Bound::Excluded((ty, &**id))),
        Some(ScanKey::Id(DocId::Text(id))) => (Bound::Excluded((ty, &**id)), last),
        None => (first, last),
        // All keys here are texts, which stand before ObjectIds.
        Some(_) if down => (first, last),
        Some(_) => return Ok(ScanBatch::default()),
    };
    let mut page = Page::default();
    let mut rows = txn.open_table(tables::RESOURCES)?.range::<(&str, &str)>(range)?;
    while let Some(entry) = next(&mut rows, down) {
        let (key, row) = entry?;
        let (_, updated_ms, json) = row.value();
        let key = KeyRef::Id(DocRef::Text(key.value().1));
        page.looked_at += 1;
        if scan.window.contains(Some(updated_ms)) {
            page.push(key, json);
        }
        if page.is_full() {
            return Ok(page.into_batch(Some(key)));
        }
    }
    Ok(page.into_batch(None))
}

fn by_time(txn: &ReadTransaction, scan: &Scan) -> Result<ScanBatch, Fault> {
    let (ty, end) = (scan.ty.name(), after_type(scan.ty.name()));
    let down = scan.along.is_down();
    let updated = txn.open_table(tables::UPDATED)?;
    let resources = txn.open_table(tables::RESOURCES)?;
    let mut page = Page::default();
    let before = match (down, &scan.after, scan.window.before_ms) {
        (true, Some(ScanKey::Updated(ms, DocId::Text(id))), _) => Bound::Excluded((ty, *ms, &**id)),
        (_, _, Some(ms)) => Bound::Excluded((ty, ms, "")),
        (_, _, None) => Bound::Excluded((&*end, i64::MIN, "")),
    };
    let after = scan.after.as_ref().filter(|_| !down);
    let Some(after) = time_bound(ty, after, scan.window) else {
        return Ok(ScanBatch::default());
    };
    let mut rows = updated.range::<(&str, i64, &str)>((after, before))?;
    while let Some(entry) = next(&mut rows, down) {
        let (key, _) = entry?;
        let (_, ms, id) = key.value();
        let row = resources.get((ty, id))?;
        let row = row.ok_or_else(|| Fault::Corrupted(format!("{ty}/{id} has no row")))?;
        let key = KeyRef::Updated(ms, DocRef::Text(id));
        page.push(key, row.value().2);
        if page.is_full() {
            return Ok(page.into_batch(Some(key)));
        }
    }
    Ok(page.into_batch(None))
}

/// Where a scan by time begins: after the key, and within the window. `None`: past all.
fn time_bound<'k>(
    ty: &'k str,
    after: Option<&'k ScanKey>,
    window: Window,
) -> Option<Bound<(&'k str, i64, &'k str)>> {
    let opens = match window.after_ms {
        Some(ms) => ms.checked_add(1)?,
        None => i64::MIN,
    };
    Some(match after {
        Some(ScanKey::Updated(ms, DocId::Text(id))) if *ms >= opens => {
            Bound::Excluded((ty, *ms, id))
        }
        Some(ScanKey::Updated(ms, DocId::Oid(_))) if *ms >= opens => {
            Bound::Included((ty, ms.checked_add(1)?, ""))
        }
        _ => Bound::Included((ty, opens, "")),
    })
}
