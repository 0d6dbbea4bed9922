//! MongoDB (5.0+, replica set or sharded cluster): snapshot reads at a cluster time, the change
//! stream of one database, and transactions.
//!
//! Out: [`snapshot`] and [`scan`] read, [`changes`] follows the log, [`encode`] writes JSON.
//! In: [`write`] commits what [`plan`] decided and [`decode`] built.

use std::{
    fmt,
    sync::{Arc, Once, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use mongodb::{
    Client, ClientSession, Collection, Database,
    bson::{Document, RawDocumentBuf, doc},
    options::CollectionOptions,
};

use super::{
    Changes, LogPosition, Lookup, ResourceType, Snapshot, Store, StoreError, Write, WriteError,
    Written, detached,
};
use crate::{position::Epoch, seldom::Seldom};
use catalog::Catalog;
use head::Head;
use layout::{DELETED, Layout};

pub(crate) mod catalog;
pub(crate) mod changes;
mod collections;
pub(crate) mod connect;
mod decimal;
mod decode;
mod digits;
mod encode;
pub(crate) mod errors;
pub(crate) mod event;
mod head;
pub(crate) mod layout;
pub(crate) mod log;
mod lookup;
mod mapping;
mod order;
mod plain;
mod plan;
mod scan;
mod snapshot;
pub(crate) mod time;
mod walk;
mod write;

pub use connect::ConnectError;

/// For `benches/hot.rs`: appends a document as its resource's JSON. `false`: it is no BSON.
#[doc(hidden)]
pub fn encode(document: &[u8], ty: ResourceType, out: &mut Vec<u8>) -> bool {
    let layout = Layout::native();
    Head::of(document).is_ok_and(|head| encode::resource(document, &head, ty, &layout, out).is_ok())
}

/// How to work with a deployment.
#[derive(Debug, Clone)]
pub struct MongoOptions {
    /// How many documents the server puts into one reply, at most. A reply ends at 16 MiB too.
    pub batch_size: u32,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self { batch_size: 1000 }
    }
}

/// A database of a MongoDB deployment as a FHIR store.
pub struct MongoStore {
    shared: Arc<Shared>,
    description: String,
}

/// What the store's tasks share.
pub(crate) struct Shared {
    client: Client,
    db: Database,
    layout: Layout,
    epoch: Epoch,
    has_images: bool,
    sharded: bool,
    batch_size: u32,
    catalog: RwLock<(Arc<Catalog>, Instant)>,
    /// Set once the collection of tombstones is there.
    tombstones: tokio::sync::OnceCell<()>,
    /// Called once the oplog turned out to be no business of ours.
    no_oplog: Once,
}

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MongoStore").field(&self.description).finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.db.name()).finish()
    }
}

impl MongoStore {
    /// Connects to the database that a connection string names.
    ///
    /// # Errors
    /// What [`ConnectError`] lists; after 5 s (or the URI's `serverSelectionTimeoutMS`) where
    /// nobody answers.
    pub async fn connect(uri: &str, options: MongoOptions) -> Result<Arc<Self>, ConnectError> {
        keep_freed_memory();
        let uri = uri.to_owned();
        let connecting = tokio::spawn(async move {
            let deployment = connect::connect(&uri).await?;
            let layout = Layout::native();
            let catalog = connect::catalog(&deployment, &layout).await?;
            Ok((deployment, layout, catalog))
        });
        let (deployment, layout, catalog) = connecting
            .await
            .unwrap_or_else(|error| Err(ConnectError::Uri(format!("connecting ended: {error}"))))?;
        let shared = Shared {
            client: deployment.client,
            db: deployment.db,
            layout,
            epoch: deployment.epoch,
            has_images: deployment.has_images,
            sharded: deployment.sharded,
            batch_size: options.batch_size,
            catalog: RwLock::new((Arc::new(catalog), Instant::now())),
            tombstones: tokio::sync::OnceCell::new(),
            no_oplog: Once::new(),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared), description: deployment.description }))
    }
}

#[async_trait]
impl Store for MongoStore {
    fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    async fn head(&self) -> Result<LogPosition, StoreError> {
        let shared = self.shared.clone();
        detached(async move { log::head(&shared).await }).await
    }

    async fn recent(&self, back: Duration) -> Result<LogPosition, StoreError> {
        let shared = self.shared.clone();
        detached(async move { log::recent(&shared, back).await }).await
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        let shared = self.shared.clone();
        detached(async move { log::oldest_instant(&shared).await }).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, StoreError> {
        let taken = detached(snapshot::MongoSnapshot::take(self.shared.clone())).await?;
        Ok(Arc::new(taken))
    }

    async fn changes(&self, after: LogPosition) -> Result<Box<dyn Changes>, StoreError> {
        let reader = detached(changes::Reader::open(self.shared.clone(), after)).await?;
        Ok(Box::new(reader))
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        detached(async move { shared.read(ty, &id).await }).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        detached(write::commit(self.shared.clone(), writes)).await
    }

    fn before_images(&self, ty: ResourceType) -> Result<(), String> {
        let images = self.shared.catalog().get(ty).is_none_or(|facts| facts.images);
        match (self.shared.has_images, images) {
            (true, true) => Ok(()),
            (true, false) => Err(format!(
                "the collection {name} keeps no before-images; switch them on with \
                 db.runCommand({{collMod: \"{name}\", changeStreamPreAndPostImages: {{enabled: \
                 true}}}})",
                name = self.shared.layout.collection_of(ty)
            )),
            (false, _) => Err("before-images need MongoDB 6.0 or later".into()),
        }
    }

    async fn close(&self) {
        self.shared.client.clone().shutdown().immediate(true).await;
    }
}

impl Shared {
    /// The collection of a type; without a read concern, for sessions that bring theirs.
    fn collection(&self, ty: ResourceType) -> Collection<RawDocumentBuf> {
        self.db.collection(&self.layout.collection_of(ty))
    }

    /// A collection read as committed by majority.
    fn majority<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let options = CollectionOptions::builder().read_concern(connect::majority()).build();
        self.db.collection_with_options(name, options)
    }

    /// A session whose reads see the database as of a cluster time.
    async fn session_at(&self, time: u64) -> Result<ClientSession, StoreError> {
        let session = self.client.start_session().snapshot(true);
        let session = session.snapshot_time(time::to_bson(time)).await;
        session.map_err(|error| errors::plain(&error))
    }

    /// A document as its resource's JSON; `None` (and a warning) where it can't be read.
    fn json(&self, ty: ResourceType, document: &[u8]) -> Option<Bytes> {
        let encoded = encode::json(document, ty, &self.layout);
        if encoded.is_err() {
            unreadable(ty, "it is no BSON");
        }
        encoded.ok()
    }

    /// What was last listed.
    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    async fn refresh_catalog(&self) -> Result<Arc<Catalog>, StoreError> {
        let catalog = Catalog::read(&self.db, &self.layout).await;
        let catalog = Arc::new(catalog.map_err(|error| errors::plain(&error))?);
        let mut cached = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        *cached = (catalog.clone(), Instant::now());
        Ok(catalog)
    }

    /// Lists again if that was not done lately.
    async fn freshen_catalog(&self) -> Result<(), StoreError> {
        const STALE: Duration = Duration::from_secs(30);
        let listed = self.catalog.read().unwrap_or_else(PoisonError::into_inner).1;
        if listed.elapsed() > STALE {
            self.refresh_catalog().await?;
        }
        Ok(())
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError> {
        let resources = self.majority::<RawDocumentBuf>(&self.layout.collection_of(ty));
        let find = resources.find_one(doc! {"_id": {"$in": decode::keys_of(id)}});
        let found = find.sort(doc! {"_id": 1}).await.map_err(|error| errors::plain(&error))?;
        if let Some(document) = found {
            let version = Head::of(document.as_bytes()).map_or(0, |head| head.version);
            let unreadable = || StoreError::Failed(format!("{ty}/{id} can't be read"));
            let json = self.json(ty, document.as_bytes()).ok_or_else(unreadable)?;
            return Ok(Lookup::Found { json, version });
        }
        let tombstones = self.majority::<Document>(DELETED);
        let find = tombstones.find_one(doc! {"_id": write::tombstone_id(ty, id)});
        Ok(match find.await.map_err(|error| errors::plain(&error))? {
            Some(tombstone) => Lookup::Deleted { version: write::tombstone_version(&tombstone) },
            None => Lookup::Absent,
        })
    }
}

/// The driver reads each reply into a buffer of its own, of a size that glibc gives back to the
/// kernel at once when it is freed: page faults then cost a third of a scan. glibc keeps what is
/// no larger than twice the largest block that it ever gave back; so it is shown one. Other
/// allocators don't mind.
fn keep_freed_memory() {
    const SHOWN: usize = 2 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(SHOWN)));
}

/// Tells of a document that can't be read, and goes on without it. There may be millions.
fn unreadable(ty: ResourceType, why: &str) {
    metrics::counter!("fhirtail_unreadable_documents_total").increment(1);
    static SELDOM: Seldom = Seldom::new();
    SELDOM.say(|more| {
        tracing::warn!(%ty, why, more, "a document can't be read as a resource; it is left out");
    });
}
