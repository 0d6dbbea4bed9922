//! Taking a snapshot: to begin, to go on where another was left, to check a group's members.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Ended, Replay, Resume, Session, Stage};
use crate::{
    fhir::ResourceType,
    filter::members_of,
    frame::Format,
    history::{Cursor, History},
    plan::{Members, Scope},
    position::LogPosition,
    store::{Snapshot, Store, StoreError, detached},
};

const WAIT: Duration = Duration::from_millis(250);
/// How often a position may lie ahead of the log before it is not believed: for longer than it takes
/// until a primary that nobody follows any more steps down (10 s), which knows of nothing new.
const MOST_AHEAD: u32 = 60;
const OTHER_MEMBERS: &str = "the members of the group have changed";
/// How often a stream that has an end asks a store that does not answer.
const TRIES: u32 = 120;

impl Session {
    pub(super) async fn begin(&mut self) -> Result<(), Ended> {
        self.wait_for_turn().await;
        let snapshot = self.take_snapshot().await?;
        self.scan_on(snapshot, None);
        Ok(())
    }

    pub(super) async fn resume(&mut self, resume: Resume) -> Result<(), Ended> {
        self.wait_for_turn().await;
        let snapshot = self.take_snapshot().await?;
        if resume.log > snapshot.position() {
            // Whoever waits for the log keeps no other from reading.
            self.turn = None;
            self.stage = Stage::Resume(resume);
            return self.wait_for_the_log().await;
        }
        self.ahead = 0;
        let Resume { log, origin, cursor, members, holds_at } = resume;
        if self.members_differ(members) {
            return self.reset(OTHER_MEMBERS);
        }
        let follow = self.hub.follow_since(origin, log);
        self.stage = Stage::Replay(Replay { follow, snapshot, cursor, holds_at });
        Ok(())
    }

    pub(super) async fn rejoin(
        &mut self,
        log: LogPosition,
        members: Option<u32>,
    ) -> Result<(), Ended> {
        let snapshot = self.take_snapshot().await?;
        // A node that lags may know other members: those of before the position.
        if log > snapshot.position() {
            self.stage = Stage::Rejoin { log, members };
            return self.wait_for_the_log().await;
        }
        self.ahead = 0;
        if self.members_differ(members) {
            return self.reset(OTHER_MEMBERS);
        }
        self.stage = self.live_at(log);
        Ok(())
    }

    /// Replays on, up to a newer snapshot.
    pub(super) async fn replay_on(&mut self, replay: Replay) -> Result<(), Ended> {
        let members = self.members.as_ref().and_then(Members::hash);
        let snapshot = self.take_snapshot().await?;
        if self.members_differ(members) {
            return self.reset(OTHER_MEMBERS);
        }
        if snapshot.position() <= replay.snapshot.position() {
            sleep(WAIT).await;
        }
        self.stage = Stage::Replay(Replay { snapshot, ..replay });
        Ok(())
    }

    pub(super) fn scan_on(&mut self, snapshot: Arc<dyn Snapshot>, cursor: Option<Cursor>) {
        self.stage = Stage::Scan(History::new(Arc::clone(&self.plan), snapshot, cursor));
    }

    /// Waits until one of the histories that are read at once may be this one.
    async fn wait_for_turn(&mut self) {
        if let (None, Some(turns)) = (&self.turn, &self.turns) {
            self.turn = turns.take().await;
        }
    }

    /// The client has seen what this log does not yet hold. A node that lags will; another
    /// history of the same database never.
    pub(super) async fn wait_for_the_log(&mut self) -> Result<(), Ended> {
        self.ahead += 1;
        if self.ahead > MOST_AHEAD {
            return self.reset("the position lies in the future of the log");
        }
        sleep(WAIT).await;
        Ok(())
    }

    fn members_differ(&self, then: Option<u32>) -> bool {
        self.has_group() && self.members.as_ref().and_then(Members::hash) != then
    }

    /// Takes a snapshot, and the members of the plan's group from it.
    async fn take_snapshot(&mut self) -> Result<Arc<dyn Snapshot>, Ended> {
        let group = match &self.plan.scope {
            Scope::Group(id) => Some(id.clone()),
            Scope::System | Scope::Patients => None,
        };
        let ask = |store| snapshot_with_members(store, group.clone());
        let (snapshot, members) = self.ask(ask).await?;
        if let (Some(_), None) = (group, &members) {
            return Err(Ended::Gone("the group is not there any more".into()));
        }
        self.members = self.plan.members(members);
        Ok(snapshot)
    }

    /// Asks the store, again and again while it does not answer: an event stream as long as
    /// its client stays, a stream that has an end for a while.
    pub(super) async fn ask<T, F>(
        &self,
        call: impl Fn(Arc<dyn Store>) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.insist(|| detached(call(Arc::clone(&self.store)))).await
    }

    /// Asks again and again, like [`ask`](Self::ask).
    pub(super) async fn insist<T, F>(&self, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        for tries in 1.. {
            match call().await {
                Err(StoreError::Unavailable(_) | StoreError::SnapshotExpired)
                    if self.format == Format::Sse || tries < TRIES => {}
                answer => return answer,
            }
            sleep(WAIT).await;
        }
        Err(StoreError::SnapshotExpired)
    }
}

async fn snapshot_with_members(
    store: Arc<dyn Store>,
    group: Option<String>,
) -> Result<(Arc<dyn Snapshot>, Option<Members>), StoreError> {
    let snapshot = store.snapshot().await?;
    let (Some(id), Some(ty)) = (group, ResourceType::parse("Group")) else {
        return Ok((snapshot, None));
    };
    let Some(group) = snapshot.read(ty, &id).await? else { return Ok((snapshot, None)) };
    match members_of(&group) {
        Some(members) => Ok((snapshot, Some(members))),
        None => Err(StoreError::Failed("the members of the group can't be read".into())),
    }
}
