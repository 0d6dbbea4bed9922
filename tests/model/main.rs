//! The model: sessions, hub, ring and lanes as they are, over a simulated store and a clock that
//! only the schedule moves. No I/O.
//!
//! A schedule is drawn from a seed: what is written, when snapshots expire, the log trims and the
//! store is away, and where clients stall, cut and resume. After each id that a client hears, its
//! copy must be what the store held at that position. A schedule that fails is shrunk and printed.
//!
//! ```text
//! FHIRTAIL_MODEL_SCHEDULES=1000000 cargo test --test model      more of them
//! FHIRTAIL_MODEL_SEED=42 cargo test --test model                one of them
//! ```
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    reason = "the modules of one test program; a model that can't go on has failed"
)]
#![allow(clippy::print_stdout, reason = "a run says how much it has tried")]

mod carrier;
mod changes;
mod client;
mod known;
mod lookups;
mod replica;
mod run;
mod schedule;
mod search;
mod snapshot;
mod store;
mod world;

use schedule::Schedule;

/// How many schedules are tried unless somebody asks for more.
const SCHEDULES: u64 = 15_000;

fn asked<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| match text.parse() {
        Ok(number) => number,
        Err(_) => panic!("{name} is no number: {text}"),
    })
}

#[test]
fn no_schedule_makes_a_copy_differ() {
    let seeds = match asked("FHIRTAIL_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("FHIRTAIL_MODEL_SCHEDULES").unwrap_or(SCHEDULES),
    };
    match search::search(seeds) {
        Ok(tally) => println!("{tally}"),
        Err(failed) => panic!("{failed}"),
    }
}

#[test]
fn a_schedule_runs_the_same_way_twice() {
    for seed in 0..50 {
        let schedule = Schedule::drawn(seed);
        assert_eq!(run::run(&schedule), run::run(&schedule), "seed {seed}");
    }
}
