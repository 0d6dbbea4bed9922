//! Streams that hold what a search finds alone: what leaves it is told, what stays outside is not.

use fhirtail::position::LogPosition;
use serde_json::{Value, json};
use support::{
    chaos::Dice,
    oracle::{
        journal::{Commit, Journal, What},
        judge::{Asked, judge},
        transcript::{Place, Seen, Transcript},
        verdict::{Kind, Verdict},
    },
};

use crate::{
    honest::{Honest, TYPES, control, history, honest, live, said},
    planted::{event, event_mut, goes_on, is_live},
};

/// About half of what the honest log has of each resource, now the one and now the other.
fn is_found(resource: &Value) -> bool {
    let text = resource["language"].as_str().unwrap_or_default();
    text.bytes().map(u32::from).sum::<u32>() % 2 == 0
}

/// What an honest server sends of it, that keeps to the search.
fn narrowed(seed: u64) -> (Journal, Transcript) {
    let (journal, _) = honest(seed);
    let narrowed = journal.narrowed(is_found);
    let mut server = Honest { journal: &narrowed, dice: Dice(seed), seen: Vec::new(), now: 20 };
    let at = server.history();
    server.live(at);
    let seen = server.seen;
    (journal, Transcript { seen })
}

/// What is said of that, by the whole log.
fn verdict(journal: &Journal, transcript: &Transcript) -> Verdict {
    crate::honest::verdict(&journal.narrowed(is_found), transcript)
}

/// Plants a fault wherever one can be: each is found to be of this kind.
fn planted(kind: Kind, plant: impl Fn(&Journal, &mut Vec<Seen>, usize) -> bool) {
    let mut count = 0;
    for seed in 0..60 {
        let (journal, transcript) = narrowed(seed);
        for at in 0..transcript.seen.len() {
            let mut faulty = transcript.clone();
            if !plant(&journal, &mut faulty.seen, at) {
                continue;
            }
            count += 1;
            let verdict = verdict(&journal, &faulty);
            assert!(verdict.count(kind) > 0, "{seed}, {at}: {:#?}", verdict.faults);
        }
    }
    assert!(count > 50, "{count}");
}

fn is_leave(seen: &Seen) -> bool {
    event(seen).is_some_and(|event| event.data.contains("left-stream"))
}

fn is_deletion(seen: &Seen) -> bool {
    event(seen).is_some_and(|event| event.event == "deleted") && !is_leave(seen)
}

#[test]
fn an_honest_server_is_found_honest() {
    let mut left = 0;
    for seed in 0..500 {
        let (journal, transcript) = narrowed(seed);
        let verdict = verdict(&journal, &transcript);
        assert!(verdict.faults.is_empty(), "{seed}: {:#?}", verdict.faults);
        left += verdict.left;
    }
    assert!(left > 500, "{left}");
}

/// What the log is to such a stream, commit by commit.
#[test]
fn what_is_outside_before_and_after_is_nothing() {
    let value = |found: bool| json!({"found": found});
    let is = |found| What::Is(value(found));
    let whats = [
        (is(false), What::Unseen),
        (is(true), is(true)),
        (is(true), is(true)),
        (is(false), What::Left),
        (is(false), What::Unseen),
        (What::Gone, What::Unseen),
        (is(true), is(true)),
        (What::Gone, What::Gone),
        (is(true), is(true)),
        (What::Swept(None), What::Swept(None)),
        (is(false), What::Unseen),
        (What::Swept(Some(value(true))), What::Swept(Some(value(true)))),
        (What::Swept(Some(value(false))), What::Swept(None)),
    ];
    let mut journal = Journal::default();
    for (time, (what, _)) in (1..).zip(&whats) {
        let at = LogPosition { time, consumed: 1 };
        journal.push(Commit { at, url: "Patient/1".into(), what: what.clone(), exact: true });
    }
    let narrowed = journal.narrowed(|value| value["found"] == true);
    for (index, (_, expected)) in whats.iter().enumerate() {
        assert_eq!(narrowed.get(index).what, *expected, "{index}");
    }
    assert_eq!(narrowed.end(), journal.end());
}

#[test]
fn a_leave_that_is_not_told_is_missing() {
    planted(Kind::Missing, |_, seen, at| {
        let is_live = event(&seen[at]).is_some_and(is_live);
        let ok = is_leave(&seen[at]) && is_live && goes_on(seen, at);
        seen.remove(at);
        ok
    });
}

#[test]
fn a_leave_that_is_told_twice_is_repeated() {
    planted(Kind::Repeated, |_, seen, at| {
        seen.insert(at, seen[at].clone());
        is_leave(&seen[at])
    });
}

#[test]
fn a_leave_is_no_deletion_and_a_deletion_no_leave() {
    planted(Kind::Wrong, |_, seen, at| {
        let (leaves, deletes) = (is_leave(&seen[at]), is_deletion(&seen[at]));
        if leaves || deletes {
            let data = &mut event_mut(&mut seen[at]).data;
            let mut bundle: Value = serde_json::from_str(data).expect("JSON");
            let tag = json!([{"code": "left-stream"}]);
            bundle["meta"]["tag"] = if leaves { json!([]) } else { tag };
            *data = bundle.to_string();
        }
        leaves || deletes
    });
}

/// A commit between this live event and the next one that the stream does not hold.
fn unseen<'j>(journal: &'j Journal, seen: &[Seen], at: usize) -> Option<&'j Commit> {
    let place = |at: usize| {
        let event = seen.get(at).and_then(event).filter(|event| is_live(event))?;
        Place::of(&event.id)
    };
    let (before, after) = (place(at)?, place(at + 1)?);
    let narrowed = journal.narrowed(is_found);
    let is_wanted = |url: &str| TYPES.iter().any(|ty| url.starts_with(ty));
    let is_it = |index: &usize| {
        narrowed.get(*index).what == What::Unseen && is_wanted(&journal.get(*index).url)
    };
    journal.between(before.at, after.at).find(is_it).map(|index| journal.get(index))
}

#[test]
fn a_change_outside_that_came_is_wrong() {
    planted(Kind::Wrong, |journal, seen, at| {
        let Some(commit) = unseen(journal, seen, at) else { return false };
        let Some(value) = commit.what.value() else { return false };
        let ty = value["resourceType"].as_str().expect("a type");
        seen.insert(at + 1, said(ty, live(commit.at), value.to_string()));
        true
    });
}

/// Whatever is said to be the reason.
#[test]
fn a_leave_of_what_was_outside_is_wrong() {
    for reason in [Some("left-stream"), None] {
        planted(Kind::Wrong, |journal, seen, at| {
            let Some(commit) = unseen(journal, seen, at) else { return false };
            let entry = json!([{"request": {"method": "DELETE", "url": commit.url}}]);
            let mut bundle = json!({"entry": entry});
            if let Some(reason) = reason {
                bundle["meta"] = json!({"tag": [{"code": reason}]});
            }
            seen.insert(at + 1, said("deleted", live(commit.at), bundle.to_string()));
            true
        });
    }
}

/// A history that holds what is outside, though it is the newest version there is.
#[test]
fn a_history_of_what_is_outside_is_wrong() {
    let value = json!({"resourceType": "Patient", "id": "1", "found": false});
    let at = LogPosition { time: 1, consumed: 1 };
    let mut journal = Journal::default();
    let what = What::Is(value.clone());
    journal.push(Commit { at, url: "Patient/1".into(), what, exact: true });
    let of = |held: &[Seen]| {
        let mut seen = vec![Seen::Connected { from: None, written: 1 }];
        seen.extend_from_slice(held);
        seen.push(control("caught-up", LogPosition::past(1)));
        let narrowed = journal.narrowed(|value| value["found"] == true);
        judge(&narrowed, Asked::all(&TYPES), &Transcript { seen }, Some(journal.end()))
    };
    let honest = of(&[]);
    assert!(honest.faults.is_empty(), "{:?}", honest.faults);
    let scanned = history(LogPosition::past(1), "Patient/1");
    assert_eq!(of(&[said("Patient", scanned, value.to_string())]).count(Kind::Wrong), 1);
}
