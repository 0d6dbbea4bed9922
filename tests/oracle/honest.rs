//! A log, and what a server that does as it should sends of it to a client that is cut now and then.

use std::collections::BTreeMap;

use fhirtail::{
    client::sse::{Event, Item},
    position::LogPosition,
};
use serde_json::json;

use support::{
    chaos::Dice,
    oracle::{
        journal::{Commit, Journal, What},
        judge::{Asked, judge},
        transcript::{Seen, Transcript},
        verdict::Verdict,
    },
};

pub(crate) const TYPES: [&str; 2] = ["Observation", "Patient"];

/// A log of some types, single commits and transactions, and now and then a deletion.
fn journal(dice: &mut Dice) -> Journal {
    let mut journal = Journal::default();
    let mut there = BTreeMap::<String, bool>::new();
    for time in 1..60u64 {
        for consumed in 1..=[1, 1, 3][dice.below(3)] {
            let ty = ["Basic", "Observation", "Patient", "Patient"][dice.below(4)];
            let id = format!("{}", dice.below(6) * 4 + consumed as usize);
            let url = format!("{ty}/{id}");
            let is_there = there.entry(url.clone()).or_default();
            let deletes = *is_there && dice.roll(3) == 0;
            *is_there = !deletes;
            let stamp = format!("w{time}.{consumed}");
            let what = match deletes {
                true => What::Gone,
                false => What::Is(json!({"resourceType": ty, "id": id, "language": stamp})),
            };
            let at = LogPosition { time, consumed };
            journal.push(Commit { at, url, what, exact: true });
        }
    }
    journal
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).expect("a digit"));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

pub(crate) fn live(at: LogPosition) -> String {
    format!("1l~e~{}.{}.{}", at.time >> 32, base36(at.time), base36(at.consumed.into()))
}

pub(crate) fn history(at: LogPosition, url: &str) -> String {
    let (name, id) = url.split_once('/').expect("Type/id");
    let ty = TYPES.iter().position(|ty| *ty == name).expect("a type");
    format!("1h{}~q~{ty}~i{id}", &live(at)[2..])
}

pub(crate) fn said(event: &str, id: String, data: String) -> Seen {
    Seen::Said(Item::Event(Event { event: event.into(), id, data }))
}

pub(crate) fn control(name: &str, at: LogPosition) -> Seen {
    said(name, live(at), "{}".into())
}

/// What a client knows that has seen this.
pub(crate) fn last_id(seen: &[Seen]) -> Option<String> {
    let id = seen.iter().rev().find_map(|seen| match seen {
        Seen::Said(Item::Event(event)) => Some(event.id.clone()),
        Seen::Said(Item::Checkpoint(id)) => Some(id.clone()),
        _ => None,
    });
    id.filter(|id| !id.is_empty())
}

/// A server that does as it should, and a client that is cut now and then.
pub(crate) struct Honest<'j> {
    pub(crate) journal: &'j Journal,
    pub(crate) dice: Dice,
    pub(crate) seen: Vec<Seen>,
    /// What is written while it sends.
    pub(crate) now: u64,
}

impl Honest<'_> {
    fn connect(&mut self) {
        self.now += self.dice.roll(5);
        let from = last_id(&self.seen);
        self.seen.push(Seen::Connected { from, written: self.now });
    }

    fn send(&mut self, commit: &Commit, id: String) {
        let url = &commit.url;
        let entry = json!([{"request": {"method": "DELETE", "url": url}}]);
        let mut bundle = json!({"resourceType": "Bundle", "entry": entry});
        if commit.what == What::Left {
            bundle["meta"] = json!({"tag": [{"code": "left-stream"}]});
        }
        let (name, data) = match commit.what.value() {
            Some(value) => (value["resourceType"].as_str().expect("a type"), value.to_string()),
            None => ("deleted", bundle.to_string()),
        };
        self.seen.push(said(name, id, data));
    }

    /// The history, in as many snapshots as it takes. Returns where it becomes live.
    pub(crate) fn history(&mut self) -> LogPosition {
        let journal = self.journal;
        self.connect();
        let mut at = LogPosition::past(self.now);
        let mut cursor = String::new();
        loop {
            let mut cut = false;
            for (url, commits) in journal.resources() {
                if url <= cursor.as_str() || !is_wanted(url) {
                    continue;
                }
                let commit = journal.last_before(commits, at).map(|index| journal.get(index));
                let Some(commit) = commit.filter(|commit| commit.what.value().is_some()) else {
                    continue;
                };
                self.send(commit, history(at, url));
                url.clone_into(&mut cursor);
                cut = self.dice.roll(8) == 0;
                if cut {
                    break;
                }
            }
            if !cut {
                return at;
            }
            self.connect();
            let end = LogPosition::past(self.now);
            for index in journal.between(at, end) {
                let commit = journal.get(index);
                if commit.url <= cursor && is_told(commit) {
                    self.send(commit, history(commit.at, &cursor));
                }
            }
            at = end.max(at);
        }
    }

    pub(crate) fn live(&mut self, mut at: LogPosition) {
        let journal = self.journal;
        let mut caught_up = false;
        for index in journal.between(at, LogPosition::past(u64::MAX - 1)) {
            let commit = journal.get(index);
            if !caught_up && commit.at.time > self.now {
                self.seen.push(control("caught-up", at));
                caught_up = true;
            }
            if is_told(commit) {
                self.send(commit, live(commit.at));
            }
            at = commit.at;
            self.now = self.now.max(at.time);
            match self.dice.roll(12) {
                0 => self.seen.push(Seen::Said(Item::Checkpoint(live(at)))),
                1 if caught_up => {
                    self.seen.push(control("fell-behind", at));
                    caught_up = false;
                }
                2 => {
                    self.connect();
                    caught_up = false;
                }
                _ => {}
            }
        }
    }
}

fn is_told(commit: &Commit) -> bool {
    commit.what != What::Unseen && is_wanted(&commit.url)
}

fn is_wanted(url: &str) -> bool {
    TYPES.iter().any(|ty| url.starts_with(ty))
}

pub(crate) fn honest(seed: u64) -> (Journal, Transcript) {
    let mut dice = Dice(seed);
    let journal = journal(&mut dice);
    let mut server = Honest { journal: &journal, dice, seen: Vec::new(), now: 20 };
    let at = server.history();
    server.live(at);
    let seen = server.seen;
    (journal, Transcript { seen })
}

pub(crate) fn verdict(journal: &Journal, transcript: &Transcript) -> Verdict {
    judge(journal, Asked::all(&TYPES), transcript, Some(journal.end()))
}
