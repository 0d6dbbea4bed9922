//! Reads as of one cluster time, in snapshot sessions of their own each, so that they can run
//! side by side.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use mongodb::bson::doc;
use tokio::sync::{OnceCell, mpsc};

use super::{Shared, catalog::Catalog, decode, errors, log, scan, time};
use crate::{
    fhir::ResourceType,
    position::LogPosition,
    store::{Scan, ScanBatch, Snapshot, StoreError, detached},
};

/// The database as of a majority-committed cluster time.
#[derive(Debug, Clone)]
pub(super) struct MongoSnapshot {
    shared: Arc<Shared>,
    /// The cluster time T.
    at: log::Instant,
    /// The collections that there are (and, but for drops after T, that there were at T).
    catalog: Arc<Catalog>,
    /// Set once what is missing in that listing is missing for good.
    settled: Arc<OnceCell<()>>,
}

impl MongoSnapshot {
    /// T is the end of what is committed by majority. It is asked for, since a server that is to
    /// choose one names it only where it finds a collection.
    pub(super) async fn take(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let at = log::commit_point(&shared).await?;
        // Listed after T was chosen: a collection that is missing here was created after T, or
        // dropped, which the log tells.
        let catalog = shared.refresh_catalog().await?;
        Ok(Self { shared, at, catalog, settled: Arc::default() })
    }

    async fn find(&self, ty: ResourceType, id: &str) -> Result<Option<Bytes>, StoreError> {
        let mut session = self.shared.session_at(self.at.time).await?;
        let collection = self.shared.collection(ty);
        let found = collection
            .find_one(doc! {"_id": {"$in": decode::keys_of(id)}})
            .sort(doc! {"_id": 1})
            .session(&mut session);
        let found = found.await.map_err(|error| errors::in_snapshot(&error))?;
        Ok(found.and_then(|document| self.shared.json(ty, document.as_bytes())))
    }

    /// Waits until the log tells for good of whatever is missing in the listing.
    async fn settled(&self, listens: impl Fn() -> bool) -> Result<(), StoreError> {
        let settled = || log::settled(&self.shared, self.at, listens);
        self.settled.get_or_try_init(settled).await.copied()
    }
}

#[async_trait]
impl Snapshot for MongoSnapshot {
    fn position(&self) -> LogPosition {
        LogPosition::past(self.at.time)
    }

    fn instant(&self) -> Timestamp {
        time::instant(self.at.time)
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Option<Bytes>, StoreError> {
        if self.catalog.get(ty).is_none() {
            let snapshot = self.clone();
            let settled = async move {
                snapshot.shared.found(snapshot.settled(|| true)).await.map(|()| None)
            };
            return detached(settled).await;
        }
        let (snapshot, id) = (self.clone(), id.to_owned());
        detached(async move { snapshot.shared.answered(snapshot.find(ty, &id)).await }).await
    }

    fn scan(&self, scan: Scan) -> mpsc::Receiver<Result<ScanBatch, StoreError>> {
        let (batches, receiver) = mpsc::channel(1);
        if let Some(facts) = self.catalog.get(scan.ty) {
            tokio::spawn(scan::run(self.shared.clone(), self.at, scan, facts, batches));
        } else if !self.settled.initialized() {
            let snapshot = self.clone();
            tokio::spawn(async move {
                if let Err(error) = snapshot.settled(|| !batches.is_closed()).await {
                    // Nobody listens any more: nobody needs to know.
                    let _ = batches.send(Err(error)).await;
                }
            });
        }
        receiver
    }
}
