//! The MongoDB store against a real mongod.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "mongo_store/commit.rs"]
mod commit;
#[path = "mongo_store/connect.rs"]
mod connect;
#[path = "mongo_store/handoff.rs"]
mod handoff;
#[path = "mongo_store/log.rs"]
mod log;
#[path = "mongo_store/lookup.rs"]
mod lookup;
#[path = "mongo_store/majority.rs"]
mod majority;
#[path = "mongo_store/narrow/mod.rs"]
mod narrow;
#[path = "mongo_store/rules.rs"]
mod rules;
#[path = "mongo_store/silence.rs"]
mod silence;
#[path = "mongo_store/snapshot.rs"]
mod snapshot;
#[path = "mongo_store/stretches.rs"]
mod stretches;
#[path = "mongo_store/tools.rs"]
mod tools;
