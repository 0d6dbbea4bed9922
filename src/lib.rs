//! fhirtail: `tail -f` for FHIR.
pub mod client;
pub mod demo;
pub mod error;
pub mod fhir;
pub mod http;
pub mod position;
pub mod store;
