//! The decision: the values that a query reads, each put to its tests.

use super::{
    clues, reference,
    table::{Data, Path},
    test::{Test, Wanted},
};
use crate::{fhir::walk::Tree, store::Clue};

/// All that a resource is to pass, and where the values for it are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    conditions: Vec<Condition>,
    paths: Tree<Leaf>,
    clues: Vec<Clue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    test: Test,
    wanted: Wanted,
    /// The data type of what stands for a value where there is none.
    default: Option<Data>,
}

/// A value is compared, as this data type, for this condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaf {
    condition: usize,
    data: Data,
}

/// What has been found for a condition.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    value: bool,
    fit: bool,
}

impl Conditions {
    /// Adds what a resource is to pass too.
    pub(super) fn add(&mut self, paths: &[Path], test: Test, wanted: Wanted) {
        self.clues.extend(clues::clue(paths, &test, wanted));
        let condition = self.conditions.len();
        let mut default = None;
        for Path { steps, data } in paths {
            match steps.as_slice() {
                [] => default = Some(*data),
                steps => self.paths.add(steps, Leaf { condition, data: *data }),
            }
        }
        self.conditions.push(Condition { test, wanted, default });
    }

    /// What all resources have that pass.
    pub(super) fn clues(&self) -> &[Clue] {
        &self.clues
    }

    /// Whether every resource passes.
    pub(super) fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether a stored resource passes all. What is no JSON passes none.
    pub(super) fn pass(&self, json: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut found = vec![Found::default(); self.conditions.len()];
        let compare = |leaf: &Leaf, raw: &str| {
            let condition = self.conditions.get(leaf.condition);
            if let (Some(condition), Some(found)) = (condition, found.get_mut(leaf.condition)) {
                condition.compare(leaf.data, raw, found);
            }
        };
        self.paths.walk(json, compare).is_ok()
            && self.conditions.iter().zip(found).all(|(condition, found)| condition.passes(found))
    }
}

impl Condition {
    fn compare(&self, data: Data, raw: &str, found: &mut Found) {
        if let Data::Reference(Some(ty)) = data
            && !reference::is_to(ty, raw)
        {
            return;
        }
        found.value = true;
        found.fit = found.fit || self.test.fits(data, raw);
    }

    fn passes(&self, mut found: Found) -> bool {
        if let (false, Some(data)) = (found.value, self.default) {
            found = Found { value: true, fit: self.test.fits(data, "") };
        }
        self.wanted.passes(found.value, found.fit)
    }
}
