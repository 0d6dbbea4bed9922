//! Changes to come: new values, gaps that close and open again, patients who come and go.
//!
//! It may run for weeks: what it adds beyond the population is bounded, and every reference
//! stays whole.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Population,
    person::{self, Gap, Measure, Person},
    put, resources,
    rng::Rng,
};
use crate::{
    fhir::ResourceType,
    store::{Action, Expect, Store, Write},
};

/// So many Observations of the pulse are kept; the oldest go.
const KEPT: usize = 1000;
/// So many patients come beyond the population; then the one who came first makes room.
const NEWCOMERS: usize = 40;
/// After a write that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Writes about `rate` changes per second to a store that holds the population, until `stop` is
/// cancelled. Run it as a task and wait for its end: a commit is never broken off.
pub async fn pulse(
    store: Arc<dyn Store>,
    population: Population,
    rate: f64,
    stop: CancellationToken,
) {
    let Some(mut beats) = beats(rate).filter(|_| population.patients > 0) else { return };
    let mut pulse = Pulse::new(population);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = beats.tick() => {}
        }
        let writes = pulse.beat(Timestamp::now());
        if let Err(error) = store.commit(writes).await {
            tracing::warn!(%error, "the demo's writes fail");
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }
}

fn beats(rate: f64) -> Option<Interval> {
    let period = Duration::try_from_secs_f64(1.0 / rate).ok().filter(|period| !period.is_zero())?;
    let mut beats = interval(period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(beats)
}

struct Pulse {
    population: Population,
    rng: Rng,
    /// Observations so far: their ids come round.
    count: usize,
    observations: VecDeque<Id>,
    newcomers: VecDeque<Newcomer>,
    arrivals: usize,
    /// Where the gaps stand that have moved.
    gaps: HashMap<(usize, Measure), Gap>,
}

type Id = String;

/// A patient beyond the population, and all that hangs on them.
struct Newcomer {
    number: usize,
    names: Vec<(ResourceType, Id)>,
}

impl Pulse {
    fn new(population: Population) -> Self {
        Self {
            population,
            rng: Rng::new(population.seed, 2, 0),
            count: 0,
            observations: VecDeque::new(),
            newcomers: VecDeque::new(),
            arrivals: 0,
            gaps: HashMap::new(),
        }
    }

    /// What happens next, as one commit.
    fn beat(&mut self, now: Timestamp) -> Vec<Write> {
        let at = crate::fhir::instant::text(now);
        match self.rng.within(0, 99) {
            0..70 => self.observation(&at),
            70..94 => self.gap_moves(&at),
            94..97 => self.arrival(),
            _ => self.removal(&at),
        }
    }

    fn someone(&mut self) -> Person {
        let number = 1 + self.rng.below(self.population.patients);
        Person::new(self.population.seed, number)
    }

    fn observation(&mut self, at: &str) -> Vec<Write> {
        let person = self.someone();
        // Ids come round after twice as many as are kept: no living one is met.
        let id = format!("live-{:04}", self.count % (2 * KEPT));
        self.count += 1;
        let resource = if person.is_diabetic && self.rng.percent(60) {
            let test = person::hba1c(&mut self.rng, 0);
            resources::hba1c(&person, &id, test, at)
        } else {
            let pressure = person::pressure(&mut self.rng, 0, person.is_hypertensive);
            resources::blood_pressure(&person, &id, pressure, at)
        };
        self.observations.push_back(id);
        let oldest = self.observations.len() > KEPT;
        let oldest = oldest.then(|| self.observations.pop_front()).flatten();
        resource.and_then(put).into_iter().chain(oldest.and_then(delete_observation)).collect()
    }

    /// Mostly a gap closes; now and then, or when none is found open, one opens again.
    fn gap_moves(&mut self, at: &str) -> Vec<Write> {
        let closes = self.rng.percent(75);
        let mut found = None;
        for _ in 0..32 {
            let person = self.someone();
            let measures: Vec<_> = person.measures().collect();
            if measures.is_empty() {
                continue;
            }
            let measure = measures[self.rng.below(measures.len())];
            let stands = self.gaps.get(&(person.number, measure)).copied();
            let is_open = stands.unwrap_or_else(|| person.gap(measure)) != Gap::Closed;
            found = Some((person, measure, is_open));
            if is_open == closes {
                break;
            }
        }
        let Some((person, measure, is_open)) = found else { return self.observation(at) };
        let gap = if is_open { Gap::Closed } else { Gap::Open };
        self.gaps.insert((person.number, measure), gap);
        resources::standing(&person, measure, gap, at)
            .into_iter()
            .flatten()
            .filter_map(put)
            .collect()
    }

    /// A patient comes with all their records; the one who came first goes where it gets crowded.
    fn arrival(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        if self.newcomers.len() >= NEWCOMERS {
            writes.extend(self.departure());
        }
        // Numbers come round like the ids of Observations.
        let number = self.population.patients + 1 + self.arrivals % (2 * NEWCOMERS);
        self.arrivals += 1;
        let person = Person::new(self.population.seed, number);
        let records: Vec<_> = resources::of_person(&person).into_iter().filter_map(put).collect();
        let names = records.iter().map(|write| (write.ty, write.id.clone())).collect();
        self.newcomers.push_back(Newcomer { number, names });
        writes.extend(records);
        writes
    }

    fn departure(&mut self) -> Vec<Write> {
        let Some(Newcomer { number, names }) = self.newcomers.pop_front() else {
            return Vec::new();
        };
        tracing::debug!(patient = resources::patient_id(number), "a demo patient goes");
        // What refers goes before what is referred to.
        names.into_iter().rev().map(|(ty, id)| delete(ty, id)).collect()
    }

    /// An Observation was entered in error, or a patient goes.
    fn removal(&mut self, at: &str) -> Vec<Write> {
        if self.rng.percent(20) && !self.newcomers.is_empty() {
            return self.departure();
        }
        match self.observations.pop_front().and_then(delete_observation) {
            Some(write) => vec![write],
            None => self.observation(at),
        }
    }
}

fn delete_observation(id: Id) -> Option<Write> {
    ResourceType::parse("Observation").map(|ty| delete(ty, id))
}

fn delete(ty: ResourceType, id: Id) -> Write {
    Write { ty, id, action: Action::Delete, expect: Expect::Any }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::store::embedded::{EmbeddedOptions, EmbeddedStore};

    /// A world that only holds names, and checks every write against them.
    #[test]
    fn hours_of_pulse_stay_bounded_and_whole() {
        let population = Population::new(3, 60);
        let name = |write: &Write| format!("{}/{}", write.ty, write.id);
        let base: HashSet<_> =
            population.resources().filter_map(put).map(|write| name(&write)).collect();
        let mut names = base.clone();
        let mut pulse = Pulse::new(population);
        let (mut deletes, mut closings) = (0, 0);
        for _ in 0..20_000 {
            let writes = pulse.beat(Timestamp::UNIX_EPOCH);
            let named: HashSet<_> = writes.iter().map(name).collect();
            assert!(!writes.is_empty() && named.len() == writes.len());
            for write in &writes {
                match &write.action {
                    Action::Delete => {
                        deletes += 1;
                        assert!(names.remove(&name(write)), "{} is not there", name(write));
                    }
                    Action::Put(resource) => {
                        let text = String::from_utf8_lossy(&resource.to_json()).into_owned();
                        closings += usize::from(text.contains("closed-gap"));
                        names.insert(name(write));
                    }
                }
            }
        }
        assert!(base.is_subset(&names));
        assert!(names.len() < base.len() + KEPT + NEWCOMERS * 20, "{}", names.len());
        assert!(deletes > 1000 && closings > 1000, "{deletes} deletes, {closings} closings");
    }

    #[tokio::test]
    async fn populates_once_and_beats_until_it_is_stopped() {
        let folder = tempfile::tempdir().expect("a folder");
        let store =
            EmbeddedStore::open(folder.path(), EmbeddedOptions::default()).expect("a store");
        let population = Population::new(1, 300);
        let all = population.resources().count() as u64;
        assert_eq!(super::super::populate(&*store, population).await.expect("written"), all);
        assert_eq!(super::super::populate(&*store, population).await.expect("written"), 0);

        let before = store.head().await.expect("a head");
        let stop = CancellationToken::new();
        let beating = tokio::spawn(pulse(store.clone(), population, 1000.0, stop.clone()));
        let mut changes = store.changes(before).await.expect("changes");
        let mut seen = 0;
        while seen < 50 {
            seen += changes.next().await.expect("a batch").changes.len();
        }
        stop.cancel();
        beating.await.expect("no panic");
        store.close().await;
    }
}
