//! The dashboard, in a real headless Chromium.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod access;
mod between;
mod browser;
mod cuts;
mod feed;
mod gaps;
mod large;
mod list;
mod model;
mod quiet;
mod silence;
mod states;
mod streams;
mod tabs;
