//! What the store's tasks share: the database, how its documents are laid out, what was last
//! listed of it.

use std::{
    fmt,
    sync::{Arc, Once, PoisonError, RwLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use mongodb::{
    Client, ClientSession, Collection, Database,
    bson::{Document, RawDocumentBuf, doc},
    options::CollectionOptions,
};
use tokio::sync::OnceCell;

use super::{
    MongoOptions,
    catalog::Catalog,
    connect::{self, Deployment},
    decode, encode, errors,
    head::Head,
    layout::{DELETED, Layout},
    time, write,
};
use crate::{
    seldom::Seldom,
    store::{Lookup, ResourceType, StoreError},
};

/// What the store's tasks share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(super) client: Client,
    pub(super) db: Database,
    pub(super) layout: Layout,
    pub(super) has_images: bool,
    pub(super) sharded: bool,
    pub(super) batch_size: u32,
    pub(super) stretch_bytes: usize,
    pub(super) silence: Duration,
    catalog: Arc<RwLock<(Arc<Catalog>, Instant)>>,
    /// Set once the collection of tombstones is there.
    pub(super) tombstones: Arc<OnceCell<()>>,
    /// Called once the oplog turned out to be no business of ours.
    pub(super) no_oplog: Arc<Once>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.db.name()).finish()
    }
}

impl Shared {
    /// Of a deployment that was just listed.
    pub(super) fn new(
        deployment: &Deployment,
        catalog: Catalog,
        layout: Layout,
        options: &MongoOptions,
    ) -> Self {
        Self {
            client: deployment.client.clone(),
            db: deployment.db.clone(),
            layout,
            has_images: deployment.has_images,
            sharded: deployment.sharded,
            batch_size: options.batch_size,
            stretch_bytes: options.stretch_bytes,
            silence: options.silence,
            catalog: Arc::new(RwLock::new((Arc::new(catalog), Instant::now()))),
            tombstones: Arc::default(),
            no_oplog: Arc::new(Once::new()),
        }
    }

    /// The same, over connections of another client.
    pub(super) fn through(&self, client: &Client) -> Self {
        let db = client.database(self.db.name());
        Self { client: client.clone(), db, ..self.clone() }
    }

    /// The collection of a type; without a read concern, for sessions that bring theirs.
    pub(super) fn collection(&self, ty: ResourceType) -> Collection<RawDocumentBuf> {
        self.db.collection(&self.layout.collection_of(ty))
    }

    /// A collection read as committed by majority.
    pub(super) fn majority<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let options = CollectionOptions::builder().read_concern(connect::majority()).build();
        self.db.collection_with_options(name, options)
    }

    /// A session whose reads see the database as of a cluster time.
    pub(super) async fn session_at(&self, time: u64) -> Result<ClientSession, StoreError> {
        let session = self.client.start_session().snapshot(true);
        let session = session.snapshot_time(time::to_bson(time)).await;
        session.map_err(|error| errors::plain(&error))
    }

    /// A document as its resource's JSON; `None` (and a warning) where it can't be read.
    pub(super) fn json(&self, ty: ResourceType, document: &[u8]) -> Option<Bytes> {
        let encoded = encode::json(document, ty, &self.layout);
        if encoded.is_err() {
            unreadable(ty, "it is no BSON");
        }
        encoded.ok()
    }

    /// What was last listed.
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub(super) async fn refresh_catalog(&self) -> Result<Arc<Catalog>, StoreError> {
        let catalog = Catalog::read(&self.db, &self.layout).await;
        let catalog = Arc::new(catalog.map_err(|error| errors::plain(&error))?);
        let mut cached = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        *cached = (catalog.clone(), Instant::now());
        Ok(catalog)
    }

    /// Lists again if that was not done lately.
    pub(super) async fn freshen_catalog(&self) -> Result<(), StoreError> {
        const STALE: Duration = Duration::from_secs(30);
        let listed = self.catalog.read().unwrap_or_else(PoisonError::into_inner).1;
        if listed.elapsed() > STALE {
            self.refresh_catalog().await?;
        }
        Ok(())
    }

    pub(super) async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError> {
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

/// Tells of a document that can't be read, and goes on without it. There may be millions.
pub(super) fn unreadable(ty: ResourceType, why: &str) {
    metrics::counter!("fhirtail_unreadable_documents_total").increment(1);
    static SELDOM: Seldom = Seldom::new();
    SELDOM.say(|more| {
        tracing::warn!(%ty, why, more, "a document can't be read as a resource; it is left out");
    });
}
