//! Reads as of one cluster time, in snapshot sessions of their own each, so that they can run
//! side by side.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use mongodb::bson::doc;
use tokio::sync::mpsc;

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
    time: u64,
    /// The collections that there are (and, but for drops after T, that there were at T).
    catalog: Arc<Catalog>,
}

impl MongoSnapshot {
    /// T is the end of what is committed by majority. It is asked for, since a server that is to
    /// choose one names it only where it finds a collection.
    pub(super) async fn take(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let time = log::commit_point(&shared).await?.time;
        // Listed after T was chosen: a collection that is missing here was created after T, or
        // dropped, which the log tells.
        let catalog = shared.refresh_catalog().await?;
        Ok(Self { shared, time, catalog })
    }
}

#[async_trait]
impl Snapshot for MongoSnapshot {
    fn position(&self) -> LogPosition {
        LogPosition::past(self.time)
    }

    fn instant(&self) -> Timestamp {
        time::instant(self.time)
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Option<Bytes>, StoreError> {
        if self.catalog.get(ty).is_none() {
            return Ok(None);
        }
        let (shared, time, keys) = (self.shared.clone(), self.time, decode::keys_of(id));
        detached(async move {
            let mut session = shared.session_at(time).await?;
            let collection = shared.collection(ty);
            let found = collection
                .find_one(doc! {"_id": {"$in": keys}})
                .sort(doc! {"_id": 1})
                .session(&mut session);
            let found = found.await.map_err(|error| errors::in_snapshot(&error))?;
            Ok(found.and_then(|document| shared.json(ty, document.as_bytes())))
        })
        .await
    }

    fn scan(&self, scan: Scan) -> mpsc::Receiver<Result<ScanBatch, StoreError>> {
        let (batches, receiver) = mpsc::channel(1);
        if let Some(facts) = self.catalog.get(scan.ty) {
            tokio::spawn(scan::run(self.shared.clone(), self.time, scan, facts, batches));
        }
        receiver
    }
}
