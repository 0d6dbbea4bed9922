//! Pure facts of FHIR R4 (4.0.1): types, instants, compartments, outcomes, resources.

pub mod bundle;
pub mod compartment;
pub(crate) mod element;
pub mod instant;
pub mod links;
pub mod outcome;
pub mod resource;
mod strict;
mod types;
pub mod walk;

pub use types::{ResourceType, TypeSet};
