//! The simulated log, read: batches of any size, empty ones, marks, and errors.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use fhirtail::{
    position::LogPosition,
    store::{ChangeBatch, Changes, StoreError},
};

use crate::{lookups::LookUps, schedule::Call, store::SimStore};

/// How long an idle reader waits before it says that there is nothing.
const IDLE: Duration = Duration::from_millis(250);

pub struct Reader {
    store: Arc<SimStore>,
    level: LogPosition,
    idle: bool,
    look_ups: LookUps,
}

impl Reader {
    pub fn new(store: Arc<SimStore>, after: LogPosition) -> Self {
        Self { store, level: after, idle: false, look_ups: LookUps::default() }
    }
}

#[async_trait]
impl Changes for Reader {
    async fn next(&mut self) -> Result<ChangeBatch, StoreError> {
        // Nothing runs between the look and the wait.
        let rests = self.idle && self.store.world().after(self.level).is_empty();
        if rests {
            drop(tokio::time::timeout(IDLE, self.store.committed.notified()).await);
        }
        self.store.meet(Call::Next).await?;
        // No word from the log, now and then.
        if self.store.roll(12) == 11 {
            return Ok(ChangeBatch::new(Vec::new(), self.level, false));
        }
        let most = 1 + self.store.roll(self.store.knobs.log_batch as u64) as usize;
        let mut world = self.store.world();
        world.holds_after(self.level)?;
        let left = world.after(self.level);
        let mut end = left.len().min(most);
        // Changes of one place are never parted, nor, where they are looked up, those of one time.
        let is_parted = |end: usize| {
            let [one, next] = [end - 1, end].map(|at| left[at].change.position);
            one == next || (world.looks_up() && one.time == next.time)
        };
        while (1..left.len()).contains(&end) && is_parted(end) {
            end += 1;
        }
        let part = &left[..end];
        let late = [self.store.roll(3) == 2, self.store.roll(4) == 3];
        let changes = self.look_ups.complete(part, &world, late);
        let at_end = end == left.len();
        if let Some(last) = part.last() {
            self.level = last.change.position;
        }
        let embedded = self.store.knobs.embedded;
        // MongoDB says so with an empty reply, and how far the log has come without changes.
        let quiet = at_end && (embedded || part.is_empty());
        if quiet {
            self.level = self.level.max(world.head());
        }
        self.idle = quiet;
        world.were_read(&changes);
        Ok(ChangeBatch::new(changes, self.level, quiet))
    }

    async fn close(self: Box<Self>) {}
}
