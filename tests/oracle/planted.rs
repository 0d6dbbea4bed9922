//! Each fault that is planted in what an honest server sent is found.

use fhirtail::client::sse::{Event, Item};
use serde_json::Value;
use support::oracle::{
    transcript::{Seen, Transcript},
    verdict::Kind,
};

use crate::honest::{TYPES, honest, last_id, verdict};

pub(crate) fn event(seen: &Seen) -> Option<&Event> {
    match seen {
        Seen::Said(Item::Event(event)) => Some(event),
        _ => None,
    }
}

pub(crate) fn event_mut(seen: &mut Seen) -> &mut Event {
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

pub(crate) fn is_resource(event: &Event) -> bool {
    TYPES.contains(&event.event.as_str())
}

pub(crate) fn is_live(event: &Event) -> bool {
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
pub(crate) fn goes_on(seen: &[Seen], at: usize) -> bool {
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
