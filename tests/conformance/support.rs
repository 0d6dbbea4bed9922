//! What a store brings along to be checked, and what the checks share.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use fhirtail::{
    fhir::{ResourceType, resource::Resource},
    position::LogPosition,
    store::{
        Action, Before, Change, ChangeBatch, ChangeKind, Changes, Expect, Scan, ScanKey, Scanned,
        Snapshot, Store, StoreError, Write, Written,
    },
};
use futures_util::future::BoxFuture;

/// How long a condition may take to come true before the check fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a check needs of a store beyond the ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Nothing.
    Plain,
    /// Snapshots expire within seconds.
    ShortSnapshots,
    /// The log forgets its beginning within a few megabytes of changes.
    SmallLog,
}

/// A store, fresh and empty, and the means to restart it. The function that makes one has the
/// shape `async fn make(setup: Setup) -> Result<StoreUnderTest, String>`; its `Err` says why this
/// kind of store can't be set up so, and the check is left out for it.
pub struct StoreUnderTest {
    pub store: Arc<dyn Store>,
    pub backend: Box<dyn Backend>,
}

/// What holds a store under test.
#[async_trait]
pub trait Backend: Send + Sync {
    /// The same store as after a restart of the process. Handles of before may be dead.
    async fn restart(&self, store: &Arc<dyn Store>) -> Arc<dyn Store>;

    /// Leaves nothing behind.
    async fn end(self: Box<Self>);
}

/// Runs one check on a store of its own.
pub async fn run(
    make: impl Future<Output = Result<StoreUnderTest, String>>,
    check: impl for<'s> FnOnce(&'s StoreUnderTest) -> BoxFuture<'s, ()>,
) {
    match make.await {
        Ok(made) => {
            check(&made).await;
            made.store.close().await;
            made.backend.end().await;
        }
        Err(why) => eprintln!("not for this store: {why}"),
    }
}

pub fn ty(name: &str) -> ResourceType {
    ResourceType::parse(name).expect("a type of R4")
}

/// A resource of a type, with members after its id.
pub fn put(type_name: &str, id: &str, members: &str) -> Write {
    let comma = if members.is_empty() { "" } else { "," };
    let text = format!(r#"{{"resourceType":"{type_name}","id":"{id}"{comma}{members}}}"#);
    let resource = Resource::parse(text.as_bytes()).expect("a resource");
    Write { ty: resource.ty(), id: id.into(), action: Action::Put(resource), expect: Expect::Any }
}

/// A patient whose content is a number.
pub fn patient(id: &str, number: usize) -> Write {
    put("Patient", id, &format!(r#""multipleBirthInteger":{number}"#))
}

pub fn delete(type_name: &str, id: &str) -> Write {
    Write { ty: ty(type_name), id: id.into(), action: Action::Delete, expect: Expect::Any }
}

pub fn expecting(expect: Expect, write: Write) -> Write {
    Write { expect, ..write }
}

/// Commits one write.
pub async fn commit(store: &Arc<dyn Store>, write: Write) -> Written {
    let mut written = store.commit(vec![write]).await.expect("a commit");
    assert_eq!(written.len(), 1);
    written.remove(0)
}

pub fn text(json: &[u8]) -> &str {
    std::str::from_utf8(json).expect("UTF-8")
}

/// `meta.versionId` of a stored resource.
pub fn version_of(json: &[u8]) -> u64 {
    let value: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    let version = value["meta"]["versionId"].as_str().expect("a version");
    version.parse().expect("a number")
}

pub fn whole(type_name: &str) -> Scan {
    Scan::of(ty(type_name))
}

/// All that a scan gives, and the error it ends with. Keys must rise (or fall, where it goes down)
/// and lines must be lines.
pub async fn scan_until_end(
    snapshot: &dyn Snapshot,
    scan: Scan,
) -> (Vec<Scanned>, Option<StoreError>) {
    let mut last = scan.after.clone();
    let down = scan.along.is_down();
    let is_before = |one: &ScanKey, other: &ScanKey| if down { one > other } else { one < other };
    let mut batches = snapshot.scan(scan);
    let mut all: Vec<Scanned> = Vec::new();
    while let Some(batch) = batches.recv().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                assert!(batches.recv().await.is_none(), "an error is the last thing sent");
                return (all, Some(error));
            }
        };
        for resource in batch.resources() {
            assert!(last.is_none_or(|last| is_before(&last, &resource.key)), "{:?}", resource.key);
            assert!(!resource.json.contains(&b'\n'));
            last = Some(resource.key.clone());
            all.push(resource);
        }
        if let Some(reached) = batch.reached {
            assert!(last.is_none_or(|last| !is_before(&reached, &last)), "{reached:?} goes back");
            last = Some(reached);
        }
    }
    (all, None)
}

/// All that a scan gives.
pub async fn scan(snapshot: &dyn Snapshot, scan: Scan) -> Vec<Scanned> {
    let (all, error) = scan_until_end(snapshot, scan).await;
    assert!(error.is_none(), "{error:?}");
    all
}

/// The texts of a scan.
pub fn texts(scanned: &[Scanned]) -> Vec<&str> {
    scanned.iter().map(|resource| text(&resource.json)).collect()
}

/// Reads a log and holds it to its promises: positions rise, none lies beyond the level, the
/// level never goes back.
pub struct Reader {
    changes: Box<dyn Changes>,
    last: LogPosition,
    level: LogPosition,
}

impl Reader {
    pub async fn after(store: &Arc<dyn Store>, position: LogPosition) -> Result<Self, StoreError> {
        let changes = store.changes(position).await?;
        Ok(Self { changes, last: position, level: position })
    }

    pub async fn next(&mut self) -> Result<ChangeBatch, StoreError> {
        let next = tokio::time::timeout(PATIENCE, self.changes.next());
        let batch = next.await.expect("it returns, with or without changes")?;
        for change in &batch.changes {
            assert!(change.position > self.last, "{:?} after {:?}", change.position, self.last);
            assert!(change.position <= batch.level, "{change:?} beyond {:?}", batch.level);
            self.last = change.position;
        }
        // Where all of n is consumed, "before n + 1" is the same place.
        let same = self.level == LogPosition::past(batch.level.time);
        assert!(batch.level >= self.level || same, "{:?} before {:?}", batch.level, self.level);
        self.level = batch.level;
        Ok(batch)
    }

    /// All changes until level with `head`.
    pub async fn until(&mut self, head: LogPosition) -> Vec<Change> {
        let mut all = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let batch = self.next().await.expect("changes");
            all.extend(batch.changes);
            let level = batch.level.time;
            if level > head.time || (level == head.time && batch.quiet) {
                return all;
            }
            assert!(Instant::now() < deadline, "level {:?}, head {head:?}", batch.level);
        }
    }
}

/// All changes between a position and the head of now.
pub async fn changes_since(store: &Arc<dyn Store>, position: LogPosition) -> Vec<Change> {
    let head = store.head().await.expect("a head");
    Reader::after(store, position).await.expect("a known position").until(head).await
}

/// A line for each change, to compare and to read: position, id, what it is now.
pub fn outline(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| match &change.kind {
        ChangeKind::Upsert { ty, id, json, .. } => {
            format!("{:?} {ty}/{id} {}", change.position, text(json))
        }
        ChangeKind::Delete { ty, id, .. } => format!("{:?} {ty}/{id} deleted", change.position),
        ChangeKind::Deferred { ty, until } => {
            format!("{:?} {ty} deferred to {until:?}", change.position)
        }
        ChangeKind::Replaced { ty } => format!("{:?} {ty} replaced", change.position),
    };
    changes.iter().map(line).collect()
}

/// What a before-image says: `None` if the store does not know.
pub fn known_before(before: &Before) -> Option<Option<Bytes>> {
    match before {
        Before::Absent => Some(None),
        Before::Unknown => None,
        Before::Known(image) => Some(Some((image.encode)().expect("an image"))),
    }
}

/// A client's copy of some types, kept by the rules a client goes by: nothing twice, nothing
/// missing in between.
#[derive(Debug, Default, PartialEq)]
pub struct Replica(pub BTreeMap<(ResourceType, String), Bytes>);

impl Replica {
    /// Of a snapshot.
    pub async fn of(snapshot: &dyn Snapshot, type_names: &[&str]) -> Self {
        let mut replica = Self::default();
        for name in type_names {
            for resource in scan(snapshot, whole(name)).await {
                let id = id_of(&resource.json);
                let twice = replica.0.insert((ty(name), id), resource.json);
                assert!(twice.is_none(), "a scan gives no key twice");
            }
        }
        replica
    }

    /// Applies a change that must follow exactly upon what is here.
    pub fn apply(&mut self, change: &Change) {
        match &change.kind {
            ChangeKind::Upsert { ty, id, json, before, .. } => {
                let old = self.0.insert((*ty, id.to_string()), json.clone());
                let versions = (old.as_deref().map(version_of), version_of(json));
                assert!(versions.0 < Some(versions.1), "{ty}/{id}: {versions:?}");
                assert_follows(before, old);
            }
            ChangeKind::Delete { ty, id, before, .. } => {
                let old = self.0.remove(&(*ty, id.to_string()));
                assert!(old.is_some(), "{ty}/{id} is deleted and was never here");
                assert_follows(before, old);
            }
            ChangeKind::Deferred { .. } => {}
            ChangeKind::Replaced { ty } => panic!("nobody replaced {ty}"),
        }
    }
}

fn assert_follows(before: &Before, old: Option<Bytes>) {
    if let Some(known) = known_before(before) {
        assert_eq!(known, old, "the before-image is what the replica held");
    }
}

pub fn id_of(json: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    value["id"].as_str().expect("an id").to_owned()
}

/// The position at which nothing has been written yet.
pub async fn start(store: &Arc<dyn Store>) -> LogPosition {
    store.snapshot().await.expect("a snapshot").position()
}
