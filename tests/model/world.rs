//! What the simulated store holds: the resources, the log of their changes, and what is left of
//! it. Every earlier state can be asked for: that is what copies are compared with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use fhirtail::{
    fhir::ResourceType,
    position::LogPosition,
    store::{Before, Change, ChangeKind, DocId, Image, StoreError},
};
use support::writes::ty;

use crate::schedule::{Knobs, Op, Target};

/// One resource's name.
pub type Key = (ResourceType, String);

/// All resources as of one position.
pub type State = BTreeMap<Key, Version>;

/// One version of a resource.
#[derive(Debug, Clone)]
pub struct Version {
    pub position: LogPosition,
    pub doc: DocId,
    pub updated_ms: Option<i64>,
    /// In whose compartments it is.
    pub patients: Vec<u8>,
    pub json: Bytes,
    /// The log has no more of it than that it was written.
    pub open: bool,
}

/// A change of the log, and what it did.
#[derive(Debug, Clone)]
pub struct Logged {
    pub change: Change,
    effect: Effect,
}

#[derive(Debug, Clone)]
enum Effect {
    Is(Key, Version),
    Gone(Key),
    Cleared(ResourceType),
}

/// What befell a resource at one place of the log: what was before, and after.
pub struct Turn {
    pub at: LogPosition,
    pub key: Key,
    pub versions: [Option<Version>; 2],
}

/// The log's last time when a transaction had ended, and what there was then.
#[derive(Debug, Clone)]
struct End {
    time: u64,
    /// How many changes there had been.
    logged: usize,
    state: Arc<State>,
}

#[derive(Debug)]
pub struct World {
    knobs: Knobs,
    log: Vec<Logged>,
    ends: Vec<End>,
    /// The log has moved up to here, with changes or without.
    now: u64,
    /// Changes up to this time are no longer in the log.
    trimmed: u64,
    /// Where each version was written.
    places: Vec<LogPosition>,
    /// Changes that a reader has deferred to later ones.
    deferred: BTreeSet<LogPosition>,
}

impl World {
    pub fn new(knobs: Knobs) -> Self {
        let now = 1_000 << 32;
        let first = End { time: now, logged: 0, state: Arc::default() };
        Self {
            knobs,
            log: Vec::new(),
            ends: vec![first],
            now,
            trimmed: now - 1,
            places: Vec::new(),
            deferred: BTreeSet::new(),
        }
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn trimmed(&self) -> u64 {
        self.trimmed
    }

    pub fn keeps_images(&self) -> bool {
        self.knobs.images
    }

    /// The times at which snapshots can be taken, the youngest last.
    pub fn instants(&self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator {
        self.ends.iter().map(|end| end.time)
    }

    /// Commits one transaction: at one time, or, where each change has its own, one after another.
    pub fn commit(&mut self, ops: &[Op]) {
        let mut state = State::clone(self.current());
        let mut position = LogPosition { time: self.now + 1, consumed: 1 };
        for op in ops {
            let Some(logged) = self.logged(op, position, &state) else { continue };
            self.now = position.time;
            logged.effect.clone().apply(&mut state);
            self.log.push(logged);
            match self.knobs.embedded {
                true => position.time += 1,
                false => position.consumed += 1,
            }
        }
        self.end(state);
    }

    /// Collections go, all at one place of the log.
    pub fn drop_types(&mut self, types: &[ResourceType]) {
        let mut state = State::clone(self.current());
        let position = LogPosition { time: self.now + 1, consumed: 1 };
        self.now = position.time;
        for ty in types {
            let effect = Effect::Cleared(*ty);
            effect.clone().apply(&mut state);
            self.log.push(Logged {
                change: change(position, ChangeKind::Replaced { ty: *ty }),
                effect,
            });
        }
        self.end(state);
    }

    /// Somebody writes to another database of the same log.
    pub fn pass(&mut self, times: u64) {
        if !self.knobs.embedded {
            self.now += times;
        }
    }

    /// Forgets all but the last `keep` transactions of the log.
    pub fn trim(&mut self, keep: usize) {
        let last = self.ends.len() - 1;
        if let Some(end) = last.checked_sub(keep.max(1)).map(|at| &self.ends[at]) {
            self.trimmed = self.trimmed.max(end.time);
        }
    }

    pub fn current(&self) -> &Arc<State> {
        &self.ends.last().expect("there is a first end").state
    }

    /// What there is where all up to a position, and nothing else, has happened.
    pub fn state_at(&self, at: LogPosition) -> State {
        let reached = self.reached(at);
        let after = self.ends.partition_point(|end| end.logged <= reached);
        let base = &self.ends[after - 1];
        let mut state = State::clone(&base.state);
        for logged in &self.log[base.logged..reached] {
            logged.effect.clone().apply(&mut state);
        }
        state
    }

    /// How many changes lie before a position.
    pub fn reached(&self, at: LogPosition) -> usize {
        self.log.partition_point(|logged| logged.change.position <= at)
    }

    pub fn after(&self, at: LogPosition) -> &[Logged] {
        &self.log[self.reached(at)..]
    }

    /// Each resource's change between two positions.
    pub fn between(&self, after: LogPosition, to: LogPosition) -> Vec<Turn> {
        let mut state = self.state_at(after);
        let mut turns = Vec::new();
        for logged in &self.log[self.reached(after)..self.reached(to)] {
            let before = state.clone();
            logged.effect.clone().apply(&mut state);
            if let Some(key) = logged.key() {
                let of = |state: &State| state.get(key).cloned();
                let (at, versions) = (logged.change.position, [of(&before), of(&state)]);
                turns.push(Turn { at, key: key.clone(), versions });
            }
        }
        turns
    }

    /// What a resource was at a position and has been since, each in its turn; `None`: it was not there.
    pub fn since(&self, key: &Key, at: LogPosition) -> Vec<Option<Version>> {
        let mut versions = vec![self.state_at(at).remove(key)];
        for logged in self.after(at) {
            match &logged.effect {
                Effect::Is(of, version) if of == key => versions.push(Some(version.clone())),
                Effect::Gone(of) if of == key => versions.push(None),
                Effect::Cleared(ty) if *ty == key.0 => versions.push(None),
                Effect::Is(..) | Effect::Gone(_) | Effect::Cleared(_) => {}
            }
        }
        versions
    }

    /// Where a version was written.
    pub fn place_of(&self, json: &str) -> Option<LogPosition> {
        let stamp = json.split("\"versionId\":\"").nth(1)?.split('"').next()?;
        self.places.get(stamp.parse::<usize>().ok()?.checked_sub(1)?).copied()
    }

    pub fn looks_up(&self) -> bool {
        self.knobs.looked_up
    }

    /// Takes note of what a reader has made of changes.
    pub fn were_read(&mut self, changes: &[Change]) {
        let is_deferred = |change: &&Change| matches!(change.kind, ChangeKind::Deferred { .. });
        self.deferred.extend(changes.iter().filter(is_deferred).map(|change| change.position));
    }

    /// Whether a reader, be it another's, has deferred a change.
    pub fn was_deferred(&self, at: LogPosition) -> bool {
        self.deferred.contains(&at)
    }

    pub fn change_at(&self, at: LogPosition) -> Option<&Logged> {
        let last = self.log.get(self.reached(at).checked_sub(1)?)?;
        (last.change.position == at).then_some(last)
    }

    pub fn head(&self) -> LogPosition {
        match self.knobs.embedded {
            true => LogPosition { time: self.now, consumed: 1 },
            false => LogPosition::before(self.now),
        }
    }

    /// Whether a reader may begin after a position.
    pub fn honours(&self, after: LogPosition) -> Result<(), StoreError> {
        let lost = |why: &str| Err(StoreError::PositionLost(why.into()));
        let first = after.time + u64::from(self.knobs.embedded && after.consumed > 0);
        if first <= self.trimmed {
            return lost("it is trimmed");
        }
        if first > self.now + 1 {
            return lost("it lies in the future");
        }
        Ok(())
    }

    /// Whether a reader that has come to a position still finds what follows.
    pub fn holds_after(&self, at: LogPosition) -> Result<(), StoreError> {
        match self.after(at).first() {
            Some(next) if next.change.position.time <= self.trimmed => {
                Err(StoreError::PositionLost("it was trimmed meanwhile".into()))
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, state: State) {
        let logged = self.log.len();
        if logged > self.ends.last().expect("a first end").logged {
            self.ends.push(End { time: self.now, logged, state: Arc::new(state) });
        }
    }

    fn logged(&mut self, op: &Op, position: LogPosition, state: &State) -> Option<Logged> {
        let target = op.target();
        let key = (ty(target.type_name()), target.id());
        let old = state.get(&key);
        let before = match old {
            None => Before::Absent,
            Some(_) if !self.knobs.images => Before::Unknown,
            Some(old) => Before::Known(image(&old.json)),
        };
        let (doc, (ty, id)) = (target.doc(), key.clone());
        let id = id.into_boxed_str();
        if let Op::Put { updated_ms, patients, .. } = op {
            self.places.push(position);
            let stamp = self.places.len();
            let json = text(target, *patients, stamp, self.knobs.fat);
            let open = self.knobs.looked_up && old.is_some() && !stamp.is_multiple_of(4);
            let (updated_ms, patients) = (*updated_ms, target.compartments(*patients));
            let version = Version {
                position,
                doc: doc.clone(),
                updated_ms,
                patients,
                json: json.clone(),
                open,
            };
            let kind = ChangeKind::Upsert { ty, id, doc, updated_ms, json, before };
            return Some(Logged {
                change: change(position, kind),
                effect: Effect::Is(key, version),
            });
        }
        old?;
        let kind = ChangeKind::Delete { ty, id, doc, before };
        Some(Logged { change: change(position, kind), effect: Effect::Gone(key) })
    }
}

impl Logged {
    /// Whose change it is; a collection's end is nobody's.
    pub fn key(&self) -> Option<&Key> {
        match &self.effect {
            Effect::Is(key, _) | Effect::Gone(key) => Some(key),
            Effect::Cleared(_) => None,
        }
    }

    /// Whether the log has no more of it than that it was.
    pub fn is_open(&self) -> bool {
        matches!(&self.effect, Effect::Is(_, version) if version.open)
    }
}

impl Effect {
    fn apply(self, state: &mut State) {
        match self {
            Self::Is(key, version) => drop(state.insert(key, version)),
            Self::Gone(key) => drop(state.remove(&key)),
            Self::Cleared(ty) => state.retain(|(of, _), _| *of != ty),
        }
    }
}

fn change(position: LogPosition, kind: ChangeKind) -> Change {
    Change::new(position, jiff::Timestamp::UNIX_EPOCH, kind)
}

fn image(json: &Bytes) -> Image {
    let (bytes, json) = (json.len(), json.clone());
    Image { bytes, encode: Arc::new(move || Some(json.clone())) }
}

/// A resource's JSON; no two versions have the same.
fn text(target: Target, patients: u8, stamp: usize, fat: bool) -> Bytes {
    let (name, id) = (target.type_name(), target.id());
    let reference = |n: u8| format!("{{\"reference\":\"Patient/{}\"}}", Target::Patient(n).id());
    let named = || (0..8).filter(move |n| patients & (1 << n) != 0);
    let links = match target {
        Target::Patient(_) | Target::Organization(_) => String::new(),
        Target::Observation(_) => named()
            .next()
            .map_or(String::new(), |patient| format!(",\"subject\":{}", reference(patient))),
        Target::Group => {
            let members: Vec<_> =
                named().map(|n| format!("{{\"entity\":{}}}", reference(n))).collect();
            format!(",\"member\":[{}]", members.join(","))
        }
    };
    let pad = if fat { "x".repeat(stamp % 7 * 5_000) } else { String::new() };
    format!(
        "{{\"resourceType\":\"{name}\",\"id\":\"{id}\",\"meta\":{{\"versionId\":\"{stamp}\"}}\
         {links},\"language\":\"{pad}\"}}"
    )
    .into()
}
