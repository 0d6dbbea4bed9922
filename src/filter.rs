//! Which changes are a stream's own: one decision, on the stored resource. Pure.

use bytes::Bytes;

use crate::{
    fhir::{ResourceType, compartment},
    live::Entry,
    plan::{Members, Plan, Scope},
    store::{Before, Change, ChangeKind},
};

/// What a change means to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Skip,
    /// The stream carries the resource as it is now.
    Upsert,
    /// The resource is no longer the stream's: deleted, or gone from its compartments or from
    /// what its searches find.
    Gone,
    /// The stream can't tell by this change alone what it holds: it starts over. Says why.
    Reset(String),
}

/// A plan with the members that it has at the moment: decides about resources and changes.
#[derive(Debug, Clone)]
pub struct Filter<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// In whose compartments its resources lie, where that is not anybody's: see
    /// [`Plan::members`].
    pub members: Option<&'a Members>,
}

impl Filter<'_> {
    /// Whether a stored resource of one of the plan's types is the stream's.
    #[must_use]
    pub fn holds(&self, ty: ResourceType, id: &str, json: &Bytes) -> bool {
        let is_theirs =
            || self.is_theirs(&compartment::patients_of(ty, id, json).unwrap_or_default());
        (!self.plan.is_restricted() || is_theirs()) && self.plan.filters.find(ty, json)
    }

    /// Whether what is in these patients' compartments is the stream's.
    fn is_theirs(&self, patients: &[Box<str>]) -> bool {
        match self.members {
            None => !patients.is_empty(),
            Some(members) => patients.iter().any(|patient| members.contains(patient)),
        }
    }

    /// What a change means to the stream.
    #[must_use]
    pub fn verdict(&self, entry: &Entry) -> Verdict {
        if let Some(why) = self.group_moved(&entry.change) {
            return Verdict::Reset(why);
        }
        match &entry.change.kind {
            ChangeKind::Replaced { ty } if self.plan.type_set.contains(*ty) => {
                Verdict::Reset(format!("all {ty} resources were dropped or replaced at once"))
            }
            ChangeKind::Upsert { ty, .. } | ChangeKind::Delete { ty, .. }
                if !self.plan.type_set.contains(*ty) =>
            {
                Verdict::Skip
            }
            ChangeKind::Upsert { ty, json, .. } if self.holds_now(*ty, json, entry) => {
                Verdict::Upsert
            }
            ChangeKind::Upsert { ty, .. } | ChangeKind::Delete { ty, .. } => self.left(*ty, entry),
            ChangeKind::Deferred { .. } | ChangeKind::Replaced { .. } => Verdict::Skip,
        }
    }

    fn holds_now(&self, ty: ResourceType, json: &Bytes, entry: &Entry) -> bool {
        let is_theirs = || self.is_theirs(entry.patients());
        (!self.plan.is_restricted() || is_theirs()) && self.plan.filters.find(ty, json)
    }

    /// A resource is not the stream's any more. Was it?
    fn left(&self, ty: ResourceType, entry: &Entry) -> Verdict {
        match self.held_before(ty, entry) {
            Some(true) => Verdict::Gone,
            Some(false) => Verdict::Skip,
            // Where its id is no secret, who never had it loses nothing by a deletion.
            None if !self.plan.is_restricted() || self.is_theirs(entry.patients()) => Verdict::Gone,
            None => Verdict::Reset(format!(
                "a {ty} changed, and without its before-image nobody can tell whether it was in \
                 this compartment"
            )),
        }
    }

    /// Whether a resource was the stream's before the change. `None`: there is no telling.
    fn held_before(&self, ty: ResourceType, entry: &Entry) -> Option<bool> {
        if !self.plan.narrows(ty) {
            return Some(true);
        }
        let before = entry.change.kind.before();
        if matches!(before, Before::Absent) {
            return Some(false);
        }
        let was_theirs = !self.plan.is_restricted() || self.is_theirs(entry.patients_before()?);
        match was_theirs && self.plan.filters.narrow(ty) {
            true => before.json().map(|json| self.plan.filters.find(ty, &json)),
            false => Some(was_theirs),
        }
    }

    /// Whether a change gives the plan's group other members, or takes it away.
    fn group_moved(&self, change: &Change) -> Option<String> {
        let (Scope::Group(group), Some(members)) = (&self.plan.scope, self.members) else {
            return None;
        };
        let moved = match &change.kind {
            ChangeKind::Upsert { ty, id, json, .. } if is_group(*ty) && **id == **group => {
                let now = members_of(json).map(|now| now.among(self.plan.patients.as_ref()));
                now.as_ref() != Some(members)
            }
            ChangeKind::Delete { ty, id, .. } => is_group(*ty) && **id == **group,
            ChangeKind::Replaced { ty } => is_group(*ty),
            ChangeKind::Upsert { .. } | ChangeKind::Deferred { .. } => false,
        };
        moved.then(|| format!("the members of Group/{group} have changed"))
    }
}

pub(crate) fn is_group(ty: ResourceType) -> bool {
    ty.name() == "Group"
}

/// The members that a stored group names; `None` where its members can't be read.
#[must_use]
pub fn members_of(group: &[u8]) -> Option<Members> {
    compartment::group_members(group).ok().map(Members::new)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
