//! What a copy knows where updates are looked up late: it may be ahead of its position, and behind
//! what is deferred to a later change.

use std::collections::BTreeMap;

use fhirtail::position::LogPosition;

use crate::world::{Key, Logged, Turn, Version, World};

/// Up to where of the log each resource is known.
#[derive(Debug, Clone, Default)]
pub struct Known(BTreeMap<Key, LogPosition>);

impl Known {
    /// A version comes, or word that it is gone. Whether that is no older than what was known.
    #[must_use]
    pub fn comes(&mut self, key: &Key, place: LogPosition) -> bool {
        let known = self.0.entry(key.clone()).or_insert(place);
        let forward = place >= *known;
        *known = place.max(*known);
        forward
    }

    /// Another reader goes on from here: it knows nothing of what this one had looked up ahead.
    pub fn rewind(&mut self, at: LogPosition) {
        self.0.values_mut().for_each(|known| *known = at.min(*known));
    }

    /// Whether what came at a place need not be told: it was known, or is deferred to what comes later.
    pub fn excuses(&self, turn: &Turn, world: &World) -> bool {
        let is_deferred =
            || world.was_deferred(turn.at) && world.since(&turn.key, turn.at).len() > 1;
        world.looks_up()
            && (self.0.get(&turn.key).is_some_and(|known| *known >= turn.at) || is_deferred())
    }
}

/// Whether a copy may hold this of a resource: what came later, looked up too late; or what was
/// before an update whose document nobody finds any more, until the later change comes to which it
/// was deferred. Who is told that it has all (`whole`) waits for none.
pub fn may_hold(
    copied: Option<&str>,
    key: &Key,
    at: LogPosition,
    whole: bool,
    world: &World,
) -> bool {
    if !world.looks_up() {
        return false;
    }
    let since = world.since(key, at);
    let is_it = |version: &Version| copied.is_some_and(|text| version.json == text.as_bytes());
    let later = since.iter().flatten().any(is_it);
    let was_deferred =
        since[0].as_ref().is_some_and(|version| world.was_deferred(version.position));
    later || (was_deferred && !whole && since.len() > 1)
}

/// What a resource was at a position, or before that where its updates were deferred.
pub fn undeferred(key: &Key, mut at: LogPosition, world: &World) -> Option<Version> {
    loop {
        let version = world.state_at(at).remove(key)?;
        if !world.was_deferred(version.position) {
            return Some(version);
        }
        let LogPosition { time, consumed } = version.position;
        at = LogPosition { time, consumed: consumed - 1 };
    }
}

/// What a look-up may have found of a resource, too late.
pub fn found_late(key: &Key, at: LogPosition, world: &World) -> Vec<Version> {
    let mut since = world.since(key, at).into_iter();
    let was_open = since.next().flatten().is_some_and(|version| version.open);
    since.filter(|_| was_open).flatten().collect()
}

/// Whether a look-up for a change may find that, in time or too late.
pub fn may_be_found(text: &str, logged: &Logged, world: &World) -> bool {
    let Some(key) = logged.key().filter(|_| logged.is_open()) else { return false };
    let since = world.since(key, logged.change.position);
    since.iter().flatten().any(|version| version.json == text.as_bytes())
}
