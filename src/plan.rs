//! What a stream will carry: request and grant, checked against each other. Pure.

use std::{collections::HashSet, sync::Arc};

use crate::{
    fhir::{ResourceType, TypeSet, compartment},
    position::StableHash,
    store::Window,
};

/// What the caller may see. Authorization will make narrower ones; until then everybody who
/// reaches the server gets [`Grant::Everything`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// All resources.
    Everything,
}

/// Whose resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's and nobody's.
    System,
    /// What lies in any patient's compartment.
    Patients,
    /// What lies in the compartments of the group's members.
    Group(String),
}

/// What a stream carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose resources.
    pub scope: Scope,
    /// The types, in the order in which the history is read.
    pub types: Vec<ResourceType>,
    /// The same types, for the live part.
    pub type_set: TypeSet,
    /// `_since` and `_until`.
    pub window: Window,
    /// Whether the stream goes on after the history.
    pub follow: bool,
}

impl Plan {
    /// Plans a stream of `types` (`None`: all that the scope has).
    #[must_use]
    pub fn new(
        scope: Scope,
        types: Option<&[ResourceType]>,
        window: Window,
        follow: bool,
        grant: Grant,
    ) -> Self {
        let Grant::Everything = grant;
        let possible = scope.types();
        let wanted = types.map(|types| types.iter().copied().collect::<TypeSet>());
        let types: Vec<_> = ResourceType::all()
            .filter(|ty| possible.contains(*ty))
            .filter(|ty| wanted.is_none_or(|wanted| wanted.contains(*ty)))
            .collect();
        let type_set = types.iter().copied().collect();
        let follow = follow && window.before_ms.is_none();
        Self { scope, types, type_set, window, follow }
    }

    /// A hash of all that decides which resources the history holds: the same on each replica.
    #[must_use]
    pub fn query(&self) -> u32 {
        let bound = |ms: Option<i64>| ms.map_or(String::new(), |ms| ms.to_string());
        let scope = match &self.scope {
            Scope::System => "system".to_owned(),
            Scope::Patients => "patients".to_owned(),
            Scope::Group(id) => format!("group {id}"),
        };
        let start = StableHash::default()
            .with(scope.as_bytes())
            .with(bound(self.window.after_ms).as_bytes())
            .with(bound(self.window.before_ms).as_bytes());
        self.types.iter().fold(start, |hash, ty| hash.with(ty.name().as_bytes())).finish()
    }

    /// Where in the plan a type stands.
    #[must_use]
    pub fn index_of(&self, ty: ResourceType) -> Option<usize> {
        self.types.binary_search(&ty).ok()
    }

    /// Whether some resources of the plan's types are not the stream's.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.scope != Scope::System
    }
}

impl Scope {
    /// The types that can lie in this scope.
    #[must_use]
    pub fn types(&self) -> TypeSet {
        match self {
            Self::System => ResourceType::all().collect(),
            Self::Patients | Self::Group(_) => compartment::patient_types(),
        }
    }
}

/// The members of a group, as of one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    ids: Arc<HashSet<Box<str>>>,
    hash: u32,
}

impl Members {
    /// From sorted ids of patients.
    #[must_use]
    pub fn new(sorted: Vec<Box<str>>) -> Self {
        let hash = sorted.iter().fold(StableHash::default(), |hash, id| hash.with(id.as_bytes()));
        Self { ids: Arc::new(sorted.into_iter().collect()), hash: hash.finish() }
    }

    /// Whether the patient is a member.
    #[must_use]
    pub fn contains(&self, patient: &str) -> bool {
        self.ids.contains(patient)
    }

    /// Their ids, in no order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(AsRef::as_ref)
    }

    /// A hash of the members, for positions.
    #[must_use]
    pub fn hash(&self) -> u32 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(scope: Scope, types: Option<&[&str]>) -> Plan {
        let types: Option<Vec<_>> = types
            .map(|names| names.iter().map(|name| ResourceType::parse(name).unwrap()).collect());
        Plan::new(scope, types.as_deref(), Window::default(), true, Grant::Everything)
    }

    #[test]
    fn types_come_in_one_order_and_within_the_scope() {
        let named = plan(Scope::System, Some(&["Patient", "Observation", "Patient"]));
        let names: Vec<_> = named.types.iter().map(|ty| ty.name()).collect();
        assert_eq!(names, ["Observation", "Patient"]);
        assert_eq!(plan(Scope::System, None).types.len(), ResourceType::all().count());
        assert!(plan(Scope::Patients, Some(&["ValueSet"])).types.is_empty());
    }

    #[test]
    fn the_query_is_told_by_what_it_selects() {
        let base = plan(Scope::System, Some(&["Patient", "Observation"]));
        assert_eq!(base.query(), plan(Scope::System, Some(&["Observation", "Patient"])).query());
        let window = Window { after_ms: Some(5), before_ms: None };
        let others = [
            plan(Scope::System, Some(&["Patient"])),
            plan(Scope::Patients, Some(&["Patient", "Observation"])),
            plan(Scope::Group("1".into()), Some(&["Patient", "Observation"])),
            Plan { window, ..base.clone() },
            Plan { window: Window { after_ms: None, before_ms: Some(5) }, ..base.clone() },
        ];
        assert!(others.iter().all(|other| other.query() != base.query()));
    }

    #[test]
    fn until_never_goes_live() {
        let window = Window { after_ms: None, before_ms: Some(5) };
        assert!(!Plan::new(Scope::System, None, window, true, Grant::Everything).follow);
    }
}
