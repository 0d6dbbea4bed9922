//! A reader of the change log that outlives the store's absences: it opens the log again from
//! its own position, so that nothing is lost or repeated.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::warn;

use crate::{
    position::LogPosition,
    store::{Ahead, ChangeBatch, Changes, Store, StoreError},
};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

pub(super) struct LogReader {
    store: Arc<dyn Store>,
    position: LogPosition,
    open: Option<Box<dyn Changes>>,
    /// What it has brought ahead is known, however often the log is opened again.
    ahead: Ahead,
}

impl LogReader {
    pub(super) fn new(store: Arc<dyn Store>, position: LogPosition) -> Self {
        Self { store, position, open: None, ahead: Ahead::default() }
    }

    /// All up to here is read.
    pub(super) fn position(&self) -> LogPosition {
        self.position
    }

    /// Ends the reading. The store then holds nothing open for it.
    pub(super) async fn close(self) {
        if let Some(open) = self.open {
            open.close().await;
        }
    }

    /// The next changes, however long the store is away. `lost` hears of each failed try.
    ///
    /// Not cancel-safe: for tasks that do nothing else.
    ///
    /// # Errors
    /// Only [`StoreError::PositionLost`].
    pub(super) async fn next(
        &mut self,
        mut away: impl FnMut(&StoreError),
    ) -> Result<ChangeBatch, StoreError> {
        let mut wait = FIRST_WAIT;
        loop {
            match self.try_next().await {
                Ok(mut batch) => {
                    self.position = batch.level;
                    self.ahead.mark(&mut batch.changes);
                    return Ok(batch);
                }
                Err(lost @ StoreError::PositionLost(_)) => return Err(lost),
                Err(error) => {
                    warn!(%error, "the change log can't be read; trying again");
                    away(&error);
                    self.open = None;
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    async fn try_next(&mut self) -> Result<ChangeBatch, StoreError> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(self.store.changes(self.position).await?),
        };
        open.next().await
    }
}
