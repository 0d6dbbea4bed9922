//! An export as lines against the journal: what they make must be what was held at one place, not
//! before what was acknowledged when its client asked. Pure.
//!
//! A collection that was dropped behind that place may lack resources there: a read as of an instant
//! finds nothing of it any more, and lines have no word for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fhirtail::position::LogPosition;
use serde_json::Value;

use super::{
    super::{
        journal::Journal,
        verdict::{Fault, Kind},
    },
    behind,
};

/// What an export's lines make: `Type/id` → resource.
pub type Held = BTreeMap<String, Arc<Value>>;

/// Judges an export of these types whose body came to its end. `written`: the cluster time of what
/// was acknowledged before it was asked for.
///
/// # Errors
/// It is what was held at no place.
pub fn judge_export(
    journal: &Journal,
    types: &[&str],
    written: u64,
    held: &Held,
) -> Result<(), Fault> {
    let fault = |kind, what| Err(Fault { kind, line: 0, what });
    let is_of = |url: &str| url.split_once('/').is_some_and(|(ty, _)| types.contains(&ty));
    let was = |url: &str, value: &Value| {
        let is_it = |index: &usize| journal.get(*index).what.value() == Some(value);
        is_of(url) && journal.of(url).iter().any(is_it)
    };
    if let Some((url, value)) = held.iter().find(|(url, value)| !was(url, value)) {
        return fault(Kind::Wrong, format!("{url} was never {value}"));
    }
    let mut at = LogPosition::past(written);
    let mut differs = BTreeSet::new();
    for (url, commits) in journal.resources().filter(|(url, _)| is_of(url)) {
        let now = journal.last_before(commits, at);
        let now = now.and_then(|index| journal.get(index).what.value());
        if now != held.get(url).map(Arc::as_ref) {
            differs.insert(url);
        }
    }
    let mut closest = None::<Vec<&str>>;
    let mut rest = journal.between(at, behind(journal.end())).peekable();
    loop {
        let excused = |url: &str| {
            let (ty, _) = url.split_once('/').unwrap_or_default();
            !held.contains_key(url) && journal.next_sweep(at, &[ty]).is_some()
        };
        let wrong: Vec<&str> = differs.iter().copied().filter(|url| !excused(url)).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        if closest.as_ref().is_none_or(|closest| wrong.len() < closest.len()) {
            closest = Some(wrong);
        }
        let Some(next) = rest.peek().map(|index| journal.get(*index).at.time) else { break };
        // What is of one time is there as one.
        while let Some(index) = rest.next_if(|index| journal.get(*index).at.time == next) {
            let commit = journal.get(index);
            let is_so = commit.what.value() == held.get(&commit.url).map(Arc::as_ref);
            match is_so {
                _ if !is_of(&commit.url) => {}
                true => drop(differs.remove(commit.url.as_str())),
                false => drop(differs.insert(commit.url.as_str())),
            }
        }
        at = LogPosition::past(next);
    }
    let closest = closest.unwrap_or_default();
    let some = &closest[..closest.len().min(3)];
    fault(
        Kind::Missing,
        format!("of no place since {written}: at best {} differ, {some:?}", closest.len()),
    )
}
