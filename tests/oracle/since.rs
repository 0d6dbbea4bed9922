//! Streams with `_since`: their history need not hold what was not updated later, all that is
//! written behind its beginning comes.

use fhirtail::position::LogPosition;
use jiff::Timestamp;
use serde_json::{Value, json};
use support::oracle::{
    journal::{Commit, Journal, What},
    judge::{Asked, judge},
    transcript::{Cursor, Seen, Transcript},
    verdict::{Kind, Verdict},
};

use crate::honest::{TYPES, control, live, said};

const OLD: &str = "2026-01-01T00:00:00Z";
const BOUND: &str = "2026-06-01T00:00:00.001Z";
const NEW: &str = "2026-06-01T00:00:00.002Z";

fn patient(id: u64, updated: &str) -> Value {
    json!({"resourceType": "Patient", "id": id.to_string(), "meta": {"lastUpdated": updated}})
}

/// Patient n is the write of time n, updated when the n-th of these says.
fn journal(updated: &[&str]) -> Journal {
    let mut journal = Journal::default();
    for (n, updated) in (1..).zip(updated) {
        let at = LogPosition { time: n, consumed: 1 };
        let what = What::Is(patient(n, updated));
        journal.push(Commit { at, url: format!("Patient/{n}"), what, exact: true });
    }
    journal
}

/// What a history brings, along the time, as of right behind a time.
fn scanned(time: u64, id: u64, updated: &str) -> Seen {
    let ms = updated.parse::<Timestamp>().expect("an instant").as_millisecond();
    let at = LogPosition::past(time);
    let place = live(at).replacen("1l", "1h", 1);
    said("Patient", format!("{place}~q~1~u{}.i{id}", base36(ms)), patient(id, updated).to_string())
}

fn base36(ms: i64) -> String {
    let digits = std::iter::successors(Some(ms), |ms| Some(ms / 36)).take_while(|ms| *ms > 0);
    let digits: Vec<_> = digits.map(|ms| std::char::from_digit((ms % 36) as u32, 36)).collect();
    digits.into_iter().rev().flatten().collect()
}

/// What is said of these lines, that are followed by `caught-up`.
fn judged(journal: &Journal, lines: &[Seen]) -> Verdict {
    let mut seen = vec![Seen::Connected { from: None, written: 1 }];
    seen.extend_from_slice(lines);
    seen.push(control("caught-up", journal.end()));
    let asked = Asked { types: &TYPES, since: BOUND.parse().ok() };
    judge(journal, asked, &Transcript { seen }, Some(journal.end()))
}

#[test]
fn a_history_holds_what_was_updated_later_alone() {
    let journal = journal(&[OLD, BOUND, NEW]);
    let found = judged(&journal, &[scanned(3, 3, NEW)]);
    assert!(found.faults.is_empty(), "{:?}", found.faults);
    let without = judged(&journal, &[]);
    assert_eq!(without.count(Kind::Missing), 1, "{:?}", without.faults);
    for (id, updated) in [(1, OLD), (2, BOUND)] {
        let with = judged(&journal, &[scanned(3, id, updated), scanned(3, 3, NEW)]);
        assert_eq!(with.count(Kind::Untrue), 1, "{:?}", with.faults);
    }
}

#[test]
fn what_is_written_behind_its_beginning_comes_whatever_it_says() {
    let journal = journal(&[NEW, OLD, OLD]);
    let change = |n| {
        let at = LogPosition { time: n, consumed: 1 };
        said("Patient", live(at), patient(n, OLD).to_string())
    };
    let history = scanned(1, 1, NEW);
    let found = judged(&journal, &[history.clone(), change(2), change(3)]);
    assert!(found.faults.is_empty(), "{:?}", found.faults);
    for lines in [vec![history.clone()], vec![history, change(3)]] {
        let found = judged(&journal, &lines);
        assert_eq!(found.count(Kind::Missing), 3 - lines.len(), "{:?}", found.faults);
    }
}

#[test]
fn a_history_along_the_time_goes_on() {
    let journal = journal(&[NEW, "2026-07-01T00:00:00Z"]);
    let [one, two] = [scanned(2, 1, NEW), scanned(2, 2, "2026-07-01T00:00:00Z")];
    let found = judged(&journal, &[one.clone(), two.clone()]);
    assert!(found.faults.is_empty(), "{:?}", found.faults);
    assert_eq!(judged(&journal, &[two, one]).count(Kind::OutOfOrder), 1);
}

#[test]
fn a_cursor_is_read_as_its_documentation_says() {
    let of = |key: &str| Cursor::of(&format!("1h~e~0.0.0~q~1~{key}"));
    let cursor = |updated| Some(Cursor { ty: 1, updated, id: "a.b".into() });
    assert_eq!(of("ia.b"), cursor(None));
    assert_eq!(of("uz.ia.b"), cursor(Some(35)));
    assert_eq!(of("u-z.ia.b"), cursor(Some(-35)));
    assert_eq!(of("uz"), None);
}
