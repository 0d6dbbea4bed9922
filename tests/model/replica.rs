//! What a client makes of the events, and what must be true of it after each.
//!
//! A position says what has been sent: (P, cursor) that the part of the copy up to the cursor is
//! what the store held where all up to P had happened; P alone, that the whole copy is.

use std::{
    collections::{BTreeMap, HashSet},
    str::FromStr,
    sync::Arc,
};

use fhirtail::{
    client::sse::{Event, Item},
    fhir::ResourceType,
    plan::{Plan, Scope},
    position::{LogPosition, Position},
    store::ChangeKind,
};

use crate::{
    known::{Known, found_late, may_be_found, may_hold, undeferred},
    world::{Key, State, Turn, Version, World},
};

/// Why a run has failed.
pub type Wrong = String;

/// One client's copy, and all that it remembers.
#[derive(Debug, Clone)]
pub struct Replica {
    plan: Arc<Plan>,
    /// The last id.
    pub id: String,
    position: Option<Position>,
    /// The first position since the copy was begun.
    born: Option<LogPosition>,
    copy: BTreeMap<Key, String>,
    /// All versions that came since the copy was begun.
    versions: HashSet<String>,
    known: Known,
    /// The connection has said `caught-up`, and not `fell-behind` since.
    pub caught_up: bool,
    /// How many changes there were when it connected.
    floor: usize,
    /// Its history has an end, and has come to it.
    pub done: bool,
    pub counts: Counts,
}

/// What has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    pub checkpoints: u64,
    pub caught_up: u64,
    pub fell_behind: u64,
    pub resets: u64,
}

/// What a copy may hold of a version.
enum Wanted {
    It,
    Nothing,
    /// It came with the first event, or never.
    ItOrNothing,
    /// The scan is yet to come to it, and the copy may know it from an older place.
    Anything,
}

impl Replica {
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            id: String::new(),
            position: None,
            born: None,
            copy: BTreeMap::new(),
            versions: HashSet::new(),
            known: Known::default(),
            caught_up: false,
            floor: 0,
            done: false,
            counts: Counts::default(),
        }
    }

    /// It throws away what it has.
    pub fn begin_anew(&mut self) {
        *self = Self { counts: self.counts, ..Self::new(Arc::clone(&self.plan)) };
    }

    /// A connection begins.
    pub fn connects(&mut self, world: &World) {
        self.caught_up = false;
        self.floor = world.reached(LogPosition::past(world.now()));
        self.rewind(world);
    }

    /// What it knows beyond its position comes once more.
    fn rewind(&mut self, world: &World) {
        let Some(Position { log, .. }) = self.position else { return };
        self.known.rewind(log);
        self.versions.retain(|text| world.place_of(text).is_some_and(|place| place <= log));
    }

    pub fn take(&mut self, item: &Item, world: &World) -> Result<(), Wrong> {
        match item {
            Item::Retry(_) => Ok(()),
            Item::Checkpoint(id) => {
                self.counts.checkpoints += 1;
                self.moves(id, None, world)
            }
            Item::Event(event) => {
                self.counts.events += 1;
                self.event(event, world).map_err(|wrong| format!("{wrong}, at {event:?}"))
            }
        }
    }

    fn event(&mut self, event: &Event, world: &World) -> Result<(), Wrong> {
        match event.event.as_str() {
            "OperationOutcome" => return Err("the stream breaks off".into()),
            "reset" => return self.reset(event, world),
            "caught-up" => self.is_caught_up()?,
            "fell-behind" => {
                self.counts.fell_behind += 1;
                if !std::mem::take(&mut self.caught_up) {
                    return Err("fell behind what it never was level with".into());
                }
                self.rewind(world);
            }
            "deleted" => self.deleted(event)?,
            name => self.resource(name, event, world)?,
        }
        self.moves(&event.id, Some(event), world)?;
        self.is_of_its_place(event, world)?;
        let sent = self.position.as_ref().map_or(0, |position| world.reached(position.log));
        if self.caught_up && event.event == "caught-up" && self.plan.follow && sent < self.floor {
            return Err(format!("caught up {sent} of {} changes", self.floor));
        }
        Ok(())
    }

    fn is_caught_up(&mut self) -> Result<(), Wrong> {
        self.counts.caught_up += 1;
        self.done = !self.plan.follow;
        match std::mem::replace(&mut self.caught_up, true) {
            true => Err("caught up twice".into()),
            false => Ok(()),
        }
    }

    fn deleted(&mut self, event: &Event) -> Result<(), Wrong> {
        let url = event.data.split("\"url\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let key = url.and_then(key_of).ok_or("a deletion of nothing")?;
        let place = Position::from_str(&event.id).map_err(|_| "no position")?.log;
        if !self.known.comes(&key, place) {
            return Err("it has come back since".into());
        }
        let had = self.copy.remove(&key).is_some();
        match had || !self.plan.window.is_open() {
            true => Ok(()),
            false => Err("it never had that".into()),
        }
    }

    fn resource(&mut self, name: &str, event: &Event, world: &World) -> Result<(), Wrong> {
        let id = event.data.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let ty = ResourceType::parse(name).ok_or("an event of another protocol")?;
        let key = (ty, id.ok_or("a resource without id")?.to_owned());
        if !self.versions.insert(event.data.clone()) {
            return Err("that version came before".into());
        }
        let place = world.place_of(&event.data).ok_or("nobody wrote that")?;
        if !self.known.comes(&key, place) {
            return Err("a later version came before".into());
        }
        self.copy.insert(key, event.data.clone());
        Ok(())
    }

    fn reset(&mut self, event: &Event, world: &World) -> Result<(), Wrong> {
        let after = self.position.as_ref().map_or(LogPosition::default(), |at| at.log);
        let restricted = self.plan.is_restricted();
        let grouped = matches!(self.plan.scope, Scope::Group(_));
        let cause = |change: &ChangeKind| match change {
            ChangeKind::Replaced { ty } => self.plan.type_set.contains(*ty),
            ChangeKind::Upsert { ty, .. } => grouped && ty.name() == "Group",
            ChangeKind::Delete { .. } | ChangeKind::Deferred { .. } => false,
        };
        // Right behind a log at rest, (T, n) and (T + 1, 0) are one place: either may be asked for.
        let asked = after.time.saturating_sub(u64::from(after.consumed == 0));
        let just = asked <= world.trimmed()
            || (restricted && !world.keeps_images())
            || world.after(after).iter().any(|logged| cause(&logged.change.kind));
        if !just || !event.id.is_empty() {
            let trimmed = world.trimmed();
            return Err(format!("a reset without need after {after:?}, trimmed {trimmed}"));
        }
        let resets = self.counts.resets + 1;
        let floor = self.floor;
        self.begin_anew();
        (self.counts.resets, self.floor) = (resets, floor);
        Ok(())
    }

    /// An id came, with an event or as a checkpoint: time never goes back, and the copy is as the id
    /// says.
    fn moves(&mut self, id: &str, event: Option<&Event>, world: &World) -> Result<(), Wrong> {
        let position = Position::from_str(id).map_err(|_| format!("{id:?} is no position"))?;
        if let Some(last) = &self.position {
            let (before, now) = (world.reached(last.log), world.reached(position.log));
            let back = match (&last.scan, &position.scan) {
                (Some(old), Some(new)) => {
                    new.type_index < old.type_index
                        || (new.type_index == old.type_index && new.key < old.key)
                }
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if now < before || back {
                return Err(format!("{id} lies before {last}"));
            }
            if last.scan.is_none() && now > before + 1 {
                let told = event.is_some_and(|event| !is_control(event)).then_some(position.log);
                self.leaves_nothing_out([last.log, position.log], told, world)?;
            }
        }
        self.born.get_or_insert(position.log);
        id.clone_into(&mut self.id);
        let position = self.position.insert(position);
        let position = position.clone();
        let state = world.state_at(position.log);
        let whole = event.is_some_and(|event| event.event == "caught-up");
        self.compare(&state, Some(&position), |copied, key| {
            // What was before an update may have been outside of a window, or of a compartment.
            let window = self.plan.window;
            let was_outside = || {
                let before = undeferred(key, position.log, world);
                !before.is_some_and(|before| self.selects(key, &before, &members(&state)))
            };
            let had = copied.is_some() || !window.is_open() || was_outside();
            // What is found late may have left the window; or it is in it where the scan is yet to come.
            let is_left = |late: &Version| match window.contains(late.updated_ms) {
                true => !window.is_open() && !self.is_scanned(key, late, Some(&position)),
                false => copied.is_none(),
            };
            had && (may_hold(copied, key, position.log, whole, world)
                || found_late(key, position.log, world).iter().any(is_left))
        })
    }

    /// Between two live positions lies nothing of the stream's but the change that has come: also
    /// where the copy is the same without it.
    fn leaves_nothing_out(
        &self,
        [last, now]: [LogPosition; 2],
        told: Option<LogPosition>,
        world: &World,
    ) -> Result<(), Wrong> {
        // Were the members others, it would have started over.
        let members = members(&world.state_at(last));
        let turns = world.between(last, now);
        let is_ours = |turn: &&Turn| {
            // What was found late may be, where what it is told for is not.
            let late = match Some(turn.at) == told {
                true => found_late(&turn.key, turn.at, world),
                false => Vec::new(),
            };
            let mut versions = turn.versions.iter().flatten().chain(&late);
            versions.any(|version| self.selects(&turn.key, version, &members))
        };
        let ours = turns.iter().filter(is_ours);
        let due = ours.filter(|turn| Some(turn.at) == told || !self.known.excuses(turn, world));
        let due: Vec<_> = due.map(|turn| (&turn.key, turn.at)).collect();
        match due.iter().map(|(_, at)| *at).eq(told) {
            true => Ok(()),
            false => Err(format!("{last:?} to {now:?} are the changes of {due:?}")),
        }
    }

    /// A live event is the change at its place.
    fn is_of_its_place(&self, event: &Event, world: &World) -> Result<(), Wrong> {
        let Some(Position { log, scan: None, .. }) = &self.position else { return Ok(()) };
        let Some(logged) = world.change_at(*log).filter(|_| !is_control(event)) else {
            return if is_control(event) { Ok(()) } else { Err("no change is there".into()) };
        };
        let is_it = match &logged.change.kind {
            ChangeKind::Upsert { ty, id, json, .. } if event.event != "deleted" => {
                let right =
                    event.data.as_bytes() == &json[..] || may_be_found(&event.data, logged, world);
                ty.name() == event.event && !id.is_empty() && right
            }
            ChangeKind::Upsert { ty, id, .. } | ChangeKind::Delete { ty, id, .. } => {
                event.event == "deleted" && event.data.contains(&format!("\"{ty}/{id}\""))
            }
            ChangeKind::Deferred { .. } | ChangeKind::Replaced { .. } => false,
        };
        if is_it {
            Ok(())
        } else {
            Err(format!("another change is there: {:?}", logged.change.kind))
        }
    }

    /// Whether the copy is that of a state, as far as it must be; `may_hold` excuses what it holds of a
    /// resource instead.
    pub fn compare(
        &self,
        state: &State,
        at: Option<&Position>,
        may_hold: impl Fn(Option<&str>, &Key) -> bool,
    ) -> Result<(), Wrong> {
        let members = members(state);
        let mut held = self.copy.clone();
        for (key, version) in state.iter().filter(|(key, v)| self.selects(key, v, &members)) {
            let copied = held.remove(key);
            let is_it = copied.as_ref().is_some_and(|text| text.as_bytes() == &version.json[..]);
            let right = match self.wants(key, version, at) {
                Wanted::Anything => true,
                Wanted::It => is_it || may_hold(copied.as_deref(), key),
                Wanted::Nothing => {
                    let leaves = !self.plan.follow;
                    copied.is_none() || (leaves && may_hold(copied.as_deref(), key))
                }
                Wanted::ItOrNothing => {
                    is_it || copied.is_none() || may_hold(copied.as_deref(), key)
                }
            };
            if !right {
                let copied = copied.as_deref().unwrap_or("nothing");
                return Err(format!("the copy's {key:?} is {copied}, the store's {version:?}"));
            }
        }
        match held.into_iter().find(|(key, text)| !may_hold(Some(text), key)) {
            Some((key, text)) => Err(format!("the copy has {key:?} that is not there: {text}")),
            None => Ok(()),
        }
    }

    fn selects(&self, (ty, _): &Key, version: &Version, members: &[u8]) -> bool {
        let theirs = |patient: &u8| match &self.plan.scope {
            Scope::Group(_) => members.contains(patient),
            Scope::System | Scope::Patients => true,
        };
        self.plan.type_set.contains(*ty)
            && (self.plan.scope == Scope::System || version.patients.iter().any(theirs))
    }

    fn wants(&self, key: &Key, version: &Version, at: Option<&Position>) -> Wanted {
        let window = self.plan.window;
        if !window.contains(version.updated_ms) {
            // `_since` bounds the history alone: what is written later comes whatever its clock says.
            let later = self.born.is_some_and(|born| version.position > born);
            return match self.plan.follow {
                true if later => Wanted::It,
                true => Wanted::ItOrNothing,
                false => Wanted::Nothing,
            };
        }
        match self.is_scanned(key, version, at) {
            true => Wanted::It,
            false if window.is_open() => Wanted::Nothing,
            false => Wanted::Anything,
        }
    }

    /// Whether the scan has come to a version.
    fn is_scanned(&self, (ty, _): &Key, version: &Version, at: Option<&Position>) -> bool {
        let Some(scan) = at.and_then(|at| at.scan.as_ref()) else { return true };
        let Some(index) = self.plan.index_of(*ty) else { return false };
        index < scan.type_index
            || (index == scan.type_index
                && scan
                    .key
                    .same_order(&version.doc, version.updated_ms)
                    .is_some_and(|key| key <= scan.key))
    }
}

/// The patients that the group names.
fn members(state: &State) -> Vec<u8> {
    let group = state.iter().find(|((ty, _), _)| ty.name() == "Group");
    group.map_or(Vec::new(), |(_, group)| group.patients.clone())
}

fn is_control(event: &Event) -> bool {
    event.event.contains('-')
}

fn key_of(url: &str) -> Option<Key> {
    let (ty, id) = url.split_once('/')?;
    Some((ResourceType::parse(ty)?, id.to_owned()))
}
