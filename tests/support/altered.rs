//! A store that does what another one does, but for what a test alters.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use fhirtail::{
    fhir::ResourceType,
    position::{Epoch, LogPosition},
    store::{Changes, Distance, Lookup, Snapshot, Store, StoreError, Write, WriteError, Written},
};
use jiff::Timestamp;

/// What is altered: each of these does as the store does, until a test says otherwise.
#[async_trait]
pub trait Alter: Send + Sync + Debug + 'static {
    async fn head(&self, store: &Arc<dyn Store>) -> Result<LogPosition, StoreError> {
        store.head().await
    }

    async fn snapshot(&self, store: &Arc<dyn Store>) -> Result<Arc<dyn Snapshot>, StoreError> {
        store.snapshot().await
    }

    async fn changes(
        &self,
        store: &Arc<dyn Store>,
        after: LogPosition,
    ) -> Result<Box<dyn Changes>, StoreError> {
        store.changes(after).await
    }
}

/// A store, and what is altered of it.
pub fn altered(store: &Arc<dyn Store>, by: impl Alter) -> Arc<dyn Store> {
    Arc::new(Altered { store: store.clone(), by })
}

#[derive(Debug)]
struct Altered<A> {
    store: Arc<dyn Store>,
    by: A,
}

#[async_trait]
impl<A: Alter> Store for Altered<A> {
    fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn head(&self) -> Result<LogPosition, StoreError> {
        self.by.head(&self.store).await
    }

    async fn recent(&self, back: Duration) -> Result<LogPosition, StoreError> {
        self.store.recent(back).await
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        self.store.oldest().await
    }

    fn distance(&self, from: LogPosition, to: LogPosition) -> Distance {
        self.store.distance(from, to)
    }

    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, StoreError> {
        self.by.snapshot(&self.store).await
    }

    async fn changes(&self, after: LogPosition) -> Result<Box<dyn Changes>, StoreError> {
        self.by.changes(&self.store, after).await
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError> {
        self.store.read(ty, id).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        self.store.commit(writes).await
    }

    fn before_images(&self, ty: ResourceType) -> Result<(), String> {
        self.store.before_images(ty)
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
