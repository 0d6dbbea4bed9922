//! Clients.
pub mod sse;
