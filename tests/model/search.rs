//! Looks for a schedule that fails, and for the shortest that still does.

use std::{
    fmt,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::Instant,
};

use crate::{
    replica::{Counts, Wrong},
    run::run,
    schedule::{Schedule, Step},
};

/// What a search has tried.
#[derive(Default)]
pub struct Tally {
    pub schedules: u64,
    pub steps: u64,
    pub heard: Counts,
    pub seconds: f64,
}

/// A schedule that fails.
pub struct Failed {
    seed: u64,
    wrong: Wrong,
    steps: usize,
    shortest: Schedule,
    wrong_then: Wrong,
}

/// Runs the schedules of these seeds, on as many threads as there are cores.
pub fn search(seeds: Range<u64>) -> Result<Tally, Box<Failed>> {
    let next = AtomicU64::new(seeds.start);
    let first_wrong = AtomicU64::new(u64::MAX);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let work = || try_all(&next, seeds.end, &first_wrong);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a search")).collect()
    });
    match first_wrong.load(SeqCst) {
        u64::MAX => {
            let mut all = Tally { seconds: began.elapsed().as_secs_f64(), ..Tally::default() };
            tallies.iter().for_each(|tally| all.add(tally));
            Ok(all)
        }
        seed => Err(Box::new(fail(seed))),
    }
}

/// Tries seeds in order until there are no more, or one below has failed.
fn try_all(next: &AtomicU64, end: u64, first_wrong: &AtomicU64) -> Tally {
    let mut tally = Tally::default();
    loop {
        let seed = next.fetch_add(1, SeqCst);
        if seed >= end.min(first_wrong.load(SeqCst)) {
            return tally;
        }
        let schedule = Schedule::drawn(seed);
        match run(&schedule) {
            Ok(heard) => {
                tally.schedules += 1;
                tally.steps += schedule.steps.len() as u64;
                heard.iter().for_each(|counts| tally.heard.add(counts));
            }
            Err(_) => drop(first_wrong.fetch_min(seed, SeqCst)),
        }
    }
}

fn fail(seed: u64) -> Failed {
    let mut shortest = Schedule::drawn(seed);
    let steps = shortest.steps.len();
    let wrong = run(&shortest).err().unwrap_or_else(|| "nothing, the second time".into());
    shrink(&mut shortest);
    let wrong_then = run(&shortest).err().unwrap_or_else(|| "nothing".into());
    Failed { seed, wrong, steps, shortest, wrong_then }
}

/// Leaves out stretches, then steps, then parts of steps, for as long as it still fails. The
/// first step stays: there is always a group.
fn shrink(schedule: &mut Schedule) {
    let mut length = schedule.steps.len() / 2;
    while length > 0 {
        let mut at = 1;
        let mut shrunk = false;
        while at < schedule.steps.len() {
            let mut less = schedule.clone();
            less.steps.drain(at..(at + length).min(less.steps.len()));
            match run(&less).is_err() {
                true => (*schedule, shrunk) = (less, true),
                false => at += length,
            }
        }
        if !(length == 1 && shrunk) {
            length /= 2;
        }
    }
    for at in 1..schedule.steps.len() {
        simplify(schedule, at);
    }
}

/// Makes transactions smaller, and pauses none.
fn simplify(schedule: &mut Schedule, at: usize) {
    let mut part = 0;
    loop {
        let mut less = schedule.clone();
        match &mut less.steps[at] {
            Step::Commit(ops) if ops.len() > 1 && part < ops.len() => drop(ops.remove(part)),
            Step::Take { patience, .. } if *patience > 0 && part == 0 => *patience = 0,
            Step::Take { events, .. } if *events > 1 && part < 2 => *events -= 1,
            Step::Pause(ms) if *ms > 0 && part == 0 => *ms = 0,
            _ => return,
        }
        match run(&less).is_err() {
            true => *schedule = less,
            false => part += 1,
        }
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.heard.add(&other.heard);
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.checkpoints += other.checkpoints;
        self.caught_up += other.caught_up;
        self.fell_behind += other.fell_behind;
        self.resets += other.resets;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, steps, heard, seconds } = self;
        write!(f, "{schedules} schedules of {steps} steps in {seconds:.1} s: {heard:?}")
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, wrong, steps, shortest, wrong_then } = self;
        writeln!(f, "seed {seed} fails with {steps} steps: {wrong}")?;
        writeln!(f, "\nthe shortest like it has {}: {wrong_then}", shortest.steps.len())?;
        writeln!(f, "\n{:?}", shortest.knobs)?;
        for (n, query) in shortest.queries.iter().enumerate() {
            writeln!(f, "client {n}: {query:?}")?;
        }
        for (n, step) in shortest.steps.iter().enumerate() {
            writeln!(f, "{n:3} {step:?}")?;
        }
        writeln!(f, "\nagain: FHIRTAIL_MODEL_SEED={seed} cargo test --test model")
    }
}
