//! The write side over real HTTP, against an embedded store of its own.
#![allow(clippy::expect_used, reason = "a helper that can't go on has failed its test")]

mod app;
mod bundles;
mod refusals;
mod resources;
