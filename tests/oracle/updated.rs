//! Updates that come without their document, which is looked up.

use fhirtail::{client::sse::Item, position::LogPosition};
use serde_json::{Value, json};
use support::oracle::{
    journal::{Commit, Journal, What},
    judge::{Asked, judge},
    transcript::{Seen, Transcript},
    verdict::{Kind, Verdict},
};

use crate::honest::{TYPES, control, history, last_id, live, said};

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

    /// It comes again with the id of a place, and is told at another one that it has all.
    fn caught_up(from: u64, at: u64) -> [Seen; 2] {
        let from = Some(live(Self::at(from)));
        [Seen::Connected { from, written: 0 }, control("caught-up", Self::at(at))]
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
        judge(&self.journal, Asked::all(&TYPES), &Transcript { seen }, end)
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

/// What is left out for a later version is missing once the client is told that it has all: the
/// version that comes after that does not make it good. It need not be there to the end.
#[test]
fn an_update_that_is_left_out_for_nothing_is_missing() {
    let update = Updated::update;
    let updated = Updated::then(Some(What::Is(Updated::value(5))));
    for had in 1..=2 {
        let told = (1..=had).map(|n| update(n, n));
        let mut late: Vec<_> = told.chain(Updated::caught_up(had, had + 2)).collect();
        let verdict = updated.verdict(late.clone(), None);
        assert_eq!(verdict.count(Kind::Missing), 1, "{late:?}: {verdict:?}");
        late.push(update(5, 5));
        let verdict = updated.of(late);
        assert!(verdict.count(Kind::Missing) > 0, "{verdict:?}");
    }
}

/// Nothing may have been found of what was deleted: the client has not all until it hears of that.
#[test]
fn an_update_of_what_is_gone_is_left_out_until_the_deletion() {
    let update = Updated::update;
    let updated = Updated::then(Some(What::Gone));
    let verdict = updated.of(vec![update(1, 1), Updated::checkpoint(3), Updated::deleted(5)]);
    assert!(verdict.faults.is_empty(), "{:?}", verdict.faults);
    let early = [update(1, 1)].into_iter().chain(Updated::caught_up(1, 3));
    let verdict = updated.of(early.chain([Updated::deleted(5)]).collect());
    assert_eq!(verdict.count(Kind::Missing), 1, "{verdict:?}");
    let verdict = updated.of(vec![update(1, 1)]);
    assert!(verdict.count(Kind::Missing) > 0, "{verdict:?}");
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
    updated.journal.commits().iter().for_each(|commit| journal.push(commit.clone()));
    let other = |time: u64| {
        let id = history(LogPosition::past(time), "Observation/1");
        said("Observation", id, other.to_string())
    };
    let of = |said: Vec<Seen>| {
        let mut seen = vec![Seen::Connected { from: None, written: 0 }];
        seen.extend(said);
        judge(&journal, Asked::all(&TYPES), &Transcript { seen }, None)
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
    // Replayed, it may be deferred to what comes.
    let mut cut = vec![other(1), scanned(1, 1)];
    cut.push(Seen::Connected { from: last_id(&cut), written: 0 });
    cut.push(Updated::update(4, 4));
    let honest = of(cut);
    assert!(honest.faults.is_empty(), "{:?}", honest.faults);
}
