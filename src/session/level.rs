//! A stream that is level with the ring: all that is left of it is a position.
//!
//! Until the next change it needs no task of its own: whoever reads the ring anyway (the crowd)
//! carries it, and gives it back where it can't.

use bytes::BytesMut;
use tokio::time::Instant;

use super::{Session, Stage, out::Out, write::put_change};
use crate::{
    filter::{Filter, Verdict},
    frame::Format,
    live::Page,
    plan::{Members, Plan},
    position::{Epoch, LogPosition, Position},
    store::Change,
};

/// What streams have in common that carry the same changes under the same ids.
#[derive(Debug, Clone)]
pub struct Voice {
    plan: Plan,
    members: Option<Members>,
    epoch: Epoch,
}

/// A page as event frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoken {
    /// How many events.
    pub events: u64,
    /// Where they leave a client, if there is one.
    pub told: Option<LogPosition>,
    /// All changes before this are in them.
    pub end: LogPosition,
    /// The next change makes the streams start over.
    pub starts_over: bool,
}

impl Voice {
    /// Appends the frames of what follows `after`; tells `spoke` of each change that has one.
    pub fn speak(
        &self,
        after: LogPosition,
        page: &Page,
        out: &mut BytesMut,
        mut spoke: impl FnMut(&Change),
    ) -> Spoken {
        let filter = Filter { plan: &self.plan, members: self.members.as_ref() };
        let mut spoken = Spoken { events: 0, told: None, end: after, starts_over: false };
        // A place may hold two changes (a rename is two): who starts over at the second has not
        // consumed the first.
        let mut before = after;
        for entry in &page.entries {
            if entry.change.position != spoken.end {
                before = spoken.end;
            }
            match filter.verdict(entry) {
                Verdict::Skip => {}
                Verdict::Reset(_) => return Spoken { starts_over: true, end: before, ..spoken },
                verdict => {
                    let position = self.position(entry.change.position);
                    let gone = verdict == Verdict::Gone;
                    put_change(out, &self.plan, Format::Sse, &position, entry, gone);
                    spoken.events += 1;
                    spoken.told = Some(entry.change.position);
                    spoke(&entry.change);
                }
            }
            spoken.end = entry.change.position;
        }
        Spoken { end: page.level, ..spoken }
    }

    /// Appends a block that moves the clients' position without an event.
    pub fn checkpoint(&self, log: LogPosition, out: &mut BytesMut) {
        Format::Sse.checkpoint(out, &self.position(log).to_string());
    }

    /// Whether a session's live part sounds the same.
    #[must_use]
    pub fn is_of(&self, session: &Session) -> bool {
        self.plan.sounds_like(&session.plan) && self.members == session.members
    }

    fn position(&self, log: LogPosition) -> Position {
        let members = self.members.as_ref().and_then(Members::hash);
        Position { epoch: self.epoch, log, members, scan: None }
    }
}

impl Session {
    /// Whether all is written that there is, and the client has heard so.
    #[must_use]
    pub fn is_level(&self) -> bool {
        let at_end = match &self.stage {
            Stage::Live { follow, goal: None } => self.hub.ends_at(follow.position()),
            _ => false,
        };
        at_end && self.caught_up && self.out.is_empty() && self.format == Format::Sse
    }

    /// What the live part has in common with others.
    #[must_use]
    pub fn voice(&self) -> Voice {
        Voice { plan: (*self.plan).clone(), members: self.members.clone(), epoch: self.epoch }
    }

    /// Gives up following: all up to the position is delivered, and somebody else goes on.
    /// `None`: it was not following.
    pub fn sit(&mut self) -> Option<LogPosition> {
        let Stage::Live { follow, .. } = &self.stage else { return None };
        let at = follow.position();
        self.stage = Stage::End;
        // Its buffer would be kept for nothing.
        self.out = Out::default();
        Some(at)
    }

    /// Follows again, after `at`. The client has last heard of the position `told`, at `told_at`.
    pub fn rise(&mut self, at: LogPosition, told: LogPosition, told_at: Instant) {
        self.tell(told, None);
        self.told_at = told_at;
        self.stage = Stage::Live { follow: self.hub.follow(at).go_on(), goal: None };
    }
}
