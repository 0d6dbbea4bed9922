//! MongoDB (5.0+, replica set or sharded cluster): snapshot reads at a cluster time, the change
//! stream of one database, and transactions.
//!
//! Out: [`snapshot`] and [`scan`] read, [`changes`] follows the log, [`encode`] writes JSON.
//! In: [`write`] commits what [`plan`] decided and [`decode`] built.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    Changes, Distance, LogPosition, Lookup, ResourceType, Snapshot, Store, StoreError, Write,
    WriteError, Written, detached,
};
use crate::position::Epoch;
use head::Head;
use layout::Layout;
use shared::{Shared, unreadable};

pub(crate) mod catalog;
pub(crate) mod change_stream;
mod changes;
mod collections;
pub(crate) mod connect;
mod decimal;
mod decode;
mod deferred;
mod digits;
mod encode;
pub(crate) mod errors;
pub(crate) mod event;
mod head;
pub(crate) mod layout;
pub(crate) mod log;
mod lookup;
mod mapping;
mod narrow;
mod order;
mod plain;
mod plan;
mod route;
mod rules;
mod scan;
mod shared;
mod silence;
mod snapshot;
mod stretch;
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
    /// How many bytes of documents the server is to look through at a time, about, where few of
    /// them may be wanted.
    pub stretch_bytes: usize,
    /// After how long without a word a question, or a reader of the log, tries another
    /// connection. What may have to be searched for is waited for six times as long; what may have
    /// to be sorted, longer by the life of a snapshot.
    pub silence: Duration,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self { batch_size: 1000, stretch_bytes: 64 << 20, silence: Duration::from_secs(10) }
    }
}

/// A database of a MongoDB deployment as a FHIR store.
pub struct MongoStore {
    shared: Arc<Shared>,
    /// The same for whoever reads the log: over connections of their own, since a change must not
    /// wait for one behind thousands of requests.
    log: Arc<Shared>,
    epoch: Epoch,
    description: String,
}

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MongoStore").field(&self.description).finish()
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
        let shared = Shared::new(&deployment, catalog, layout, &options);
        Ok(Arc::new(Self {
            log: Arc::new(shared.through(&deployment.log)),
            shared: Arc::new(shared),
            epoch: deployment.epoch,
            description: deployment.description,
        }))
    }
}

#[async_trait]
impl Store for MongoStore {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    async fn head(&self) -> Result<LogPosition, StoreError> {
        let log = self.log.clone();
        let end = detached(async move { log.answered(log::commit_point(&log)).await }).await?;
        Ok(LogPosition::before(end.time))
    }

    async fn recent(&self, back: Duration) -> Result<LogPosition, StoreError> {
        let log = self.log.clone();
        detached(async move { log.found(log::recent(&log, back)).await }).await
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        let log = self.log.clone();
        detached(async move { log.found(log::oldest_instant(&log)).await }).await
    }

    fn distance(&self, from: LogPosition, to: LogPosition) -> Distance {
        let seconds = |place: LogPosition| u64::from(time::seconds(place.time));
        Distance::Seconds(seconds(to).saturating_sub(seconds(from)))
    }

    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, StoreError> {
        let shared = self.shared.clone();
        let take = snapshot::MongoSnapshot::take(shared.clone());
        Ok(Arc::new(detached(async move { shared.answered(take).await }).await?))
    }

    async fn changes(&self, after: LogPosition) -> Result<Box<dyn Changes>, StoreError> {
        let reader = detached(changes::Reader::open(self.log.clone(), after)).await?;
        Ok(Box::new(reader))
    }

    async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        detached(async move { shared.answered(shared.read(ty, &id)).await }).await
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        let shared = self.shared.clone();
        detached(async move { write::commit(&shared, writes).await }).await
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
        for Shared { client, .. } in [&*self.log, &*self.shared] {
            client.clone().shutdown().immediate(true).await;
        }
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
