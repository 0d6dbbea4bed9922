//! `_typeFilter`: searches, of which one at least must find a resource of their type. Pure.
//!
//! A value is `Type?query`, or several of them with commas between. A query is a search's own,
//! read by the rules of searches; what only says how a result is to be given has no place in it.

use std::{collections::BTreeMap, fmt::Display};

use axum::http::StatusCode;

use crate::{
    error::ApiError,
    fhir::{ResourceType, outcome::IssueType},
    position::StableHash,
    request::{Pairs, pairs, shown},
    search::{Context, Search},
    store::Clue,
};

/// How many searches there may be, and how long together, in bytes: each resource of their type
/// may be put to all of them.
const MOST_SEARCHES: usize = 100;
const MOST_BYTES: usize = 64 * 1024;

/// Parameters of a search that say how its result is to be given.
const OF_RESULTS: [&str; 6] = ["_count", "_elements", "_format", "_pretty", "_sort", "_summary"];

/// The searches of a stream, by type. Equal ones are equal, however they were written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeFilters(BTreeMap<ResourceType, Vec<TypeFilter>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct TypeFilter {
    /// The parameters that count, decoded and sorted.
    pairs: Pairs,
    search: Search,
}

impl TypeFilters {
    /// Reads the values of a request. Gives besides what is not done, under lenient handling.
    ///
    /// # Errors
    /// 400 that names the search and the parameter in it.
    pub fn parse(values: &[String], context: Context<'_>) -> Result<(Self, Vec<String>), ApiError> {
        let texts: Vec<_> = values.iter().flat_map(|value| searches(value)).collect();
        check_size(&texts)?;
        let (mut all, mut ignored) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for text in texts {
            let (ty, query) = of_type(text)?;
            let filter = TypeFilter::parse(ty, query, context, &mut ignored);
            all.entry(ty).or_default().push(filter.map_err(|error| in_search(text, error))?);
        }
        for filters in all.values_mut() {
            filters.sort_by(|one, other| one.pairs.cmp(&other.pairs));
            filters.dedup();
        }
        Ok((Self(all), ignored))
    }

    /// The types that have searches.
    pub fn types(&self) -> impl Iterator<Item = ResourceType> {
        self.0.keys().copied()
    }

    /// Forgets the searches of all other types.
    pub fn retain(&mut self, keep: impl Fn(ResourceType) -> bool) {
        self.0.retain(|ty, _| keep(*ty));
    }

    /// Whether some resources of the type are not found.
    #[must_use]
    pub fn narrow(&self, ty: ResourceType) -> bool {
        let filters = self.0.get(&ty);
        filters.is_some_and(|filters| !filters.iter().any(|filter| filter.search.is_open()))
    }

    /// Whether a stored resource is found, as JSON: by one of its type's searches, or since its
    /// type has none.
    #[must_use]
    pub fn find(&self, ty: ResourceType, json: &[u8]) -> bool {
        let filters = self.0.get(&ty);
        filters.is_none_or(|filters| filters.iter().any(|filter| filter.search.matches(json)))
    }

    /// What all resources of the type have that are found, for a store to leave out others.
    #[must_use]
    pub fn clues(&self, ty: ResourceType) -> &[Clue] {
        match self.0.get(&ty).map(Vec::as_slice) {
            Some([filter]) => filter.search.clues(),
            _ => &[],
        }
    }

    /// Adds all that decides.
    #[must_use]
    pub fn hashed(&self, mut hash: StableHash) -> StableHash {
        for (ty, filters) in &self.0 {
            for filter in filters {
                hash = hash.with(b"_typeFilter").with(ty.name().as_bytes());
                let with = |hash: StableHash, (name, value): &(String, String)| {
                    hash.with(name.as_bytes()).with(value.as_bytes())
                };
                hash = filter.pairs.iter().fold(hash, with);
            }
        }
        hash
    }
}

impl TypeFilter {
    fn parse(
        ty: ResourceType,
        query: &str,
        context: Context<'_>,
        ignored: &mut Vec<String>,
    ) -> Result<Self, ApiError> {
        let mut pairs = pairs(query.as_bytes());
        pairs.sort();
        pairs.dedup();
        let is_of_result = |(name, _): &(String, String)| OF_RESULTS.contains(&&**name);
        if let (Some((name, _)), false) = (pairs.iter().find(|p| is_of_result(p)), context.lenient)
        {
            return Err(of_results(name));
        }
        let mut search = {
            let counting: Vec<_> = pairs.iter().filter(|p| !is_of_result(p)).cloned().collect();
            Search::parse(ty, &counting, context)?
        };
        let not_done = std::mem::take(&mut search.ignored);
        pairs.retain(|pair| {
            let counts = !is_of_result(pair) && !not_done.contains(&pair.0);
            if !counts {
                ignored.push(format!("_typeFilter={ty}?{}", pair.0));
            }
            counts
        });
        Ok(Self { pairs, search })
    }
}

/// A value's searches: a comma divides them where a type and its '?' follow.
fn searches(value: &str) -> Vec<&str> {
    let divides = |at: &usize| {
        let name = value[at + 1..].split_once('?').map_or("", |(name, _)| name.trim_start());
        name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(|b| b.is_ascii_alphabetic())
    };
    let mut start = 0;
    let commas = value.match_indices(',').map(|(at, _)| at).filter(divides);
    let mut all: Vec<_> =
        commas.map(|at| &value[std::mem::replace(&mut start, at + 1)..at]).collect();
    all.push(&value[start..]);
    all.into_iter().map(str::trim).collect()
}

/// A search's type, and its query.
fn of_type(text: &str) -> Result<(ResourceType, &str), ApiError> {
    let Some((name, query)) = text.split_once('?') else {
        return Err(wrong(format!(
            "{} is no search. Send Type?query, as Observation?status=final, percent-encoded as a \
             whole.",
            shown(text)
        )));
    };
    let ty = ResourceType::parse(name)
        .ok_or_else(|| wrong(format!("{} is no resource type of FHIR R4 (4.0.1).", shown(name))))?;
    Ok((ty, query))
}

fn check_size(texts: &[&str]) -> Result<(), ApiError> {
    let too_long = |what: String, most: &dyn Display| {
        let text =
            format!("_typeFilter has {what}, and {most} is the most. Ask in several exports.");
        ApiError::new(StatusCode::BAD_REQUEST, IssueType::TooLong, text).at("_typeFilter")
    };
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    if bytes > MOST_BYTES {
        return Err(too_long(format!("{bytes} bytes"), &MOST_BYTES));
    }
    if texts.len() > MOST_SEARCHES {
        return Err(too_long(format!("{} searches", texts.len()), &MOST_SEARCHES));
    }
    Ok(())
}

fn of_results(name: &str) -> ApiError {
    let text = format!(
        "{name} says how a result is to be given, and decides about no resource. Leave it out."
    );
    ApiError::new(StatusCode::BAD_REQUEST, IssueType::NotSupported, text)
}

fn in_search(text: &str, error: ApiError) -> ApiError {
    let diagnostics = format!("_typeFilter {}: {}", shown(text), error.diagnostics);
    ApiError { diagnostics, expression: vec!["_typeFilter".into()], ..error }
}

fn wrong(what: String) -> ApiError {
    ApiError::invalid("_typeFilter", format!("_typeFilter: {what}"))
}

#[cfg(test)]
#[path = "type_filter_tests.rs"]
mod tests;
