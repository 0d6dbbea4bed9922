//! What a stream will carry: request and grant, checked against each other. Pure.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use crate::{
    elements::Elements,
    fhir::{ResourceType, TypeSet, compartment},
    position::StableHash,
    store::Window,
    type_filter::TypeFilters,
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
    /// `_typeFilter`.
    pub filters: Arc<TypeFilters>,
    /// `_elements`.
    pub elements: Arc<Elements>,
    /// `patient`: only what lies in these compartments.
    pub patients: Option<Members>,
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
        Self {
            scope,
            types,
            type_set,
            window,
            filters: Arc::default(),
            elements: Arc::default(),
            patients: None,
            follow,
        }
    }

    /// A hash of all that decides what the history holds: the same on each replica.
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
        let types = self.types.iter().fold(start, |hash, ty| hash.with(ty.name().as_bytes()));
        let hash = self.elements.hashed(self.filters.hashed(types));
        let patients =
            |patients: &Members| hash.with(b"patient").with(&patients.hash.to_be_bytes());
        self.patients.as_ref().map_or(hash, patients).finish()
    }

    /// Where in the plan a type stands.
    #[must_use]
    pub fn index_of(&self, ty: ResourceType) -> Option<usize> {
        self.types.binary_search(&ty).ok()
    }

    /// Whether only what lies in some compartments is the stream's.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.scope != Scope::System
    }

    /// Whether some resources of the type are not the stream's.
    #[must_use]
    pub fn narrows(&self, ty: ResourceType) -> bool {
        self.is_restricted() || self.filters.narrow(ty)
    }

    /// In whose compartments the stream's resources lie, given its group's members; `None`: in
    /// anybody's or nobody's.
    #[must_use]
    pub fn members(&self, of_group: Option<Members>) -> Option<Members> {
        match &self.scope {
            Scope::Group(_) => of_group.map(|members| members.among(self.patients.as_ref())),
            Scope::System | Scope::Patients => self.patients.clone(),
        }
    }

    /// What of it the live part is: where that is equal, and a group's members are, the same
    /// changes are carried.
    #[must_use]
    pub fn live(&self) -> Self {
        Self { window: Window::default(), ..self.clone() }
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

/// Patients: the members of a group, as of one instant, or those whom a request names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    ids: Arc<HashSet<Box<str>>>,
    hash: u32,
    fixed: bool,
}

impl Members {
    /// From sorted ids of patients.
    #[must_use]
    pub fn new(sorted: Vec<Box<str>>) -> Self {
        let hash = sorted.iter().fold(StableHash::default(), |hash, id| hash.with(id.as_bytes()));
        Self { ids: Arc::new(sorted.into_iter().collect()), hash: hash.finish(), fixed: false }
    }

    /// Those whom a request names: its stream's never change.
    #[must_use]
    pub fn fixed(ids: BTreeSet<Box<str>>) -> Self {
        Self { fixed: true, ..Self::new(ids.into_iter().collect()) }
    }

    /// Those of them who are also among others, where there are any.
    #[must_use]
    pub fn among(self, others: Option<&Self>) -> Self {
        let Some(others) = others else { return self };
        let both: BTreeSet<_> = self.ids.iter().filter(|id| others.contains(id)).cloned().collect();
        Self { fixed: self.fixed, ..Self::new(both.into_iter().collect()) }
    }

    /// Their ids, in no order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(AsRef::as_ref)
    }

    /// Whether the patient is a member.
    #[must_use]
    pub fn contains(&self, patient: &str) -> bool {
        self.ids.contains(patient)
    }

    /// A hash of the members, for positions: those who never change stand in none.
    #[must_use]
    pub fn hash(&self) -> Option<u32> {
        (!self.fixed).then_some(self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Context;

    fn plan(scope: Scope, types: Option<&[&str]>) -> Plan {
        let types: Option<Vec<_>> = types
            .map(|names| names.iter().map(|name| ResourceType::parse(name).unwrap()).collect());
        Plan::new(scope, types.as_deref(), Window::default(), true, Grant::Everything)
    }

    fn filters(value: &str) -> Arc<TypeFilters> {
        Arc::new(TypeFilters::parse(&[value.into()], Context::default()).unwrap().0)
    }

    fn elements(value: &str) -> Arc<Elements> {
        Arc::new(Elements::parse(&[value.into()]).unwrap())
    }

    fn patients(ids: &[&str]) -> Members {
        Members::fixed(ids.iter().map(|id| (*id).into()).collect())
    }

    #[test]
    fn who_is_named_and_a_member() {
        let group = || Members::new(vec!["1".into(), "2".into()]);
        let named = patients(&["2", "3"]);
        let plan = |scope, named| Plan { patients: named, ..plan(scope, None) };
        let of_group = |named| plan(Scope::Group("g".into()), named).members(Some(group()));
        assert_eq!(of_group(None), Some(group()));
        assert_eq!(of_group(Some(named.clone())), Some(Members::new(vec!["2".into()])));
        assert_eq!(plan(Scope::Patients, Some(named.clone())).members(None), Some(named.clone()));
        assert_eq!(plan(Scope::Patients, None).members(None), None);
        assert_eq!((named.hash(), group().hash().is_some()), (None, true));
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
            Plan { filters: filters("Patient?active=true"), ..base.clone() },
            Plan { filters: filters("Patient?active=false"), ..base.clone() },
            Plan { elements: elements("name"), ..base.clone() },
            Plan { elements: elements("Patient.name"), ..base.clone() },
            Plan { patients: Some(patients(&["1"])), ..base.clone() },
            Plan { patients: Some(patients(&["1", "2"])), ..base.clone() },
        ];
        assert!(others.iter().all(|other| other.query() != base.query()));
        let hashes: HashSet<_> = others.iter().map(Plan::query).collect();
        assert_eq!(hashes.len(), others.len());
        let heard_as_base = others.iter().filter(|other| other.live() == base.live());
        assert_eq!(heard_as_base.count(), 2, "windows bound the history alone");
    }

    #[test]
    fn until_never_goes_live() {
        let window = Window { after_ms: None, before_ms: Some(5) };
        assert!(!Plan::new(Scope::System, None, window, true, Grant::Everything).follow);
    }
}
