//! Which audiences a change may concern, found without asking each of them. Pure.
//!
//! [`Filter::verdict`](crate::filter::Filter::verdict) decides; whom it does not say `Skip` to is
//! among those who are found here.

use std::collections::{BTreeMap, HashMap};

use crate::{
    fhir::{ResourceType, TypeSet},
    filter::is_group,
    live::{Entry, Page},
    session::Voice,
    store::ChangeKind,
};

/// Names an audience of a carrier, for good.
pub(super) type Slot = u64;

/// What may concern whom: changes of one page, in its order.
pub(super) type Parts<'p> = BTreeMap<Slot, Vec<&'p Entry>>;

/// The audiences of one carrier, by what they carry.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Who carries types, whosever.
    open: BTreeMap<Slot, TypeSet>,
    /// Who carries types of certain patients alone.
    restricted: BTreeMap<Slot, TypeSet>,
    /// Of these, by the patients' ids.
    patients: HashMap<Box<str>, Vec<Slot>>,
    /// And, where the patients are a group's members, by its id.
    groups: HashMap<Box<str>, Vec<Slot>>,
}

impl Index {
    pub(super) fn add(&mut self, slot: Slot, voice: &Voice) {
        let Some(members) = voice.members() else {
            self.open.insert(slot, voice.types());
            return;
        };
        self.restricted.insert(slot, voice.types());
        members.ids().for_each(|id| put(&mut self.patients, id, slot));
        voice.group().into_iter().for_each(|id| put(&mut self.groups, id, slot));
    }

    pub(super) fn remove(&mut self, slot: Slot, voice: &Voice) {
        self.open.remove(&slot);
        if let (Some(_), Some(members)) = (self.restricted.remove(&slot), voice.members()) {
            members.ids().for_each(|id| drop_from(&mut self.patients, id, slot));
            voice.group().into_iter().for_each(|id| drop_from(&mut self.groups, id, slot));
        }
    }

    /// What of a page may concern each; nothing concerns who is not among them.
    pub(super) fn parts<'p>(&self, page: &'p Page) -> Parts<'p> {
        let mut parts = Parts::new();
        for entry in page.all() {
            self.call(entry, |slot| {
                let part = parts.entry(slot).or_default();
                if !part.last().is_some_and(|last| std::ptr::eq(*last, entry)) {
                    part.push(entry);
                }
            });
        }
        parts
    }

    /// Calls whom a change may concern, some more than once.
    fn call(&self, entry: &Entry, mut call: impl FnMut(Slot)) {
        let (ty, id) = match &entry.change.kind {
            ChangeKind::Upsert { ty, id, .. } | ChangeKind::Delete { ty, id, .. } => {
                (*ty, Some(id))
            }
            ChangeKind::Replaced { ty } => (*ty, None),
            ChangeKind::Deferred { .. } => return,
        };
        of_type(&self.open, ty).for_each(&mut call);
        match id {
            // A group's members start over with it, whatever they carry.
            Some(id) if is_group(ty) => under(&self.groups, id).for_each(&mut call),
            None if is_group(ty) => self.groups.values().flatten().copied().for_each(&mut call),
            _ => {}
        }
        if of_type(&self.restricted, ty).next().is_none() {
            // Nobody asks whose it is.
            return;
        }
        match entry.patients_before() {
            Some(before) => {
                let patients = entry.patients().iter().chain(before);
                patients.flat_map(|id| under(&self.patients, id)).for_each(call);
            }
            // It may have been anybody's.
            None => of_type(&self.restricted, ty).for_each(call),
        }
    }
}

fn of_type(slots: &BTreeMap<Slot, TypeSet>, ty: ResourceType) -> impl Iterator<Item = Slot> {
    slots.iter().filter(move |(_, types)| types.contains(ty)).map(|(slot, _)| *slot)
}

fn under(slots: &HashMap<Box<str>, Vec<Slot>>, id: &str) -> impl Iterator<Item = Slot> {
    slots.get(id).into_iter().flatten().copied()
}

fn put(slots: &mut HashMap<Box<str>, Vec<Slot>>, id: &str, slot: Slot) {
    match slots.get_mut(id) {
        Some(known) => known.push(slot),
        None => drop(slots.insert(id.into(), vec![slot])),
    }
}

fn drop_from(slots: &mut HashMap<Box<str>, Vec<Slot>>, id: &str, slot: Slot) {
    if let Some(known) = slots.get_mut(id) {
        known.retain(|other| *other != slot);
        if known.is_empty() {
            slots.remove(id);
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
