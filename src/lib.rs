//! fhirtail: `tail -f` for FHIR.
//!
//! The modules stand in the order in which a request, and then the data, goes through them:
//! a [`request`] becomes a [`plan`]; the plan's [`history`] is read from a [`store`] as it was
//! at one instant T, then the change log is followed after T ([`live`]); a [`session`] turns
//! both into [`frame`]s, and [`http`] writes those to a socket. A [`position`] names any point
//! on that way. [`check`] looks at a store from outside.

pub mod check;
pub mod client;
pub mod config;
pub mod connection;
pub mod demo;
pub mod elements;
pub mod error;
pub mod fhir;
mod files;
pub mod filter;
pub mod frame;
pub mod history;
pub mod http;
pub mod live;
pub mod plan;
pub mod position;
pub mod request;
pub mod search;
mod seldom;
pub mod server;
pub mod session;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod type_filter;
mod words;
