//! A store whose scans find nothing for as long as a test likes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fhirtail::{
    fhir::ResourceType,
    position::{Epoch, LogPosition},
    store::{
        Changes, DocId, Lookup, Scan, ScanBatch, ScanKey, Snapshot, Store, StoreError, Write,
        WriteError, Written,
    },
};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

/// What a scan says while it finds nothing.
#[derive(Debug, Clone, Copy)]
pub enum Says {
    /// How far it has come, again and again.
    Stretches,
    Nothing,
}

/// A store that does what another does, except that its scans wait.
#[derive(Debug)]
pub struct Sparse {
    store: Arc<dyn Store>,
    says: Says,
    finds: watch::Receiver<bool>,
}

impl Sparse {
    /// Its scans go on while what is given beside it is true.
    pub fn over(store: &Arc<dyn Store>, says: Says) -> (Arc<dyn Store>, watch::Sender<bool>) {
        let (find, finds) = watch::channel(false);
        (Arc::new(Self { store: store.clone(), says, finds }), find)
    }
}

struct SparseSnapshot {
    snapshot: Arc<dyn Snapshot>,
    says: Says,
    finds: watch::Receiver<bool>,
}

#[async_trait]
impl Snapshot for SparseSnapshot {
    fn position(&self) -> LogPosition {
        self.snapshot.position()
    }

    fn instant(&self) -> Timestamp {
        self.snapshot.instant()
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Option<Bytes>, StoreError> {
        self.snapshot.read(ty, id).await
    }

    fn scan(&self, scan: Scan) -> mpsc::Receiver<Result<ScanBatch, StoreError>> {
        let (batches, found) = mpsc::channel(1);
        let (snapshot, says, finds) = (self.snapshot.clone(), self.says, self.finds.clone());
        tokio::spawn(async move {
            if !waits(&batches, says, finds).await {
                return;
            }
            let mut found = snapshot.scan(scan);
            while let Some(batch) = found.recv().await {
                if batches.send(batch).await.is_err() {
                    return;
                }
            }
        });
        found
    }
}

/// Returns once there is something to find; `false`: the reader has gone.
async fn waits(
    batches: &mpsc::Sender<Result<ScanBatch, StoreError>>,
    says: Says,
    mut finds: watch::Receiver<bool>,
) -> bool {
    loop {
        let pause = match says {
            Says::Stretches => Duration::from_millis(1),
            Says::Nothing => Duration::MAX,
        };
        tokio::select! {
            found = async { finds.wait_for(|finds| *finds).await.is_ok() } => return found,
            () = batches.closed() => return false,
            () = tokio::time::sleep(pause) => {
                let mut stretch = ScanBatch::default();
                stretch.reached = Some(ScanKey::Id(DocId::Text("a".into())));
                let _ = batches.send(Ok(stretch)).await;
            }
        }
    }
}

#[async_trait]
impl Store for Sparse {
    fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn head(&self) -> Result<LogPosition, StoreError> {
        self.store.head().await
    }

    async fn recent(&self, back: Duration) -> Result<LogPosition, StoreError> {
        self.store.recent(back).await
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        self.store.oldest().await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, StoreError> {
        let (snapshot, says) = (self.store.snapshot().await?, self.says);
        Ok(Arc::new(SparseSnapshot { snapshot, says, finds: self.finds.clone() }))
    }

    async fn changes(&self, after: LogPosition) -> Result<Box<dyn Changes>, StoreError> {
        self.store.changes(after).await
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
