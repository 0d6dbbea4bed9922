//! Collections that go as a whole, and the resets that tell of them.

use fhirtail::position::LogPosition;
use serde_json::json;
use support::{
    chaos::Dice,
    oracle::{
        journal::{Commit, Journal, What},
        transcript::{Seen, Transcript},
        verdict::Kind,
    },
};

use crate::honest::{Honest, control, honest, live, said, verdict};

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

/// Nor does it hold what was deleted between its instant and the drop.
#[test]
fn what_was_deleted_before_a_drop_is_missing_without_a_reset() {
    let mut journal = Journal::default();
    let value = json!({"resourceType": "Patient", "id": "1", "language": "w"});
    let place = |time| LogPosition { time, consumed: 1 };
    for (time, what) in [(1, What::Is(value)), (3, What::Gone)] {
        let at = place(time);
        journal.push(Commit { at, url: "Patient/1".into(), what, exact: true });
    }
    journal.sweep(place(9), "Patient");
    let entry = json!({"request": {"method": "DELETE", "url": "Patient/1"}});
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]});
    let of = |rest: &[Seen]| {
        let deleted = said("deleted", live(place(3)), bundle.to_string());
        let seen = [&[Seen::Connected { from: None, written: 0 }, deleted], rest].concat();
        verdict(&journal, &Transcript { seen })
    };
    let reset = said("reset", String::new(), "{}".into());
    let told = of(&[reset, control("caught-up", place(9))]);
    assert!(told.faults.is_empty(), "{:?}", told.faults);
    let silent = of(&[control("caught-up", place(8))]);
    assert_eq!(silent.count(Kind::Missing), 1, "{silent:?}");
}

/// Who has nothing, or has started over, starts over again only for what came later; and has, after
/// that, what is behind its cause.
#[test]
fn each_reset_is_for_a_drop_of_its_own() {
    let mut journal = Journal::default();
    let place = |time| LogPosition { time, consumed: 1 };
    journal.sweep(place(5), "Patient");
    journal.sweep(place(9), "Basic");
    let reset = || said("reset", String::new(), "{}".into());
    let untrue = |written: u64, rest: &[Seen]| {
        let begins = Seen::Connected { from: None, written };
        let seen = [&[begins], rest].concat();
        verdict(&journal, &Transcript { seen }).count(Kind::Untrue)
    };
    assert_eq!(untrue(1, &[reset()]), 0);
    assert_eq!(untrue(1, &[reset(), reset()]), 1, "twice for one drop");
    assert_eq!(untrue(6, &[reset()]), 1, "to a newcomer, of what was before it came");
    assert_eq!(untrue(1, &[reset(), control("caught-up", place(5))]), 0);
    assert_eq!(untrue(1, &[reset(), control("caught-up", place(4))]), 1, "ahead of its cause");
}
