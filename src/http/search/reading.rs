//! One type, read for a search: in its turn, from as many snapshots as its client takes time for.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    history::{Cursor, History, Part},
    plan::{Grant, Plan, Scope},
    search::{Search, SortBy},
    session::{Lost, Turn, Turns},
    store::{Along, Clue, Snapshot, Store, StoreError, Window, detached},
};

/// How often in a row a snapshot may expire, or the store be away, before more is read; and the
/// pause between, which grows by itself.
const MOST_FAILURES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// A scan that goes on in a newer snapshot where the one at hand is gone: what has been read keeps
/// its place, the rest is read as it is then. By time nothing keeps its place: what changes
/// meanwhile would be found twice, or not at all. Such a scan ends with its snapshot.
pub(super) struct Reading {
    store: Arc<dyn Store>,
    turns: Arc<Turns>,
    turn: Turn<History>,
    plan: Arc<Plan>,
    along: Along,
    clues: Arc<[Clue]>,
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
        search: &Search,
    ) -> Result<Self, StoreError> {
        let (types, window) = ([search.ty], Window::default());
        let plan = Plan::new(Scope::System, Some(&types), window, false, Grant::Everything);
        let (plan, store) = (Arc::new(plan), Arc::clone(store));
        let (along, clues) = (along(search), search.clues().into());
        let mut reading =
            Self { store, turns, turn, plan, along, clues, history: None, cursor: None };
        let snapshot = snapshot_of(&reading.store).await?;
        reading.history = Some(reading.scan(snapshot));
        Ok(reading)
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
            if self.along.is_by_time() && self.cursor.is_some() {
                return Err(StoreError::Failed(ENDED.into()));
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
                    if self.along.is_by_time() && self.cursor.is_some() {
                        return Err(StoreError::Failed(ENDED.into()));
                    }
                    self.turn = self.turns.take().await.ok_or_else(away)?;
                    None
                }
            };
        }
        let history = match self.history.take() {
            Some(history) => history,
            None => self.scan(snapshot_of(&self.store).await?),
        };
        Ok(self.history.insert(history))
    }

    fn scan(&self, snapshot: Arc<dyn Snapshot>) -> History {
        let history = History::new(Arc::clone(&self.plan), snapshot, self.cursor.clone());
        history.going(self.along, Arc::clone(&self.clues))
    }
}

/// Why a search by time is broken off.
const ENDED: &str = "the snapshot that a search sorted by _lastUpdated is read from has ended";

/// The order that is asked for. Where `_id` is the first, no second counts.
fn along(search: &Search) -> Along {
    match search.options.sort.first().map(|key| (key.by, key.descending)) {
        None | Some((SortBy::Id, false)) => Along::Keys,
        Some((SortBy::Id, true)) => Along::IdDown,
        Some((SortBy::LastUpdated, false)) => Along::Updated,
        Some((SortBy::LastUpdated, true)) => Along::UpdatedDown,
    }
}

/// A snapshot, taken to the end even if the caller goes away.
async fn snapshot_of(store: &Arc<dyn Store>) -> Result<Arc<dyn Snapshot>, StoreError> {
    let store = Arc::clone(store);
    detached(async move { store.snapshot().await }).await
}
