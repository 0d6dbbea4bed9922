//! What a condition tells a store of the resources that can pass it: texts at places, before any
//! resource is read. Pure.
//!
//! A clue may be wider than its condition, never narrower. Where a text alone does not tell
//! (folded strings, numbers, dates, whatever is absent), there is none.

use super::{
    date,
    table::{Data, Entry, Parameter, Path, find, names},
    test::{Test, Wanted},
    token,
};
use crate::{
    fhir::ResourceType,
    store::{Clue, Place, Sought},
};

/// Longer texts than anybody looks for: they are left to the test.
const MOST_BYTES: usize = 1_000;

/// Members below a value, and what is there: one for each way to fit.
pub(super) type Found = Vec<(&'static [&'static str], Sought)>;

/// What a condition tells; `None`: nothing.
pub(super) fn clue(paths: &[Path], test: &Test, wanted: Wanted) -> Option<Clue> {
    if wanted != Wanted::Fit {
        return None;
    }
    let mut places: Vec<Place> = Vec::new();
    for path in paths {
        for (below, sought) in below(path, test)? {
            let steps = path.steps.iter().map(|step| step.name);
            let at: Vec<_> = steps.chain(below.iter().copied()).collect();
            if !is_short(&sought) || at.is_empty() {
                return None;
            }
            match places.iter_mut().find(|place| place.path == at) {
                Some(place) => place.values.push(sought),
                None => places.push(Place { path: at, values: vec![sought] }),
            }
        }
    }
    (!places.is_empty()).then_some(Clue { places })
}

fn below(path: &Path, test: &Test) -> Option<Found> {
    let data = path.data;
    let each = |found: Vec<Option<Found>>| {
        let found: Option<Vec<Found>> = found.into_iter().collect();
        found.map(|found| found.concat())
    };
    match test {
        Test::Token(tokens) => each(tokens.iter().map(|one| one.clue(data)).collect()),
        Test::OfType(identifiers) => Some(identifiers.iter().map(token::OfType::clue).collect()),
        Test::Text(texts) => texts.clue(data),
        Test::Uri(uris) => each(uris.iter().map(|uri| uri.clue(data)).collect()),
        Test::Reference { targets, base } => {
            each(targets.iter().map(|target| target.clue(data, base.as_deref())).collect())
        }
        Test::Identifier(tokens) if matches!(data, Data::Reference(_)) => {
            each(tokens.iter().map(token::Token::clue_in_reference).collect())
        }
        Test::Date(dates) if is_updated(path) => {
            date::hull(dates).map(|sought| vec![(&[][..], sought)])
        }
        Test::Identifier(_)
        | Test::Date(_)
        | Test::Words(_)
        | Test::Number(_)
        | Test::Quantity(_)
        | Test::Presence => None,
    }
}

/// The one date that stores keep an index of.
fn is_updated(path: &Path) -> bool {
    path.steps.iter().map(|step| step.name).eq(["meta", "lastUpdated"])
}

fn is_short(sought: &Sought) -> bool {
    match sought {
        Sought::Text(text) | Sought::Begins(text) => {
            text.len() <= MOST_BYTES && !text.contains('\0')
        }
        Sought::Bool(_) | Sought::Instant(..) => true,
    }
}

/// For each parameter of a type whose clues lead to one place: its name, and the place of the texts
/// that are asked for most.
pub fn places(ty: ResourceType) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    names(ty).filter_map(move |name| match find(ty, name)? {
        Entry::Served(Parameter { paths, .. }) => match paths.as_slice() {
            [path] => {
                let below: &[&str] = match path.data {
                    Data::Coding => &["code"],
                    Data::CodeableConcept => &["coding", "code"],
                    Data::Identifier | Data::ContactPoint => &["value"],
                    Data::Reference(_) => &["reference"],
                    Data::Code(_) | Data::Id | Data::Uri | Data::Canonical => &[],
                    _ => return None,
                };
                let steps = path.steps.iter().map(|step| step.name);
                Some((name, steps.chain(below.iter().copied()).collect()))
            }
            _ => None,
        },
        Entry::Refused(_) => None,
    })
}
