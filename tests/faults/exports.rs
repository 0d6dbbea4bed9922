//! Clients that ask for the history as lines, again and again for as long as a run lasts. A body may
//! break off; what comes to its end must make what was held at one place, says the oracle, and once all
//! is at rest one does.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use axum::http::{StatusCode, header};
use serde_json::Value;
use support::{
    chaos::Dice,
    oracle::{
        journal::Journal,
        judge::exports::{Held, judge_export},
        verdict::Fault,
    },
    replica::folded,
    stream::client,
};
use tokio::{task::JoinHandle, time::sleep};

use crate::{crowd::Part, lab::TYPES, shared::Shared, writers};

const DEADLINE: Duration = Duration::from_secs(60);
/// For how long a client does not read on in the midst of every second export: so that what happens
/// meanwhile happens to it.
const IDLE: Duration = Duration::from_secs(3);

/// What lies between observations and patients where a history is read, and is more than buffers hold.
pub(crate) const BALLAST: &str = "Organization";

/// What one of them saw.
pub(crate) struct Saw {
    part: Part,
    /// What came to its end: how many writes were acknowledged when it was asked for, and what it makes.
    whole: Vec<(usize, Result<Held, String>)>,
    /// How many of these told of one resource twice: they went on in a newer snapshot.
    renewed: usize,
    broken: usize,
    turned_away: usize,
}

pub(crate) struct Exports(Vec<JoinHandle<Saw>>);

impl Exports {
    /// So many clients, and what makes their exports large. Every second one asks for a part.
    pub(crate) async fn start(shared: &Arc<Shared>, count: u64) -> Self {
        if count > 0 {
            writers::fill(shared, BALLAST).await;
        }
        let start = |seed: u64| {
            let part = if seed % 2 == 1 { Part::Final } else { Part::All };
            let (whole, [renewed, broken, turned_away]) = Default::default();
            let reader = Reader {
                shared: shared.clone(),
                http: client(),
                dice: Dice(seed ^ 0x11e5),
                read: HashMap::new(),
                saw: Saw { part, whole, renewed, broken, turned_away },
            };
            tokio::spawn(reader.run())
        };
        Self((0..count).map(start).collect())
    }

    /// Each has had one that was asked for once all was at rest.
    pub(crate) async fn end(self) -> Vec<Saw> {
        let mut saw = Vec::new();
        for reader in self.0 {
            let ended = tokio::time::timeout(DEADLINE, reader).await;
            saw.push(ended.expect("an export at rest is whole").expect("no panic"));
        }
        saw
    }
}

struct Reader {
    shared: Arc<Shared>,
    http: reqwest::Client,
    dice: Dice,
    /// The lines that came before: most come again.
    read: HashMap<String, Arc<Value>>,
    saw: Saw,
}

impl Reader {
    async fn run(mut self) -> Saw {
        loop {
            let (at_rest, asked) = (self.shared.rest.load(SeqCst), self.shared.acknowledged());
            let Some(answer) = self.ask().await else {
                self.saw.turned_away += 1;
                sleep(Duration::from_millis(10 + self.dice.roll(90))).await;
                continue;
            };
            match self.read(answer).await {
                Some(lines) => self.take(asked, &lines),
                None => self.saw.broken += 1,
            }
            if at_rest && self.saw.whole.last().is_some_and(|(last, _)| *last == asked) {
                return self.saw;
            }
        }
    }

    fn is_calm(&self) -> bool {
        self.shared.calm.load(SeqCst)
    }

    /// `None`: nobody answers, or not now.
    async fn ask(&mut self) -> Option<reqwest::Response> {
        let urls = self.shared.urls();
        let base = urls.get(self.dice.below(urls.len().max(1)))?;
        let types = [TYPES[0], BALLAST, TYPES[1]].join(",");
        let narrowed = match self.saw.part {
            Part::Final => "&_typeFilter=Observation%3Fstatus%3Dfinal",
            _ => "",
        };
        let asks = self.http.get(format!("{base}/fhir/$export?_type={types}{narrowed}"));
        let answer = asks.header(header::ACCEPT, "application/fhir+ndjson").send().await.ok()?;
        match answer.status() {
            StatusCode::OK => Some(answer),
            StatusCode::SERVICE_UNAVAILABLE => None,
            other => panic!("{other}: {:?}", answer.text().await),
        }
    }

    /// Reads, now and then with a rest where it has begun; `None`: it breaks off.
    async fn read(&mut self, mut answer: reqwest::Response) -> Option<String> {
        let (mut lines, mut rests) = (Vec::new(), self.dice.roll(2) == 0);
        while let Some(chunk) = answer.chunk().await.ok()? {
            lines.extend_from_slice(&chunk);
            if std::mem::take(&mut rests) {
                self.rest().await;
            }
        }
        Some(String::from_utf8(lines).expect("UTF-8"))
    }

    async fn rest(&self) {
        let end = Instant::now() + IDLE;
        while !self.is_calm() && Instant::now() < end {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn take(&mut self, asked: usize, lines: &str) {
        let held = folded(lines).map(|copy| {
            let renewed = lines.lines().filter(|line| !line.is_empty()).count() > copy.len();
            self.saw.renewed += usize::from(renewed);
            self.shared.renewed.fetch_add(usize::from(renewed), SeqCst);
            copy.into_iter().map(|(url, line)| (url, self.value(line))).collect()
        });
        self.saw.whole.push((asked, held));
    }

    fn value(&mut self, line: String) -> Arc<Value> {
        let read = || Arc::new(serde_json::from_str(&line).expect("it was read once"));
        match self.read.get(&line) {
            Some(value) => value.clone(),
            None => {
                let value: Arc<Value> = read();
                self.read.insert(line, value.clone());
                value
            }
        }
    }
}

/// What the oracle says of all of them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    whole: usize,
    renewed: usize,
    broken: usize,
    turned_away: usize,
    faults: Vec<String>,
}

impl Tally {
    /// `narrowed`: the journal of whoever asks for a part. `times`: the cluster time of the newest of
    /// so many acknowledged writes.
    pub(crate) fn of(
        saw: Vec<Saw>,
        journal: &Journal,
        narrowed: &[(Part, Journal)],
        times: &[u64],
    ) -> Self {
        let mut tally = Self::default();
        let types = [TYPES[0], BALLAST, TYPES[1]];
        for Saw { part, whole, renewed, broken, turned_away } in saw {
            let journal = narrowed.iter().find(|(of, _)| *of == part).map_or(journal, |(_, of)| of);
            tally.whole += whole.len();
            tally.renewed += renewed;
            tally.broken += broken;
            tally.turned_away += turned_away;
            for (asked, held) in whole {
                let judged = held.and_then(|held| {
                    let judged = judge_export(journal, &types, times[asked], &held);
                    judged.map_err(|Fault { kind, what, .. }| format!("{kind:?}: {what:.500}"))
                });
                tally.faults.extend(judged.err());
            }
        }
        tally
    }

    pub(crate) fn assert_clean(&self) {
        let few: Vec<_> = self.faults.iter().take(3).collect();
        assert!(few.is_empty(), "{} exports: {few:#?}", self.faults.len());
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whole, renewed, broken, turned_away, faults } = self;
        write!(
            f,
            "exports {whole} ({renewed} in several snapshots, {broken} broken off, \
             {turned_away} turned away, {} wrong)",
            faults.len()
        )
    }
}
