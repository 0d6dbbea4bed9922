//! All audiences of one carrier: found by their voice, and by what a page of the ring holds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    audience::{Audience, Seat},
    index::{Index, Parts, Slot},
};
use crate::{live::Page, session::Voice};

#[derive(Default)]
pub(super) struct Audiences {
    all: BTreeMap<Slot, Audience>,
    by_voice: HashMap<Arc<Voice>, Slot>,
    index: Index,
    /// The last slot that was given.
    last: Slot,
}

impl Audiences {
    /// The streams of a voice.
    pub(super) fn of(&mut self, voice: Voice) -> (Slot, &mut Audience) {
        let voice = Arc::new(voice);
        let slot = *self.by_voice.entry(Arc::clone(&voice)).or_insert_with(|| {
            self.last += 1;
            self.index.add(self.last, &voice);
            self.last
        });
        (slot, self.all.entry(slot).or_insert_with(|| Audience::new(voice)))
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Audience> {
        self.all.get_mut(&slot)
    }

    /// The first from a slot on.
    pub(super) fn next_from(&mut self, slot: Slot) -> Option<(Slot, &mut Audience)> {
        self.all.range_mut(slot..).next().map(|(slot, audience)| (*slot, audience))
    }

    /// Those that are there now.
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.all.keys().copied().collect()
    }

    pub(super) fn seats_mut(&mut self) -> impl Iterator<Item = &mut Seat> {
        self.all.values_mut().flat_map(|audience| &mut audience.seats)
    }

    /// What of a page may concern which of them.
    pub(super) fn parts<'p>(&self, page: &'p Page) -> Parts<'p> {
        self.index.parts(page)
    }

    /// Forgets those in which nobody sits. Says whether anybody is left.
    pub(super) fn forget_empty(&mut self) -> bool {
        let empty = self.all.extract_if(.., |_, audience| audience.seats.is_empty());
        for (slot, audience) in empty {
            self.index.remove(slot, &audience.voice);
            self.by_voice.remove(&audience.voice);
        }
        !self.all.is_empty()
    }
}
