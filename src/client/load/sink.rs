//! Where groups of writes go: a server, or straight into a store.
//!
//! Only puts and deletes under fixed ids are sent, without conditions: a group may be sent again
//! after an answer that was lost, and the state is the same.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::Url;

use super::server::Server;
use crate::{
    client::{Failure, backoff::Backoff},
    store::{Effect, Store, StoreError, Write, WriteError},
};

/// The first wait after a failure that may pass.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Where the resources go.
#[derive(Debug, Clone)]
pub enum Sink {
    /// To a running server.
    Server(Server),
    /// Straight into a store.
    Store(Arc<dyn Store>),
}

/// Why a group was not written.
#[derive(Debug, Clone)]
pub(super) enum SendError {
    /// Something in it is refused; sent without that, the rest may go.
    Refused(String),
    /// The same may go through later, maybe after this long.
    Later(String, Option<Duration>),
    /// Nothing will go through.
    Fatal(String),
}

impl Sink {
    /// A FHIR server at its base, such as `http://127.0.0.1:8080/fhir`.
    ///
    /// # Errors
    /// HTTP can't be used.
    pub fn server(base: Url) -> Result<Self, Failure> {
        Server::new(base).map(Self::Server)
    }

    /// Writes a group, all or none; a sink that is away is asked again for as long as
    /// `patience`.
    pub(super) async fn send(
        &self,
        writes: &[Write],
        patience: Duration,
    ) -> Result<Vec<Effect>, SendError> {
        let (started, mut backoff) = (Instant::now(), Backoff::new(FIRST_WAIT));
        loop {
            match self.attempt(writes).await {
                Err(SendError::Later(why, asked)) => {
                    let wait = backoff.next_as_asked(asked);
                    if started.elapsed().saturating_add(wait) > patience {
                        let seconds = started.elapsed().as_secs();
                        return Err(SendError::Fatal(format!("given up after {seconds} s: {why}")));
                    }
                    tokio::time::sleep(wait).await;
                }
                other => return other,
            }
        }
    }

    async fn attempt(&self, writes: &[Write]) -> Result<Vec<Effect>, SendError> {
        match self {
            Self::Server(server) => server.transaction(writes).await,
            Self::Store(store) => commit(store, writes.to_vec()).await,
        }
    }
}

/// [`Store::commit`] in a task of its own: it runs to its end even if the load is given up.
async fn commit(store: &Arc<dyn Store>, writes: Vec<Write>) -> Result<Vec<Effect>, SendError> {
    let store = Arc::clone(store);
    let done = tokio::spawn(async move { store.commit(writes).await }).await;
    match done.map_err(|e| SendError::Fatal(format!("the store broke off: {e}")))? {
        Ok(written) => Ok(written.into_iter().map(|written| written.effect).collect()),
        Err(WriteError::Store(StoreError::Unavailable(why))) => Err(SendError::Later(why, None)),
        Err(WriteError::Store(e)) => Err(SendError::Fatal(e.to_string())),
        Err(refused) => Err(SendError::Refused(refused.to_string())),
    }
}
