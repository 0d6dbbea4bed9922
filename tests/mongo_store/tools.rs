//! A store over a fresh database, and short ways to say what tests do with it.

use std::{collections::BTreeMap, sync::Arc};

use fhirtail::{
    fhir::{ResourceType, resource::Resource},
    position::LogPosition,
    store::{
        Action, Ahead, Change, ChangeKind, Changes, Expect, Scan, ScanKey, Scanned, Snapshot,
        Store, StoreError, Write, WriteError, Written,
        mongo::{MongoOptions, MongoStore},
    },
};
use mongodb::{
    Client, Collection, Database,
    bson::{Bson, Document, doc},
};

use support::mongod::{self, ReplicaSet};

/// A store, and the database under it.
pub(crate) struct Bench {
    pub(crate) set: &'static ReplicaSet,
    pub(crate) store: Arc<MongoStore>,
    pub(crate) client: Client,
    pub(crate) db: Database,
}

/// On the shared replica set. `None`: skipped.
pub(crate) async fn bench() -> Option<Bench> {
    Some(bench_on(mongod::shared().await?).await)
}

pub(crate) async fn bench_on(set: &'static ReplicaSet) -> Bench {
    let name = mongod::fresh_database();
    let store = open(set, &name).await;
    let client = set.client().await;
    let db = client.database(&name);
    Bench { set, store, client, db }
}

/// Small replies, so that there are many.
pub(crate) async fn open(set: &ReplicaSet, database: &str) -> Arc<MongoStore> {
    let options = MongoOptions { batch_size: 7, ..MongoOptions::default() };
    MongoStore::connect(&set.uri(database), options).await.expect("a store")
}

pub(crate) fn ty(name: &str) -> ResourceType {
    ResourceType::parse(name).expect("a type")
}

pub(crate) fn put(json: &str) -> Write {
    let resource = Resource::parse(json.as_bytes()).expect("a resource");
    let id = resource.id().expect("an id").to_owned();
    Write { ty: resource.ty(), id, action: Action::Put(resource), expect: Expect::Any }
}

pub(crate) fn delete(name: &str, id: &str) -> Write {
    Write { ty: ty(name), id: id.into(), action: Action::Delete, expect: Expect::Any }
}

pub(crate) fn patient(id: &str, n: i32) -> Write {
    put(&format!(r#"{{"resourceType":"Patient","id":"{id}","multipleBirthInteger":{n}}}"#))
}

impl Bench {
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        self.store.commit(writes).await
    }

    pub(crate) async fn write(&self, write: Write) -> Written {
        self.commit(vec![write]).await.expect("committed").remove(0)
    }

    pub(crate) fn collection(&self, name: &str) -> Collection<Document> {
        self.db.collection(name)
    }

    pub(crate) async fn insert(&self, name: &str, document: Document) -> Bson {
        self.collection(name).insert_one(document).await.expect("inserted").inserted_id
    }

    pub(crate) async fn snapshot(&self) -> Arc<dyn Snapshot> {
        self.store.snapshot().await.expect("a snapshot")
    }

    pub(crate) async fn head(&self) -> LogPosition {
        self.store.head().await.expect("a head")
    }

    pub(crate) async fn changes(&self, after: LogPosition) -> Box<dyn Changes> {
        self.store.changes(after).await.expect("a reader")
    }

    /// All changes after a position that were committed before this call.
    pub(crate) async fn changes_until_now(&self, after: LogPosition) -> Vec<Change> {
        let head = self.head().await;
        let mut reader = self.changes(after).await;
        let mut all = read_to(&mut *reader, head).await.0;
        // What was deferred is in what follows; to nothing, and the test sees it.
        all.retain(|change| deferred_to(change).is_none_or(|until| until <= change.position));
        all
    }
}

/// Up to where a change has to be read for what it has made, if it was deferred.
pub(crate) fn deferred_to(change: &Change) -> Option<LogPosition> {
    match change.kind {
        ChangeKind::Deferred { until, .. } => Some(until),
        _ => None,
    }
}

/// Reads until the reader is level with `head`.
pub(crate) async fn read_to(
    reader: &mut dyn Changes,
    head: LogPosition,
) -> (Vec<Change>, LogPosition) {
    let (mut all, mut ahead) = (Vec::new(), Ahead::default());
    loop {
        let mut batch = reader.next().await.expect("changes");
        ahead.mark(&mut batch.changes);
        all.extend(batch.changes);
        if batch.level.time > head.time || (batch.quiet && batch.level.time >= head.time) {
            return (all, batch.level);
        }
    }
}

pub(crate) fn everything(name: &str) -> Scan {
    Scan::of(ty(name))
}

pub(crate) async fn scan(snapshot: &dyn Snapshot, scan: Scan) -> Result<Vec<Scanned>, StoreError> {
    let mut batches = snapshot.scan(scan);
    let mut all = Vec::new();
    while let Some(batch) = batches.recv().await {
        all.extend(batch?.resources());
    }
    let keys: Vec<&ScanKey> = all.iter().map(|scanned| &scanned.key).collect();
    assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    Ok(all)
}

pub(crate) fn texts(scanned: &[Scanned]) -> Vec<String> {
    scanned.iter().map(|scanned| text(&scanned.json)).collect()
}

pub(crate) fn text(json: &[u8]) -> String {
    String::from_utf8(json.to_vec()).expect("UTF-8")
}

/// Updates as others make them: part by part.
pub(crate) async fn update(bench: &Bench, name: &str, filter: Document, update: Document) {
    bench.collection(name).update_many(filter, update).await.expect("updated");
}

/// Switches on that a collection keeps images.
pub(crate) async fn keep_images(bench: &Bench, name: &str) {
    let command = doc! {"collMod": name, "changeStreamPreAndPostImages": {"enabled": true}};
    bench.db.run_command(command).await.expect("switched on");
}

/// A change in a few words.
pub(crate) fn words(change: &Change) -> String {
    match &change.kind {
        ChangeKind::Upsert { json, before, .. } => format!("{before:?} -> {}", text(json)),
        ChangeKind::Delete { ty, id, before, .. } => format!("{before:?} -> no {ty}/{id}"),
        ChangeKind::Deferred { ty, .. } => format!("deferred {ty}"),
        ChangeKind::Replaced { ty } => format!("replaced {ty}"),
    }
}

/// Resources by type and id: what a client holds.
pub(crate) type Replica = BTreeMap<(ResourceType, String), String>;

pub(crate) fn apply(replica: &mut Replica, change: &Change) {
    match &change.kind {
        ChangeKind::Upsert { ty, id, json, .. } => {
            replica.insert((*ty, id.to_string()), text(json));
        }
        ChangeKind::Delete { ty, id, .. } => {
            replica.remove(&(*ty, id.to_string()));
        }
        ChangeKind::Deferred { .. } => {}
        ChangeKind::Replaced { ty } => replica.retain(|(of, _), _| of != ty),
    }
}

/// A snapshot of these types as a replica.
pub(crate) async fn copy(snapshot: &dyn Snapshot, types: &[&str]) -> Replica {
    let mut replica = Replica::new();
    for name in types {
        for scanned in scan(snapshot, everything(name)).await.expect("a scan") {
            let json = text(&scanned.json);
            let id = Resource::parse(json.as_bytes()).expect("a resource");
            let id = id.id().expect("an id").to_owned();
            assert_eq!(replica.insert((ty(name), id), json), None, "an id twice");
        }
    }
    replica
}
