//! Writers at full speed: creates, updates, deletions and transactions, by a seed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use fhirtail::store::Store;
use serde_json::Value;

use super::writes::{commit, delete, group, observation, patient, put};

/// A small generator: the same numbers for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % sides
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll(end as u64)).expect("a small number")
    }
}

/// The types that chaos writes.
pub const TYPES: [&str; 3] = ["Group", "Observation", "Patient"];

/// How many patients and observations there are to write to.
pub const PATIENTS: usize = 60;
pub const OBSERVATIONS: usize = 400;

static STAMP: AtomicU64 = AtomicU64::new(0);

/// A text that no other write has.
pub fn stamp() -> String {
    format!("w{}", STAMP.fetch_add(1, Ordering::Relaxed))
}

/// One random resource; each with a text of its own.
pub fn resource(dice: &mut Dice) -> Value {
    match dice.roll(8) {
        0 => patient(dice.below(PATIENTS), &stamp()),
        _ => observation(dice.below(OBSERVATIONS), dice.below(PATIENTS), &stamp()),
    }
}

/// Writes `commits` times through the store: single writes, deletions, transactions.
pub async fn write(store: Arc<dyn Store>, seed: u64, commits: usize) {
    let mut dice = Dice(seed);
    for _ in 0..commits {
        let mut writes = Vec::new();
        for _ in 0..[1, 1, 1, 5][dice.below(4)] {
            let next = match dice.roll(4) {
                0 => delete("Observation", &format!("o{}", dice.below(OBSERVATIONS))),
                _ => put(&resource(&mut dice)),
            };
            // A transaction names a resource once.
            if writes.iter().all(|other: &fhirtail::store::Write| other.id != next.id) {
                writes.push(next);
            }
        }
        commit(store.as_ref(), writes).await;
    }
}

/// A group of the first patients.
pub async fn write_group(store: &dyn Store, members: usize) {
    let members: Vec<_> = (0..members).collect();
    commit(store, vec![put(&group("g", &members))]).await;
}
