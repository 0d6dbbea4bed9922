//! A session: one client's stream, from its snapshot through the handoff to the live ring.
//!
//! ```text
//!   (P, cursor) ─▶ resume ─▶ replay (P, T] ─▶ scan at T ──▶ live: follow(T)
//!                    ▲                          ▲    │           │
//!        nothing ─▶ begin: snapshot at T ───────┘    │           │
//!                    ▲                     expired: (T, cursor)  │
//!                    └────── reset ◀──── position lost ◀─────────┘
//!   (P) ────────────────────────────────────────▶ live: follow(P)
//! ```
//!
//! It is pulled: [`Session::step`] runs only while the socket takes more, and leaves what is to
//! be written in a buffer. One file a stage; `write` is where frames get their positions.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    fhir::ResourceType,
    filter::Filter,
    frame::Format,
    history::{Cursor, History},
    live::{Follow, Hub},
    plan::{Members, Plan, Scope},
    position::{Epoch, LogPosition, Position},
    store::{Snapshot, Store, StoreError},
};

mod level;
mod live;
mod open;
mod out;
mod outgoing;
mod replay;
mod roll;
mod scan;
mod snapshot;
#[cfg(test)]
mod tests;
mod trace;
mod turns;
mod write;

use out::Out;

pub use level::{Spoken, Standing, Voice};
pub use open::{Admission, CutOff, OpenStream, Phase, Place, count_sent};
pub use outgoing::{Outgoing, Piece, Times, drained, millis, spread};
pub use roll::{Asked, Line, Listed, Roll, Whereabouts};
pub use turns::{Lost, Turn, Turns};
pub(crate) use write::CHECKPOINT_AFTER;

/// How many bytes are written at once, about.
const CHUNK_BYTES: usize = 64 << 10;

/// Why a stream ends before all is sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Ended {
    /// The store failed in a way that the client can only meet by coming again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client's copy can't be made whole in this format, or what it was about is gone.
    #[error("{0}")]
    Gone(String),
}

/// One client's stream.
pub struct Session {
    plan: Arc<Plan>,
    query: u32,
    epoch: Epoch,
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    format: Format,
    /// In whose compartments its resources lie: of a group, as of the snapshot or position that
    /// the stream is at.
    members: Option<Members>,
    stage: Stage,
    out: Out,
    /// How many events stand in `out`.
    events: u64,
    /// The position that the client was last given, and when.
    told: Option<Position>,
    told_at: Instant,
    /// The client has heard `caught-up`, and has been level with the ring since.
    caught_up: bool,
    /// Where histories wait for their turn, and the turn that this one has.
    turns: Option<Arc<Turns>>,
    turn: Option<Turn<Rested>>,
    /// Snapshots in a row that expired before one resource was read.
    expiries: u32,
    /// How often in a row the client's position was found ahead of the log.
    ahead: u32,
}

enum Stage {
    /// Take a snapshot, to read it from the start.
    Begin,
    /// Take a snapshot, to go on from where another one was left.
    Resume(Resume),
    /// Send what changed up to the snapshot in the part that was scanned.
    Replay(Replay),
    /// Send what the snapshot holds.
    Scan(History),
    /// Check that a group's members are still those of the position, to go on live.
    Rejoin { log: LogPosition, members: Option<u32> },
    /// Send what changes.
    Live { follow: Follow, goal: Option<Goal> },
    /// All is sent.
    End,
}

/// A history that goes on in a newer snapshot.
struct Resume {
    /// All up to here is sent, as far as the cursor.
    log: LogPosition,
    /// What of that is from the ring: see [`Hub::follow_since`].
    origin: LogPosition,
    cursor: Cursor,
    members: Option<u32>,
    /// See [`Replay`].
    holds_at: LogPosition,
}

/// A history between two snapshots.
struct Replay {
    follow: Follow,
    snapshot: Arc<dyn Snapshot>,
    cursor: Cursor,
    /// Where the log has told all that what was sent holds, or lacks.
    holds_at: LogPosition,
}

/// What a session was at when its client was waited for.
pub struct Rested(Stage);

/// What a stream must have passed to be called caught up.
#[derive(Debug, Clone, Copy)]
struct Goal {
    head: LogPosition,
    at: Timestamp,
}

impl Session {
    /// A stream that goes on at a position, or starts with the history. A position with a scan
    /// must be of this plan's query.
    #[must_use]
    pub fn new(
        plan: Arc<Plan>,
        store: Arc<dyn Store>,
        hub: Arc<Hub>,
        format: Format,
        start: Option<Position>,
    ) -> Self {
        let mut session = Self {
            query: plan.query(),
            members: plan.members(None),
            epoch: store.epoch(),
            plan,
            store,
            hub,
            format,
            stage: Stage::Begin,
            out: Out::default(),
            events: 0,
            told: None,
            told_at: Instant::now(),
            caught_up: false,
            turns: None,
            turn: None,
            expiries: 0,
            ahead: 0,
        };
        if let Some(start) = start {
            session.start_at(start);
        }
        session
    }

    /// Its histories are read in turn; with `turn`, the first at once.
    pub fn scans_in_turn(&mut self, turns: Arc<Turns>, turn: Option<Turn<Rested>>) {
        (self.turns, self.turn) = (Some(turns), turn);
    }

    fn start_at(&mut self, start: Position) {
        if start.epoch != self.epoch {
            const WHY: &str = "the position is another database's, or of the time before this \
                               one was restored";
            // An event stream can always say so; it is the only format with positions.
            drop(self.reset(WHY));
            return;
        }
        let Position { log, members, scan, .. } = start.clone();
        self.told = Some(start);
        self.stage = match scan {
            Some(scan) => {
                let cursor = Cursor { type_index: scan.type_index, key: scan.key };
                Stage::Resume(Resume { log, origin: log, cursor, members, holds_at: log })
            }
            None if !self.plan.follow => Stage::End,
            None if self.has_group() => Stage::Rejoin { log, members },
            None => self.live_at(log),
        };
    }

    /// Whether all is sent.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::End) && self.out.is_empty()
    }

    /// What there is to write next: how many events, and bytes. Nothing, once all is taken.
    pub fn take_out(&mut self) -> (u64, Bytes) {
        (std::mem::take(&mut self.events), self.out.take())
    }

    /// What it is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Begin | Stage::Resume(_) | Stage::Scan(_) => Phase::History,
            Stage::Replay(_) => Phase::Replay,
            Stage::Live { follow, .. } if self.caught_up && self.hub.ends_at(follow.position()) => {
                Phase::Live
            }
            Stage::Rejoin { .. } | Stage::Live { .. } | Stage::End => Phase::Behind,
        }
    }

    /// Where in the log it is, and which type its history is at.
    #[must_use]
    pub fn whereabouts(&self) -> (Option<LogPosition>, Option<ResourceType>) {
        let of = |cursor: &Cursor| self.plan.types.get(cursor.type_index).copied();
        match &self.stage {
            Stage::Begin | Stage::End => (None, None),
            Stage::Resume(Resume { log, cursor, .. }) => (Some(*log), of(cursor)),
            Stage::Replay(Replay { follow, cursor, .. }) => (Some(follow.position()), of(cursor)),
            Stage::Scan(history) => (Some(history.snapshot().position()), history.ty()),
            Stage::Rejoin { log, .. } => (Some(*log), None),
            Stage::Live { follow, .. } => (Some(follow.position()), None),
        }
    }

    /// Goes on until there is something to write or the stage has changed.
    ///
    /// # Errors
    /// The stream ends. What is in the buffer is still to be written.
    pub async fn step(&mut self) -> Result<(), Ended> {
        self.take_up();
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::Begin => self.begin().await,
            Stage::Resume(resume) => self.resume(resume).await,
            Stage::Replay(replay) => self.replay(replay).await,
            Stage::Scan(history) => self.scan(history).await,
            Stage::Rejoin { log, members } => self.rejoin(log, members).await,
            Stage::Live { follow, goal } => self.live(follow, goal).await,
            Stage::End => Ok(()),
        }
    }

    /// The client is waited for: others may have the turn meanwhile.
    pub fn rest(&mut self) {
        if let (Some(turn), Some(later)) = (&self.turn, self.later()) {
            turn.rest(Rested(std::mem::replace(&mut self.stage, later)));
        }
    }

    fn take_up(&mut self) {
        match self.turn.as_ref().map(Turn::take_up) {
            Some(Ok(Some(Rested(stage)))) => self.stage = stage,
            Some(Err(Lost)) => self.turn = None,
            Some(Ok(None)) | None => {}
        }
    }

    /// How what holds a snapshot goes on without it.
    fn later(&self) -> Option<Stage> {
        let members = self.members.as_ref().and_then(Members::hash);
        let (log, origin, cursor, holds_at) = match &self.stage {
            Stage::Scan(history) => {
                let log = history.snapshot().position();
                (log, log, history.cursor(), log)
            }
            Stage::Replay(Replay { follow, cursor, holds_at, .. }) => {
                (follow.position(), follow.origin(), Some(cursor), *holds_at)
            }
            _ => return None,
        };
        Some(match cursor.cloned() {
            Some(cursor) => Stage::Resume(Resume { log, origin, cursor, members, holds_at }),
            None => Stage::Begin,
        })
    }

    fn live_at(&self, log: LogPosition) -> Stage {
        Stage::Live { follow: self.hub.follow(log), goal: None }
    }

    fn filter(&self) -> Filter<'_> {
        Filter { plan: &self.plan, members: self.members.as_ref() }
    }

    fn has_group(&self) -> bool {
        matches!(self.plan.scope, Scope::Group(_))
    }
}
