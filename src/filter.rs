//! Which changes are a stream's own: one decision, on the stored resource. Pure.

use bytes::Bytes;

use crate::{
    fhir::{ResourceType, compartment},
    live::Entry,
    plan::{Members, Plan, Scope},
    store::{Change, ChangeKind},
};

/// What a change means to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Skip,
    /// The stream carries the resource as it is now.
    Upsert,
    /// The resource is no longer the stream's: deleted, or gone from its compartment.
    Gone,
    /// The stream can't tell by this change alone what it holds: it starts over. Says why.
    Reset(String),
}

/// A plan with its group's members: decides about resources and changes.
#[derive(Debug, Clone)]
pub struct Filter<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The members of the plan's group, where it has one.
    pub members: Option<&'a Members>,
}

impl Filter<'_> {
    /// Whether a stored resource of one of the plan's types is the stream's.
    #[must_use]
    pub fn holds(&self, ty: ResourceType, id: &str, json: &Bytes) -> bool {
        if !self.plan.is_restricted() {
            return true;
        }
        self.is_theirs(&compartment::patients_of(ty, id, json).unwrap_or_default())
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
            ChangeKind::Upsert { .. } if self.holds_now(entry) => Verdict::Upsert,
            ChangeKind::Upsert { ty, .. } | ChangeKind::Delete { ty, .. } => self.left(*ty, entry),
            ChangeKind::Replaced { .. } => Verdict::Skip,
        }
    }

    fn holds_now(&self, entry: &Entry) -> bool {
        !self.plan.is_restricted() || self.is_theirs(entry.patients())
    }

    /// A resource is not the stream's any more. Was it?
    fn left(&self, ty: ResourceType, entry: &Entry) -> Verdict {
        if !self.plan.is_restricted() {
            return Verdict::Gone;
        }
        match entry.patients_before() {
            Some(patients) if self.is_theirs(patients) => Verdict::Gone,
            Some(_) => Verdict::Skip,
            None => Verdict::Reset(format!(
                "a {ty} changed, and without its before-image nobody can tell whether it was in \
                 this compartment"
            )),
        }
    }

    /// Whether a change gives the plan's group other members, or takes it away.
    fn group_moved(&self, change: &Change) -> Option<String> {
        let (Scope::Group(group), Some(members)) = (&self.plan.scope, self.members) else {
            return None;
        };
        let moved = match &change.kind {
            ChangeKind::Upsert { ty, id, json, .. } if is_group(*ty) && **id == **group => {
                members_of(json).as_ref() != Some(members)
            }
            ChangeKind::Delete { ty, id, .. } => is_group(*ty) && **id == **group,
            ChangeKind::Replaced { ty } => is_group(*ty),
            ChangeKind::Upsert { .. } => false,
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
