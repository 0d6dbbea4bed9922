//! The simulated store as of one instant, for as long as the schedule lets it live.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use fhirtail::{
    fhir::ResourceType,
    position::LogPosition,
    store::{Scan, ScanBatch, ScanKey, Scanned, Snapshot, StoreError},
};
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    schedule::Call,
    store::SimStore,
    world::{State, Version},
};

pub struct Still(Arc<Held>);

struct Held {
    store: Arc<SimStore>,
    number: u64,
    time: u64,
    state: State,
    /// How many batches were read of it.
    batches: AtomicU64,
}

impl Still {
    pub fn new(store: Arc<SimStore>, number: u64, time: u64, state: State) -> Self {
        Self(Arc::new(Held { store, number, time, state, batches: AtomicU64::new(0) }))
    }
}

#[async_trait]
impl Snapshot for Still {
    fn position(&self) -> LogPosition {
        LogPosition::past(self.0.time)
    }

    fn instant(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.state.get(&(ty, id.to_owned())).map(|version| version.json.clone()))
    }

    fn scan(&self, scan: Scan) -> mpsc::Receiver<Result<ScanBatch, StoreError>> {
        let (batches, receiver) = mpsc::channel(1);
        tokio::spawn(run(Arc::clone(&self.0), scan, batches));
        receiver
    }
}

async fn run(held: Arc<Held>, scan: Scan, batches: mpsc::Sender<Result<ScanBatch, StoreError>>) {
    let rows = rows(&held.state, &scan, held.store.knobs.by_updated);
    let mut rows = rows.into_iter().peekable();
    while let Ok(place) = batches.reserve().await {
        if rows.peek().is_none() {
            return;
        }
        match held.batch(&scan, &mut rows).await {
            Ok(batch) => place.send(Ok(batch)),
            Err(error) => return place.send(Err(error)),
        }
    }
}

impl Held {
    async fn batch(
        &self,
        scan: &Scan,
        rows: impl Iterator<Item = (ScanKey, Version)>,
    ) -> Result<ScanBatch, StoreError> {
        self.store.meet(Call::Scan).await?;
        if self.store.is_expired(self.number, self.batches.fetch_add(1, SeqCst)) {
            return Err(StoreError::SnapshotExpired);
        }
        let most = 1 + self.store.roll(self.store.knobs.scan_batch as u64) as usize;
        let looked_at: Vec<_> = rows.take(most).collect();
        let reached = looked_at.last().map(|(key, _)| key.clone());
        let within = looked_at.into_iter().filter(|(_, row)| scan.window.contains(row.updated_ms));
        let mut batch: ScanBatch =
            within.map(|(key, row)| Scanned { key, json: row.json }).collect();
        if batch.is_empty() || self.store.roll(2) == 1 {
            batch.reached = reached;
        }
        Ok(batch)
    }
}

/// What a scan looks at, in its order.
fn rows(state: &State, scan: &Scan, by_updated: bool) -> Vec<(ScanKey, Version)> {
    let in_time = match scan.after {
        Some(ScanKey::Updated(..)) => true,
        Some(ScanKey::Id(_)) => false,
        None => by_updated && !scan.window.is_open(),
    };
    let mut rows = BTreeMap::new();
    for (_, version) in state.iter().filter(|((ty, _), _)| *ty == scan.ty) {
        let key = match (in_time, version.updated_ms) {
            (false, _) => (0, version.doc.clone()),
            // No instant, no place in a window.
            (true, None) => continue,
            (true, Some(ms)) => (ms, version.doc.clone()),
        };
        rows.insert(key, version.clone());
    }
    let rows = rows.into_iter().map(|((ms, doc), version)| match in_time {
        true => (ScanKey::Updated(ms, doc), version),
        false => (ScanKey::Id(doc), version),
    });
    rows.filter(|(key, _)| scan.after.as_ref().is_none_or(|after| key > after)).collect()
}
