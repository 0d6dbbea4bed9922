//! Where resources lie in the database: as data, so that another server's layout can be added.

use std::borrow::Cow;

use crate::fhir::ResourceType;

/// The member that keeps the spelling of decimals which BSON would print otherwise:
/// `[n, text, n, text, …]` for the n-th decimal of the document.
pub(super) const LEXICAL: &str = "_lexical";

/// Tombstones: `{_id: "Patient/42", version: 7}`.
pub(crate) const DELETED: &str = "fhirtail_deleted";

/// A collection of ours that no resource type can collide with: its UUID stands for the log
/// where the replica set's own id may not be read.
pub(crate) const OWN: &str = "fhirtail";

/// A layout of resources in collections.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// What a collection's name adds to its type's.
    suffix: &'static str,
    /// Top-level members that are the store's own and never leave it.
    own_members: &'static [&'static str],
}

impl Layout {
    /// One collection per type, named like it; `_id` is the resource's id (an ObjectId stands
    /// for its 24 hex digits); `meta.lastUpdated` is a date. A document has the members of its
    /// resource in their order, but for an `id` right after `resourceType`, which `_id` tells.
    pub(crate) const fn native() -> Self {
        Self { suffix: "", own_members: &["_id", LEXICAL] }
    }

    /// The collection of a type.
    pub(super) fn collection_of(&self, ty: ResourceType) -> Cow<'static, str> {
        match self.suffix {
            "" => ty.name().into(),
            suffix => format!("{ty}{suffix}").into(),
        }
    }

    /// The type whose resources a collection holds.
    pub(crate) fn type_of(&self, collection: &str) -> Option<ResourceType> {
        collection.strip_suffix(self.suffix).and_then(ResourceType::parse)
    }

    /// Whether a top-level member never leaves the store.
    pub(super) fn is_own(&self, member: &[u8]) -> bool {
        self.own_members.iter().any(|own| own.as_bytes() == member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_types_have_collections() {
        let layout = Layout::native();
        for ty in ResourceType::all() {
            assert_eq!(layout.type_of(&layout.collection_of(ty)), Some(ty));
        }
        for other in [OWN, DELETED, "system.views", "patient", "Patients", ""] {
            assert_eq!(layout.type_of(other), None, "{other}");
        }
    }
}
