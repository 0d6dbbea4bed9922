//! A stream that is level with the ring: all that is left of it is a position.
//!
//! Until the next change it needs no task of its own: whoever reads the ring anyway (the crowd)
//! carries it, and gives it back where it can't.

use std::hash::{Hash, Hasher};

use bytes::BytesMut;
use tokio::time::Instant;

use super::{Session, Stage, out::Out, write::put_change};
use crate::{
    fhir::TypeSet,
    filter::{Filter, Verdict},
    frame::Format,
    live::{Entry, Page},
    plan::{Members, Plan, Scope},
    position::{Epoch, LogPosition, Position},
    store::Change,
};

/// What streams have in common that carry the same changes under the same ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voice {
    /// Without what only the history asks.
    plan: Plan,
    members: Option<Members>,
    epoch: Epoch,
}

/// By what tells most of them apart.
impl Hash for Voice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.plan.query(), self.members.as_ref().map(Members::hash)).hash(state);
    }
}

/// Where a stream stands that anybody may carry who reads the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// All changes up to here are delivered.
    pub at: LogPosition,
    /// All since is from the ring: see [`Hub::follow_since`].
    ///
    /// [`Hub::follow_since`]: crate::live::Hub::follow_since
    pub origin: LogPosition,
    /// The position that the client was last told.
    pub told: LogPosition,
    /// When that was.
    pub told_at: Instant,
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
    /// That of the streams of a plan. `members`: those of its group, where it has one.
    #[must_use]
    pub fn new(plan: &Plan, members: Option<Members>, epoch: Epoch) -> Self {
        Self { plan: plan.live(), members, epoch }
    }

    /// The types of what they carry.
    #[must_use]
    pub fn types(&self) -> TypeSet {
        self.plan.type_set
    }

    /// Whose resources alone they carry, where that is so.
    #[must_use]
    pub fn members(&self) -> Option<&Members> {
        self.members.as_ref().filter(|_| self.plan.is_restricted())
    }

    /// The id of the group whose members these are.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        match &self.plan.scope {
            Scope::Group(id) => Some(id),
            Scope::System | Scope::Patients => None,
        }
    }

    /// Appends the frames of what follows `after`; tells `spoke` of each change that has one.
    /// `due` are changes of the page, in its order; the others, and those up to `after`, mean
    /// nothing to these streams.
    pub fn speak<'p>(
        &self,
        after: LogPosition,
        page: &Page,
        due: impl IntoIterator<Item = &'p Entry>,
        out: &mut BytesMut,
        mut spoke: impl FnMut(&Change),
    ) -> Spoken {
        let filter = Filter { plan: &self.plan, members: self.members.as_ref() };
        let mut spoken = Spoken { events: 0, told: None, end: after, starts_over: false };
        for entry in due.into_iter().filter(|entry| entry.change.position > after) {
            match filter.verdict(entry) {
                Verdict::Skip => {}
                Verdict::Reset(_) => {
                    // A place may hold two changes (a rename is two): who starts over at the
                    // second has not consumed the first.
                    let before = page.place_before(entry.change.position);
                    let end = before.map_or(after, |before| before.max(after));
                    return Spoken { starts_over: true, end, ..spoken };
                }
                verdict => {
                    let position = self.position(entry.change.position);
                    let gone = verdict == Verdict::Gone;
                    put_change(out, &self.plan, Format::Sse, &position, entry, gone);
                    spoken.events += 1;
                    spoken.told = Some(entry.change.position);
                    spoke(&entry.change);
                }
            }
        }
        Spoken { end: page.level.max(after), ..spoken }
    }

    /// Appends a block that moves the clients' position without an event.
    pub fn checkpoint(&self, log: LogPosition, out: &mut BytesMut) {
        Format::Sse.checkpoint(out, &self.position(log).to_string());
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
        Voice::new(&self.plan, self.members.clone(), self.epoch)
    }

    /// Gives up following: somebody else goes on. `None`: it was not following.
    pub fn sit(&mut self) -> Option<Standing> {
        let Stage::Live { follow, .. } = &self.stage else { return None };
        let (at, origin) = (follow.position(), follow.origin());
        let told = self.told.as_ref().map_or(at, |told| told.log);
        self.stage = Stage::End;
        // Its buffer would be kept for nothing.
        self.out = Out::default();
        Some(Standing { at, origin, told, told_at: self.told_at })
    }

    /// Follows again.
    pub fn rise(&mut self, stood: Standing) {
        self.tell(stood.told, None);
        self.told_at = stood.told_at;
        let follow = self.hub.follow_since(stood.origin, stood.at);
        self.stage = Stage::Live { follow: follow.go_on(), goal: None };
    }
}
