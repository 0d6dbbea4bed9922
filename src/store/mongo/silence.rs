//! Connections on which nothing passes any more, though nobody closed them.
//!
//! The driver finds a node that is dead, by its heartbeats, and ends what hangs on it. It does not
//! find a single connection that a firewall has forgotten: whoever waits on that asks again, over
//! another one.

use std::time::Duration;

use mongodb::{bson::doc, raw_batch_cursor::RawBatchCursor};
use tokio::time::timeout;
use tracing::warn;

use super::{Shared, change_stream::open_cursor};
use crate::store::StoreError;

/// How much longer than for a plain answer is waited where the server may have to search.
const SEARCH: u32 = 6;

/// The same for a write, which may search, collide and wait for a majority. Proxies give it up after a
/// minute, as a rule: it should be answered before.
const WRITE: u32 = 5;

/// The longest that a silent log is waited for.
const LONGEST: Duration = Duration::from_secs(600);

impl Shared {
    /// The answer to a question that is answered at once.
    ///
    /// # Errors
    /// Those of the call; [`StoreError::Unavailable`] where there is no answer in time.
    pub(super) async fn answered<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        within(self.silence, call).await
    }

    /// What the server may have to search for.
    ///
    /// # Errors
    /// Those of the call; [`StoreError::Unavailable`] where there is no answer in time.
    pub(super) async fn found<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.found_in(Duration::ZERO, call).await
    }

    /// What becomes of a write.
    ///
    /// # Errors
    /// Those of the call; [`StoreError::Unavailable`] where there is no answer in time.
    pub(super) async fn written<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        within(self.silence * WRITE, call).await
    }

    /// What the server may have to search for, where that may take so long.
    ///
    /// # Errors
    /// Those of the call; [`StoreError::Unavailable`] where there is no answer in time.
    pub(super) async fn found_in<T>(
        &self,
        long: Duration,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        within(long + self.silence * SEARCH, call).await
    }

    /// How long a snapshot can be read: what takes longer the server ends by itself.
    pub(super) async fn snapshot_life(&self) -> Duration {
        const NAME: &str = "minSnapshotHistoryWindowInSeconds";
        /// Who may not know (mongos does not) rather waits too long.
        const UNKNOWN: Duration = Duration::from_secs(3_600);
        let ask = doc! {"getParameter": 1, NAME: 1};
        let reply = self.client.database("admin").run_command(ask).await.unwrap_or_default();
        let seconds = reply.get_i32(NAME).ok().and_then(|seconds| seconds.try_into().ok());
        seconds.map_or(UNKNOWN, Duration::from_secs)
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        let limit = limit.as_secs_f32();
        Err(StoreError::Unavailable(format!("MongoDB has not answered for {limit} s")))
    })
}

/// How long a reader of the log waits for a reply before it opens the log anew. A server may also
/// be that long in search of the next event, in an oplog that others fill: so each time longer.
#[derive(Debug)]
pub(super) struct Patience {
    first: Duration,
    now: Duration,
}

impl Patience {
    pub(super) fn of(shared: &Shared) -> Self {
        Self { first: shared.silence, now: shared.silence }
    }

    /// What is waited for; `None`: it did not come.
    pub(super) async fn wait<T>(&mut self, reply: impl Future<Output = T>) -> Option<T> {
        let reply = timeout(self.now, reply).await.ok();
        self.now = match &reply {
            Some(_) => self.first,
            None => {
                let seconds = self.now.as_secs_f32();
                warn!(seconds, "the change log is silent; it is opened anew");
                LONGEST.min(self.now * 2)
            }
        };
        reply
    }

    /// Opens the change stream from the first event at `time` on, however often it takes.
    pub(super) async fn open(
        &mut self,
        shared: &Shared,
        time: u64,
    ) -> Result<RawBatchCursor, StoreError> {
        loop {
            if let Some(opened) = self.wait(open_cursor(shared, time)).await {
                return opened;
            }
        }
    }
}
