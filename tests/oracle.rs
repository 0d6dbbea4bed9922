//! The oracle itself: it finds nothing in what an honest server sends, whatever is cut and
//! resumed, and finds each fault that is planted.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod support;

use std::collections::BTreeMap;

use fhirtail::{
    client::sse::{Event, Item},
    position::LogPosition,
};
use serde_json::{Value, json};
use support::{
    chaos::Dice,
    oracle::{
        journal::{Commit, Journal, What},
        judge::{Kind, Verdict, judge},
        transcript::{Seen, Transcript},
    },
};

const TYPES: [&str; 2] = ["Observation", "Patient"];

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

fn live(at: LogPosition) -> String {
    format!("1l~e~{}.{}.{}", at.time >> 32, base36(at.time), base36(at.consumed.into()))
}

fn history(at: LogPosition, url: &str) -> String {
    let (name, id) = url.split_once('/').expect("Type/id");
    let ty = TYPES.iter().position(|ty| *ty == name).expect("a type");
    format!("1h{}~q~{ty}~i{id}", &live(at)[2..])
}

fn said(event: &str, id: String, data: String) -> Seen {
    Seen::Said(Item::Event(Event { event: event.into(), id, data }))
}

fn control(name: &str, at: LogPosition) -> Seen {
    said(name, live(at), "{}".into())
}

/// What a client knows that has seen this.
fn last_id(seen: &[Seen]) -> Option<String> {
    let id = seen.iter().rev().find_map(|seen| match seen {
        Seen::Said(Item::Event(event)) => Some(event.id.clone()),
        Seen::Said(Item::Checkpoint(id)) => Some(id.clone()),
        _ => None,
    });
    id.filter(|id| !id.is_empty())
}

/// A server that does as it should, and a client that is cut now and then.
struct Honest<'j> {
    journal: &'j Journal,
    dice: Dice,
    seen: Vec<Seen>,
    /// What is written while it sends.
    now: u64,
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
        let (name, data) = match commit.what.value() {
            Some(value) => (value["resourceType"].as_str().expect("a type"), value.to_string()),
            None => ("deleted", json!({"resourceType": "Bundle", "entry": entry}).to_string()),
        };
        self.seen.push(said(name, id, data));
    }

    /// The history, in as many snapshots as it takes. Returns where it becomes live.
    fn history(&mut self) -> LogPosition {
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
                if commit.url <= cursor && is_wanted(&commit.url) {
                    self.send(commit, history(commit.at, &cursor));
                }
            }
            at = end.max(at);
        }
    }

    fn live(&mut self, mut at: LogPosition) {
        let journal = self.journal;
        let mut caught_up = false;
        for index in journal.between(at, LogPosition::past(u64::MAX - 1)) {
            let commit = journal.get(index);
            if !caught_up && commit.at.time > self.now {
                self.seen.push(control("caught-up", at));
                caught_up = true;
            }
            if is_wanted(&commit.url) {
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

fn is_wanted(url: &str) -> bool {
    TYPES.iter().any(|ty| url.starts_with(ty))
}

fn honest(seed: u64) -> (Journal, Transcript) {
    let mut dice = Dice(seed);
    let journal = journal(&mut dice);
    let mut server = Honest { journal: &journal, dice, seen: Vec::new(), now: 20 };
    let at = server.history();
    server.live(at);
    let seen = server.seen;
    (journal, Transcript { seen })
}

fn verdict(journal: &Journal, transcript: &Transcript) -> Verdict {
    judge(journal, &TYPES, transcript, Some(journal.end()))
}

#[test]
fn an_honest_server_is_found_honest() {
    for seed in 0..2_000 {
        let (journal, transcript) = honest(seed);
        let verdict = verdict(&journal, &transcript);
        assert!(verdict.faults.is_empty(), "{seed}: {:#?}", verdict.faults);
        assert!(verdict.events > 10 && verdict.connections > 0, "{seed}: {verdict:?}");
    }
}

fn event(seen: &Seen) -> Option<&Event> {
    match seen {
        Seen::Said(Item::Event(event)) => Some(event),
        _ => None,
    }
}

fn event_mut(seen: &mut Seen) -> &mut Event {
    match seen {
        Seen::Said(Item::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

/// Where such events stand, but for the transcript's last.
fn places(transcript: &Transcript, fits: impl Fn(&Event) -> bool) -> Vec<usize> {
    let events = transcript.seen.iter().enumerate();
    let fitting = events.filter(|(_, seen)| event(seen).is_some_and(&fits));
    let mut places: Vec<usize> = fitting.map(|(at, _)| at).collect();
    places.retain(|at| at + 1 < transcript.seen.len());
    places
}

fn is_resource(event: &Event) -> bool {
    TYPES.contains(&event.event.as_str())
}

fn is_live(event: &Event) -> bool {
    event.id.starts_with("1l")
}

/// Plants a fault wherever one can be, in many transcripts: each is found to be of one of these
/// kinds, and no transcript is without.
fn planted(
    kinds: &[Kind],
    fits: impl Fn(&Event) -> bool,
    plant: impl Fn(&mut Vec<Seen>, usize) -> bool,
) {
    let mut count = 0;
    for seed in 0..60 {
        let (journal, transcript) = honest(seed);
        for at in places(&transcript, &fits) {
            let mut faulty = transcript.clone();
            if !plant(&mut faulty.seen, at) {
                continue;
            }
            count += 1;
            let verdict = verdict(&journal, &faulty);
            let found = verdict.faults.iter().any(|fault| kinds.contains(&fault.kind));
            assert!(found, "{seed}, {at}: {:?} → {:#?}", faulty.seen[at], verdict.faults);
        }
    }
    assert!(count > 50, "{count}");
}

/// The line after it is sent on the same connection, and is an event.
fn goes_on(seen: &[Seen], at: usize) -> bool {
    seen.get(at + 1).and_then(event).is_some()
}

#[test]
fn a_dropped_event_is_missing() {
    // In the history only if nothing newer of it comes before the client is live.
    planted(
        &[Kind::Missing],
        |e| is_resource(e) && is_live(e),
        |seen, at| {
            let ok = goes_on(seen, at);
            seen.remove(at);
            ok
        },
    );
}

#[test]
fn a_resource_that_the_history_leaves_out_is_missing() {
    planted(
        &[Kind::Missing],
        |e| is_resource(e) && !is_live(e),
        |seen, at| {
            let gone = event_mut(&mut seen[at]).data.clone();
            let gone: Value = serde_json::from_str(&gone).expect("JSON");
            let again = |seen: &Seen| {
                event(seen).is_some_and(|event| {
                    let id = format!(r#""id":"{}""#, gone["id"].as_str().expect("an id"));
                    let url = format!("/{}\"", gone["id"].as_str().expect("an id"));
                    !is_live(event) && (event.data.contains(&id) || event.data.contains(&url))
                })
            };
            let ok = goes_on(seen, at) && !seen[at + 1..].iter().any(again);
            seen.remove(at);
            ok
        },
    );
}

#[test]
fn a_lost_deletion_is_missing() {
    planted(
        &[Kind::Missing],
        |e| e.event == "deleted" && is_live(e),
        |seen, at| {
            let ok = goes_on(seen, at);
            seen.remove(at);
            ok
        },
    );
}

#[test]
fn an_event_sent_twice_is_repeated() {
    planted(
        &[Kind::Repeated],
        |e| is_resource(e) || e.event == "deleted",
        |seen, at| {
            seen.insert(at, seen[at].clone());
            true
        },
    );
}

#[test]
fn swapped_events_are_out_of_order() {
    planted(
        &[Kind::OutOfOrder],
        |e| is_resource(e) && is_live(e),
        |seen, at| {
            let next = seen.get(at + 1).and_then(event);
            let both = next.is_some_and(|next| is_resource(next) || next.event == "deleted");
            if both {
                seen.swap(at, at + 1);
            }
            both
        },
    );
}

/// The data of a later event of the same resource, that many later.
fn later(seen: &mut [Seen], at: usize, count: usize) -> Option<&mut String> {
    let id = |data: &str| serde_json::from_str::<Value>(data).expect("JSON")["id"].clone();
    let this = event(&seen[at]).expect("an event").clone();
    let same = |event: &Event| event.event == this.event && id(&event.data) == id(&this.data);
    let later = seen[at + 1..].iter_mut().filter(|seen| event(seen).is_some_and(same));
    later.map(|seen| &mut event_mut(seen).data).nth(count)
}

#[test]
fn a_version_under_the_next_ones_id_is_repeated() {
    // Out of order where it was deleted in between.
    planted(&[Kind::Repeated, Kind::OutOfOrder], is_resource, |seen, at| {
        let data = event_mut(&mut seen[at]).data.clone();
        later(seen, at, 0).map(|later| *later = data).is_some()
    });
}

#[test]
fn a_version_after_a_newer_one_is_out_of_order() {
    planted(&[Kind::OutOfOrder], is_resource, |seen, at| {
        let data = event_mut(&mut seen[at]).data.clone();
        later(seen, at, 1).map(|later| *later = data).is_some()
    });
}

#[test]
fn other_content_is_wrong() {
    planted(&[Kind::Wrong], is_resource, |seen, at| {
        let event = event_mut(&mut seen[at]);
        event.data = event.data.replace(r#""language":"w"#, r#""language":"v"#);
        true
    });
}

#[test]
fn another_type_is_wrong() {
    planted(&[Kind::Wrong], is_resource, |seen, at| {
        "Basic".clone_into(&mut event_mut(&mut seen[at]).event);
        true
    });
}

#[test]
fn what_comes_after_caught_up_too_early_is_late() {
    planted(
        &[Kind::Missing, Kind::Untrue, Kind::OutOfOrder],
        |e| e.event == "caught-up",
        |seen, at| {
            // Before all that its connection brought until then.
            let start = seen[..at].iter().rposition(|seen| matches!(seen, Seen::Connected { .. }));
            let first = start.expect("a connection") + 1;
            let early = first < at && event(&seen[first]).is_some_and(|e| e.event != "fell-behind");
            if early {
                let told = seen.remove(at);
                seen.insert(first, told);
            }
            early
        },
    );
}

#[test]
fn a_client_that_has_not_all_misses_it() {
    for seed in 0..60 {
        let (journal, mut transcript) = honest(seed);
        let last = transcript.seen.iter().rposition(|seen| event(seen).is_some_and(is_resource));
        transcript.seen.truncate(last.expect("a resource"));
        let verdict = verdict(&journal, &transcript);
        assert!(verdict.count(Kind::Missing) > 0, "{seed}: {:?}", verdict.faults);
    }
}

#[test]
fn a_resume_from_now_is_missing_what_lies_between() {
    planted(
        &[Kind::Missing],
        |e| is_resource(e) && is_live(e),
        |seen, at| {
            // Two events are lost, and the client is connected anew in their place.
            let lost = seen.get(at + 1).and_then(event).is_some_and(is_resource);
            if lost {
                seen[at] = Seen::Connected { from: last_id(&seen[..at]), written: 0 };
                seen.remove(at + 1);
            }
            lost && at + 1 < seen.len()
        },
    );
}

#[test]
fn after_a_reset_all_comes_again() {
    for seed in 0..60 {
        let (mut journal, transcript) = honest(seed);
        let mut seen = transcript.seen.clone();
        seen.push(said("reset", String::new(), "{}".into()));
        // Nothing of it was left, but streams of its type start over.
        let unasked = verdict(&journal, &Transcript { seen: seen.clone() });
        assert_eq!(unasked.count(Kind::Untrue), 1, "{seed}: {unasked:?}");
        journal.sweep(LogPosition { time: 60, consumed: 1 }, "Patient");
        // A stream that is silent after it has lost everything.
        let silent = verdict(&journal, &Transcript { seen: seen.clone() });
        assert!(silent.count(Kind::Missing) > 3 && silent.resets == 1, "{seed}: {silent:?}");
        // And one that starts over.
        let mut again = Honest { journal: &journal, dice: Dice(seed), seen, now: 60 };
        let at = again.history();
        again.live(at);
        let whole = verdict(&journal, &Transcript { seen: again.seen });
        assert!(whole.faults.is_empty(), "{seed}: {:?}", whole.faults);
    }
}

/// A collection that goes as a whole can only be told by a reset.
#[test]
fn a_dropped_collection_needs_a_reset() {
    let (mut journal, mut transcript) = honest(1);
    let at = LogPosition { time: 100, consumed: 1 };
    let there: Vec<String> = journal
        .resources()
        .filter(|(url, of)| {
            let last = *of.last().expect("a commit");
            url.starts_with("Patient") && journal.get(last).what.value().is_some()
        })
        .map(|(url, _)| url.to_owned())
        .collect();
    for url in &there {
        journal.push(Commit { at, url: url.clone(), what: What::Swept(None), exact: true });
    }
    journal.sweep(at, "Patient");
    let missing = verdict(&journal, &transcript);
    assert_eq!(missing.count(Kind::Missing), there.len(), "{missing:?}");
    transcript.seen.push(said("reset", String::new(), "{}".into()));
    let mut rest = Honest { journal: &journal, dice: Dice(7), seen: Vec::new(), now: 100 };
    rest.history();
    let rest = rest.seen.into_iter().filter(|seen| !matches!(seen, Seen::Connected { .. }));
    transcript.seen.extend(rest);
    let told = verdict(&journal, &transcript);
    assert!(told.faults.is_empty(), "{:?}", told.faults);
}

/// A history that is read after its collection was dropped holds nothing of it: its client must
/// hear of the drop before it hears that it has all.
#[test]
fn a_history_of_what_was_dropped_is_not_caught_up() {
    let mut journal = Journal::default();
    let value = |n: u64| json!({"resourceType": "Patient", "id": "1", "language": format!("w{n}")});
    let whats = [What::Is(value(1)), What::Is(value(2)), What::Swept(None)];
    let place = |time| LogPosition { time, consumed: 1 };
    for (time, what) in [1, 2, 9].into_iter().zip(whats) {
        let at = place(time);
        journal.push(Commit { at, url: "Patient/1".into(), what, exact: true });
    }
    journal.sweep(place(9), "Patient");
    let at = place(2);
    let update = said("Patient", live(at), value(2).to_string());
    let reset = said("reset", String::new(), "{}".into());
    let of = |said: &[&Seen]| {
        let mut seen = vec![Seen::Connected { from: None, written: 0 }];
        seen.extend(said.iter().map(|said| (*said).clone()));
        verdict(&journal, &Transcript { seen })
    };
    let empty = control("caught-up", place(9));
    let honest = of(&[&update, &reset, &empty]);
    assert!(honest.faults.is_empty(), "{:?}", honest.faults);
    for hasty in [at, place(8)] {
        let hasty = of(&[&update, &control("caught-up", hasty), &reset, &empty]);
        assert_eq!(hasty.count(Kind::Missing), 1, "{hasty:?}");
    }
}

/// A patient that is put, updated three times without a document in the log, and does what is said.
struct Updated {
    journal: Journal,
}

impl Updated {
    fn then(last: Option<What>) -> Self {
        let mut journal = Journal::default();
        let updates = (1..=4).map(|n| What::Is(Self::value(n)));
        for (n, what) in (1..).zip(updates.chain(last)) {
            let exact = n == 1 || n == 5;
            journal.push(Commit { at: Self::at(n), url: "Patient/1".into(), what, exact });
        }
        Self { journal }
    }

    fn value(n: u64) -> Value {
        json!({"resourceType": "Patient", "id": "1", "language": format!("w{n}")})
    }

    const fn at(time: u64) -> LogPosition {
        LogPosition { time, consumed: 1 }
    }

    /// A version under a place.
    fn update(at: u64, version: u64) -> Seen {
        said("Patient", live(Self::at(at)), Self::value(version).to_string())
    }

    fn checkpoint(at: u64) -> Seen {
        Seen::Said(Item::Checkpoint(live(Self::at(at))))
    }

    fn deleted(at: u64) -> Seen {
        let entry = json!([{"request": {"method": "DELETE", "url": "Patient/1"}}]);
        said("deleted", live(Self::at(at)), json!({"entry": entry}).to_string())
    }

    /// What is said of a client that was live before all that, and was, or was not, there to the end.
    fn verdict(&self, said: Vec<Seen>, end: Option<LogPosition>) -> Verdict {
        let begun = control("caught-up", LogPosition::before(1));
        let mut seen = vec![Seen::Connected { from: None, written: 0 }, begun];
        seen.extend(said);
        judge(&self.journal, &TYPES, &Transcript { seen }, end)
    }

    fn of(&self, said: Vec<Seen>) -> Verdict {
        self.verdict(said, Some(self.journal.end()))
    }
}

/// An update that comes without its document may bring a later one; the versions in between are
/// then not missing, and none of them may follow.
#[test]
fn a_document_that_was_looked_up_stands_for_those_before_it() {
    let update = Updated::update;
    let updated = Updated::then(None);
    let of = |said| updated.of(said);
    for honest in [
        vec![update(1, 1), update(2, 2), update(3, 3), update(4, 4)],
        vec![update(1, 1), update(2, 4)],
        vec![update(1, 1), update(4, 4)],
        vec![update(1, 1), update(2, 3), Updated::checkpoint(3), update(4, 4)],
    ] {
        let verdict = of(honest);
        assert!(verdict.faults.is_empty(), "{:?}", verdict.faults);
    }
    assert_eq!(of(vec![update(2, 4)]).count(Kind::Missing), 1);
    assert_eq!(of(vec![update(1, 1), update(2, 3)]).count(Kind::Missing), 1);
    assert_eq!(of(vec![update(1, 1), update(2, 4), update(4, 4)]).count(Kind::Repeated), 1);
    assert_eq!(of(vec![update(1, 1), update(2, 4), update(3, 3)]).count(Kind::OutOfOrder), 1);
}

/// What is left out for a later version is missing once the client is told that it has all up to
/// there: the version that comes after that does not make it good. It need not be there to the end.
#[test]
fn an_update_that_is_left_out_for_nothing_is_missing() {
    let (update, checkpoint) = (Updated::update, Updated::checkpoint);
    let updated = Updated::then(Some(What::Is(Updated::value(5))));
    let caught_up = || {
        let seen = vec![Seen::Connected { from: Some(live(Updated::at(1))), written: 0 }];
        seen.into_iter().chain([control("caught-up", Updated::at(3))])
    };
    for mut late in [
        vec![update(1, 1), checkpoint(3)],
        vec![update(1, 1), update(2, 2), checkpoint(4)],
        [update(1, 1)].into_iter().chain(caught_up()).collect(),
    ] {
        let verdict = updated.verdict(late.clone(), None);
        assert_eq!(verdict.count(Kind::Missing), 1, "{late:?}: {verdict:?}");
        late.push(update(5, 5));
        let verdict = updated.of(late);
        assert!(verdict.count(Kind::Missing) > 0, "{verdict:?}");
    }
}

/// Only where a deletion follows nothing may have been found.
#[test]
fn an_update_of_what_is_gone_is_left_out_until_the_deletion() {
    let update = Updated::update;
    let updated = Updated::then(Some(What::Gone));
    let seen = vec![update(1, 1), Updated::checkpoint(3), Updated::deleted(5)];
    let verdict = updated.of(seen.clone());
    assert!(verdict.faults.is_empty(), "{:?}", verdict.faults);
    let verdict = updated.of(seen[..2].to_vec());
    assert_eq!(verdict.count(Kind::Missing), 2, "{verdict:?}");
}

/// A snapshot has what was there, however it was written: nothing is looked up.
#[test]
fn an_update_that_the_history_leaves_out_is_missing() {
    let updated = Updated::then(Some(What::Is(Updated::value(5))));
    let scanned = |version: u64, time: u64| {
        let id = history(LogPosition::past(time), "Patient/1");
        said("Patient", id, Updated::value(version).to_string())
    };
    // Another resource, so that it is known as of when was read.
    let mut journal = Journal::default();
    let other = json!({"resourceType": "Observation", "id": "1"});
    let first = LogPosition { time: 0, consumed: 1 };
    journal.push(Commit {
        at: first,
        url: "Observation/1".into(),
        what: What::Is(other.clone()),
        exact: true,
    });
    (0..updated.journal.len()).for_each(|n| journal.push(updated.journal.get(n).clone()));
    let other = |time: u64| {
        let id = history(LogPosition::past(time), "Observation/1");
        said("Observation", id, other.to_string())
    };
    let of = |said: Vec<Seen>| {
        let mut seen = vec![Seen::Connected { from: None, written: 0 }];
        seen.extend(said);
        judge(&journal, &TYPES, &Transcript { seen }, None)
    };
    let honest = of(vec![other(3), scanned(3, 3), Updated::update(4, 4), Updated::update(5, 5)]);
    assert!(honest.faults.is_empty(), "{:?}", honest.faults);
    // What comes right after does not make good what the history has left out, or had older.
    for left_out in [
        vec![other(3), Updated::update(4, 4)],
        vec![other(3), Updated::update(5, 5)],
        vec![other(3), scanned(2, 3), Updated::update(4, 4)],
    ] {
        let verdict = of(left_out);
        assert!(!verdict.faults.is_empty(), "{verdict:?}");
    }
    // Replayed, it may give way to what comes.
    let mut cut = vec![other(1), scanned(1, 1)];
    cut.push(Seen::Connected { from: last_id(&cut), written: 0 });
    cut.push(Updated::update(4, 4));
    let honest = of(cut);
    assert!(honest.faults.is_empty(), "{:?}", honest.faults);
}

/// Only a server without a place for it, or one that stops, may turn a client away at once.
#[test]
fn a_stream_that_fails_at_once_is_not_turned_away() {
    let of = |code: &str, text: &str| {
        let issue = json!([{"severity": "error", "code": code, "diagnostics": text}]);
        let outcome = json!({"resourceType": "OperationOutcome", "issue": issue}).to_string();
        let seen = vec![
            Seen::Connected { from: None, written: 0 },
            said("OperationOutcome", String::new(), outcome),
        ];
        judge(&Journal::default(), &TYPES, &Transcript { seen }, None)
    };
    let stopping = "the store does not answer: this server is stopping";
    for allowed in [of("throttled", "too many"), of("transient", stopping)] {
        assert!(allowed.faults.is_empty() && allowed.turned_away == 1, "{allowed:?}");
    }
    for failed in [of("exception", "a defect"), of("transient", "the store does not answer: x")] {
        assert_eq!((failed.count(Kind::Untrue), failed.turned_away), (1, 0), "{failed:?}");
    }
}

#[test]
fn a_writers_lost_write_is_found() {
    let mut journal = Journal::default();
    let value = |n: u64| json!({"language": format!("w{n}")});
    let whats = [What::Is(value(1)), What::Gone, What::Is(value(2)), What::Is(value(3))];
    for (time, what) in (1..).zip(whats) {
        let at = LogPosition { time, consumed: 1 };
        journal.push(Commit { at, url: "Patient/1".into(), what, exact: true });
    }
    let put = |n| ("Patient/1".to_owned(), Some(value(n)));
    let gone = ("Patient/1".to_owned(), None);
    // What was not acknowledged may be there all the same.
    let held = [put(1), gone.clone(), put(3)];
    assert_eq!(journal.find(&held), [Some(0), Some(1), Some(3)]);
    assert_eq!(journal.find(&[put(1), put(9)]), [Some(0), None]);
    // A deletion of before is not this one.
    assert_eq!(journal.find(&[put(2), gone.clone(), put(3)]), [Some(2), None, Some(3)]);
    assert_eq!(journal.find(&[put(1), gone.clone(), gone]), [Some(0), Some(1), None]);
}
