//! One type, read for a search: in its turn, from as many snapshots as its client takes time for.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    fhir::ResourceType,
    history::{Cursor, History, Part},
    plan::{Grant, Plan, Scope},
    session::{Lost, Turn, Turns},
    store::{Snapshot, Store, StoreError, Window, detached},
};

/// How often in a row a snapshot may expire, or the store be away, before more is read; and the
/// pause between, which grows by itself.
const MOST_FAILURES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// A scan that goes on in a newer snapshot where the one at hand is gone: what has been read keeps
/// its place, the rest is read as it is then.
pub(super) struct Reading {
    store: Arc<dyn Store>,
    turns: Arc<Turns>,
    turn: Turn<History>,
    plan: Arc<Plan>,
    /// `None`: it rests.
    history: Option<History>,
    /// How far it had come when it came to rest, or its snapshot was gone.
    cursor: Option<Cursor>,
}

impl Reading {
    /// Takes the first snapshot.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn begin(
        store: &Arc<dyn Store>,
        turns: Arc<Turns>,
        turn: Turn<History>,
        ty: ResourceType,
    ) -> Result<Self, StoreError> {
        let (types, window) = ([ty], Window::default());
        let plan = Plan::new(Scope::System, Some(&types), window, false, Grant::Everything);
        let (plan, store) = (Arc::new(plan), Arc::clone(store));
        let history = History::new(Arc::clone(&plan), snapshot_of(&store).await?, None);
        Ok(Self { store, turns, turn, plan, history: Some(history), cursor: None })
    }

    /// Waits for resources, or for word that there are none in a stretch; `false`: there are no
    /// more. Cancel-safe.
    ///
    /// # Errors
    /// The store failed, or is away for long.
    pub(super) async fn fetch(&mut self) -> Result<bool, StoreError> {
        let mut failures = 0;
        loop {
            let fetched = match self.at_work().await {
                Ok(history) => history.fetch().await,
                Err(error) => Err(error),
            };
            match fetched {
                Err(StoreError::SnapshotExpired | StoreError::Unavailable(_))
                    if failures < MOST_FAILURES => {}
                fetched => return fetched,
            }
            if let Some(history) = self.history.take() {
                self.cursor = history.cursor().cloned();
            }
            sleep(PAUSE * failures).await;
            failures += 1;
        }
    }

    /// Of what [`fetch`](Self::fetch) has brought, about so many bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Part<'_>> {
        self.history.as_mut()?.take(bytes)
    }

    /// The client is waited for: others may have the turn meanwhile.
    pub(super) fn rest(&mut self) {
        if let Some(history) = self.history.take() {
            self.cursor = history.cursor().cloned();
            self.turn.rest(history);
        }
    }

    /// The scan at hand, the one that was laid down, or one that goes on from there.
    async fn at_work(&mut self) -> Result<&mut History, StoreError> {
        if self.history.is_none() {
            self.history = match self.turn.take_up() {
                Ok(history) => history,
                Err(Lost) => {
                    let away = || StoreError::Unavailable("there are no turns".into());
                    self.turn = self.turns.take().await.ok_or_else(away)?;
                    None
                }
            };
        }
        Ok(match &mut self.history {
            Some(history) => history,
            none => {
                let snapshot = snapshot_of(&self.store).await?;
                none.insert(History::new(Arc::clone(&self.plan), snapshot, self.cursor.clone()))
            }
        })
    }
}

/// A snapshot, taken to the end even if the caller goes away.
async fn snapshot_of(store: &Arc<dyn Store>) -> Result<Arc<dyn Snapshot>, StoreError> {
    let store = Arc::clone(store);
    detached(async move { store.snapshot().await }).await
}
