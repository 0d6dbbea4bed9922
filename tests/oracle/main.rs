//! The oracle itself: it finds nothing in what an honest server sends, whatever is cut and
//! resumed, and finds each fault that is planted.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod dropped;
mod exports;
mod honest;
mod narrowed;
mod planted;
mod since;
mod updated;

use fhirtail::{
    client::sse::{Event, Item},
    position::LogPosition,
};
use serde_json::json;

use honest::{TYPES, control, honest, said, verdict};
use support::oracle::{
    journal::{Commit, Journal, What},
    judge::{Asked, judge},
    transcript::{Seen, Transcript},
    verdict::Kind,
};

#[test]
fn an_honest_server_is_found_honest() {
    for seed in 0..2_000 {
        let (journal, transcript) = honest(seed);
        let verdict = verdict(&journal, &transcript);
        assert!(verdict.faults.is_empty(), "{seed}: {:#?}", verdict.faults);
        assert!(verdict.events > 10 && verdict.connections > 0, "{seed}: {verdict:?}");
    }
}

/// Only a server without a place for it, or one that stops, may turn a client away at once.
#[test]
fn a_stream_that_fails_at_once_is_not_turned_away() {
    let connected = |from| Seen::Connected { from, written: 0 };
    let fails = |code: &str, text: &str| {
        let issue = json!([{"severity": "error", "code": code, "diagnostics": text}]);
        let outcome = json!({"resourceType": "OperationOutcome", "issue": issue}).to_string();
        said("OperationOutcome", String::new(), outcome)
    };
    let judged = |seen| judge(&Journal::default(), Asked::all(&TYPES), &Transcript { seen }, None);
    let of = |code: &str, text: &str| judged(vec![connected(None), fails(code, text)]);
    let stopping = "the store does not answer: this server is stopping";
    for allowed in [of("throttled", "too many"), of("transient", stopping)] {
        assert!(allowed.faults.is_empty() && allowed.turned_away == 1, "{allowed:?}");
    }
    let away = "the store does not answer: x";
    let caught_up = control("caught-up", LogPosition { time: 1, consumed: 1 });
    let Seen::Said(Item::Event(Event { id, .. })) = &caught_up else { panic!("an event") };
    let again = connected(Some(id.clone()));
    let resumed = judged(vec![connected(None), caught_up, again, fails("transient", away)]);
    for (failed, kind) in [
        (of("exception", "a defect"), Kind::Untrue),
        (of("transient", away), Kind::Unanswered),
        (resumed, Kind::Untrue),
    ] {
        assert_eq!((failed.count(kind), failed.turned_away), (1, 0), "{failed:?}");
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
