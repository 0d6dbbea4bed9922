//! A store whose scans find nothing for as long as a test likes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fhirtail::{
    fhir::ResourceType,
    position::LogPosition,
    store::{DocId, Scan, ScanBatch, ScanKey, Snapshot, Store, StoreError},
};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::altered::{Alter, altered};

/// What a scan says while it finds nothing.
#[derive(Debug, Clone, Copy)]
pub enum Says {
    /// How far it has come, again and again.
    Stretches,
    Nothing,
}

/// Scans wait.
#[derive(Debug)]
pub struct Sparse {
    says: Says,
    finds: watch::Receiver<bool>,
}

impl Sparse {
    /// Its scans go on while what is given beside it is true.
    pub fn over(store: &Arc<dyn Store>, says: Says) -> (Arc<dyn Store>, watch::Sender<bool>) {
        let (find, finds) = watch::channel(false);
        (altered(store, Self { says, finds }), find)
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
impl Alter for Sparse {
    async fn snapshot(&self, store: &Arc<dyn Store>) -> Result<Arc<dyn Snapshot>, StoreError> {
        let (snapshot, says) = (store.snapshot().await?, self.says);
        Ok(Arc::new(SparseSnapshot { snapshot, says, finds: self.finds.clone() }))
    }
}
