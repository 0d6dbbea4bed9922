//! Histories as lines: those of an honest server are found honest, and each planted fault is found.

use std::sync::Arc;

use fhirtail::position::LogPosition;
use serde_json::json;
use support::{
    chaos::Dice,
    oracle::{
        journal::{Commit, Journal, What},
        judge::exports::{Held, judge_export},
        transcript::Seen,
        verdict::Kind,
    },
    replica::{Copy, folded},
};

use crate::{
    honest::{Honest, TYPES, honest},
    planted::event,
};

/// Lines, and the place as of which they are whole.
struct Export {
    lines: Vec<String>,
    asked: u64,
    at: LogPosition,
}

/// A log, and what a server that does as it should sends of its history, in as many snapshots as it
/// takes.
fn export(seed: u64) -> (Journal, Export) {
    let (journal, _) = honest(seed);
    let mut server = Honest { journal: &journal, dice: Dice(seed ^ 7), seen: Vec::new(), now: 20 };
    let at = server.history();
    let Seen::Connected { written: asked, .. } = server.seen[0] else { panic!("a connection") };
    let lines = server.seen.iter().filter_map(event).map(|event| event.data.clone()).collect();
    (journal, Export { lines, asked, at })
}

fn fold(lines: &[String]) -> Copy {
    folded(&lines.join("\n")).expect("lines")
}

fn held(copy: Copy) -> Held {
    let read = |text: String| Arc::new(serde_json::from_str(&text).expect("JSON"));
    copy.into_iter().map(|(url, text)| (url, read(text))).collect()
}

fn verdict(journal: &Journal, written: u64, lines: &[String]) -> Option<Kind> {
    judge_export(journal, &TYPES, written, &held(fold(lines))).err().map(|fault| fault.kind)
}

/// What was committed before a place: nothing that came later can explain what was sent.
fn before(journal: &Journal, end: LogPosition) -> Journal {
    let mut before = Journal::default();
    for index in journal.between(LogPosition::default(), end) {
        before.push(journal.get(index).clone());
    }
    before
}

#[test]
fn an_honest_export_is_found_honest() {
    let mut renewed = 0;
    for seed in 0..2_000 {
        let (journal, Export { lines, asked, at }) = export(seed);
        assert_eq!(verdict(&journal, asked, &lines), None, "{seed}");
        assert_eq!(verdict(&before(&journal, at), at.time - 1, &lines), None, "{seed}");
        renewed += usize::from(lines.len() > fold(&lines).len());
    }
    assert!(renewed > 1_000, "{renewed} went on in a newer snapshot");
}

/// Plants a fault in each line where that changes what the lines make.
fn planted(kind: Kind, plant: impl Fn(&Journal, &mut Vec<String>, usize) -> bool) {
    let mut count = 0;
    for seed in 0..200 {
        let (journal, Export { lines, asked, at }) = export(seed);
        let journal = before(&journal, at);
        for line in 0..lines.len() {
            let mut faulty = lines.clone();
            if !plant(&journal, &mut faulty, line) || fold(&faulty) == fold(&lines) {
                continue;
            }
            count += 1;
            assert_eq!(verdict(&journal, at.time - 1, &faulty), Some(kind), "{seed}, {line}");
            // Where nothing had happened since it was asked for, or had to be there by then.
            let early = verdict(&journal, asked, &faulty);
            assert!(early.is_none_or(|early| early == kind), "{seed}, {line}: {early:?}");
        }
    }
    assert!(count > 50, "{count}");
}

fn is_deletion(line: &str) -> bool {
    line.contains(r#""Bundle""#)
}

#[test]
fn a_missing_line_is_found() {
    planted(Kind::Missing, |_, lines, at| !is_deletion(&lines.remove(at)));
}

#[test]
fn a_lost_deletion_is_found() {
    planted(Kind::Missing, |_, lines, at| is_deletion(&lines.remove(at)));
}

#[test]
fn half_an_export_that_ends_is_found() {
    planted(Kind::Missing, |_, lines, at| {
        lines.truncate(at);
        true
    });
}

#[test]
fn an_old_version_is_found() {
    planted(Kind::Missing, |journal, lines, at| {
        let Some((url, text)) = fold(&lines[at..=at]).pop_first() else { return false };
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let versions = journal.of(&url).iter().filter_map(|n| journal.get(*n).what.value());
        let Some(old) = versions.take_while(|old| **old != value).last() else { return false };
        lines[at] = old.to_string();
        true
    });
}

#[test]
fn other_content_is_wrong() {
    planted(Kind::Wrong, |_, lines, at| {
        lines[at] = lines[at].replace(r#""language":"w"#, r#""language":"v"#);
        true
    });
}

#[test]
fn another_type_is_wrong() {
    planted(Kind::Wrong, |_, lines, at| {
        lines[at] = lines[at].replace(r#""resourceType":"Patient""#, r#""resourceType":"Basic""#);
        true
    });
}

/// What was acknowledged before it was asked for is in it.
#[test]
fn an_export_of_before_is_found() {
    let mut count = 0;
    for seed in 0..60 {
        let (journal, Export { lines, at, .. }) = export(seed);
        // What is there for good from then on.
        let lasts =
            journal.resources().filter(|(url, _)| TYPES.iter().any(|ty| url.starts_with(ty)));
        let lasts = lasts.filter_map(|(_, commits)| commits.last().map(|last| journal.get(*last)));
        let later: Vec<u64> = lasts
            .filter(|last| last.at > at && last.what.value().is_some())
            .map(|last| last.at.time)
            .collect();
        for written in later {
            count += 1;
            let found = verdict(&journal, written, &lines);
            assert_eq!(found, Some(Kind::Missing), "{seed}, {written}");
        }
    }
    assert!(count > 50, "{count}");
}

/// A transaction is there as a whole.
#[test]
fn half_a_transaction_is_found() {
    let mut journal = Journal::default();
    let line = |id: u32| json!({"resourceType": "Patient", "id": id.to_string()});
    for consumed in [1, 2] {
        let (url, at) = (format!("Patient/{consumed}"), LogPosition { time: 1, consumed });
        journal.push(Commit { at, url, what: What::Is(line(consumed)), exact: true });
    }
    let lines = [line(1).to_string(), line(2).to_string()];
    assert_eq!(verdict(&journal, 0, &[]), None);
    assert_eq!(verdict(&journal, 0, &lines), None);
    assert_eq!(verdict(&journal, 0, &lines[..1]), Some(Kind::Missing));
    assert_eq!(verdict(&journal, 0, &lines[1..]), Some(Kind::Missing));
}

/// A snapshot finds nothing of a collection that was dropped since; what it finds is of its place.
#[test]
fn what_was_dropped_later_may_be_missing() {
    for seed in 0..60 {
        let (journal, Export { lines, at, .. }) = export(seed);
        let mut dropped = before(&journal, at);
        let patients: Vec<String> =
            fold(&lines).into_keys().filter(|url| url.starts_with("Patient/")).collect();
        let of_others: Vec<String> =
            lines.iter().filter(|line| !line.contains(r#""Patient"#)).cloned().collect();
        let written = at.time - 1;
        // Dropped before, by what is known of it, it can't be what is missing.
        dropped.sweep(LogPosition { time: written, consumed: 9 }, "Patient");
        assert_eq!(verdict(&dropped, written, &of_others), Some(Kind::Missing), "{seed}");
        let sweep = LogPosition { time: 100, consumed: 1 };
        for url in patients {
            dropped.push(Commit { at: sweep, url, what: What::Swept(None), exact: true });
        }
        dropped.sweep(sweep, "Patient");
        assert_eq!(verdict(&dropped, written, &of_others), None, "{seed}");
        assert_eq!(verdict(&dropped, written, &lines), None, "{seed}");
        let of_patients: Vec<String> =
            lines.iter().filter(|line| !line.contains(r#""Observation"#)).cloned().collect();
        assert_eq!(verdict(&dropped, written, &of_patients), Some(Kind::Missing), "{seed}");
    }
}
