//! Streams that carry a part of the store: `_typeFilter`, `_elements`, `patient`, POST; and what
//! leaves them.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod bodies;
mod leaving;
mod parts;
mod patients;
mod searches;
mod tools;
