//! `_elements`: which members of its resources a stream carries. Pure.
//!
//! A name counts for every type, `Type.name` for that type. A type that is named by none of them
//! is carried whole.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::StatusCode;

use crate::{
    error::ApiError,
    fhir::{ResourceType, outcome::IssueType},
    position::StableHash,
    request::shown,
    search::{Names, Subset},
};

/// How many names there may be: they are kept as long as their stream is open.
const MOST_NAMES: usize = 1_000;

/// The elements of a stream's resources; none: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    of_all: Names,
    by_type: BTreeMap<ResourceType, Names>,
}

impl Elements {
    /// Reads the values of a request: lists with commas.
    ///
    /// # Errors
    /// 400 that names what is no element.
    pub fn parse(values: &[String]) -> Result<Self, ApiError> {
        let texts = || values.iter().flat_map(|value| value.split(',')).map(str::trim);
        let count = texts().count();
        if count > MOST_NAMES {
            return Err(too_many(count));
        }
        let mut elements = Self::default();
        for text in texts() {
            let (names, name) = match text.split_once('.') {
                None => (&mut elements.of_all, text),
                Some((ty, name)) => {
                    let ty = ResourceType::parse(ty).ok_or_else(|| no_element(text))?;
                    (elements.by_type.entry(ty).or_default(), name)
                }
            };
            Arc::make_mut(names).insert(element(name, text)?);
        }
        Ok(elements)
    }

    /// The types that are named.
    pub fn types(&self) -> impl Iterator<Item = ResourceType> {
        self.by_type.keys().copied()
    }

    /// Forgets what is named of all other types.
    pub fn retain(&mut self, keep: impl Fn(ResourceType) -> bool) {
        self.by_type.retain(|ty, _| keep(*ty));
    }

    /// Whether the type's resources are carried whole.
    #[must_use]
    pub fn leave_whole(&self, ty: ResourceType) -> bool {
        self.of_all.is_empty() && !self.by_type.contains_key(&ty)
    }

    /// The part of the type's resources that is carried; `None`: all.
    #[must_use]
    pub fn part(&self, ty: ResourceType) -> Option<Subset> {
        if self.leave_whole(ty) {
            return None;
        }
        let named = [Some(&self.of_all), self.by_type.get(&ty)];
        Some(Subset::named(ty, named.map(Option::<&Names>::cloned)))
    }

    /// Adds all that decides.
    #[must_use]
    pub fn hashed(&self, mut hash: StableHash) -> StableHash {
        for name in &*self.of_all {
            hash = hash.with(b"_elements").with(name.as_bytes());
        }
        for (ty, names) in &self.by_type {
            for name in &**names {
                hash = hash.with(b"_elements").with(ty.name().as_bytes()).with(name.as_bytes());
            }
        }
        hash
    }
}

fn element(name: &str, whole: &str) -> Result<String, ApiError> {
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_name { Ok(name.to_owned()) } else { Err(no_element(whole)) }
}

fn too_many(count: usize) -> ApiError {
    let text = format!(
        "_elements names {count} elements, and {MOST_NAMES} is the most. Leave it out for all."
    );
    ApiError::new(StatusCode::BAD_REQUEST, IssueType::TooLong, text).at("_elements")
}

fn no_element(text: &str) -> ApiError {
    let text = format!(
        "_elements: {} is no element. Send names of a resource's own elements, as birthDate or \
         Patient.birthDate, with commas between.",
        shown(text)
    );
    ApiError::invalid("_elements", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(name: &str) -> ResourceType {
        ResourceType::parse(name).expect("a type")
    }

    fn read(values: &[&str]) -> Result<Elements, ApiError> {
        Elements::parse(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
    }

    fn part(elements: &Elements, name: &str, json: &str) -> String {
        let mut out = Vec::new();
        elements.part(ty(name)).expect("a part").write(&mut out, json.as_bytes());
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn each_type_has_what_is_named_of_it_and_what_it_must_have() {
        let elements = read(&["note, Observation.value", "Patient.birthDate"]).expect("elements");
        let json = r#"{"resourceType":"Observation","id":"1","status":"final","code":{},"value":1,
            "note":[],"birthDate":"x"}"#;
        let given = part(&elements, "Observation", json);
        for kept in ["\"id\"", "status", "code", "value", "note", "SUBSETTED"] {
            assert!(given.contains(kept), "{kept}: {given}");
        }
        assert!(!given.contains("birthDate"), "{given}");
        let other = part(&elements, "Basic", json);
        assert!(other.contains("note") && !other.contains("\"value\""), "{other}");
        let typed = read(&["Patient.birthDate"]).expect("elements");
        assert_eq!((typed.part(ty("Basic")), typed.leave_whole(ty("Basic"))), (None, true));
        assert!(part(&typed, "Patient", json).contains("birthDate"));
        assert_eq!(Elements::default().part(ty("Patient")), None);
    }

    #[test]
    fn what_is_no_element_is_named() {
        for wrong in ["", "a,,b", "Patient.name.given", "Thing.x", "Patient.", ".x", "na me", "ü"]
        {
            let error = read(&[wrong]).expect_err(wrong);
            assert_eq!(error.expression, ["_elements"]);
        }
        let many = vec!["a"; MOST_NAMES + 1].join(",");
        assert!(read(&[&many]).expect_err("too many").diagnostics.contains("1000 is the most"));
    }

    #[test]
    fn equal_lists_are_equal() {
        let hash = |values: &[&str]| {
            read(values).expect("elements").hashed(StableHash::default()).finish()
        };
        assert_eq!(read(&["b,a"]).expect("elements"), read(&["a", "b", "a"]).expect("elements"));
        let different = [hash(&["a,b"]), hash(&["a"]), hash(&["Patient.a"]), hash(&["Basic.a"])];
        assert!((1..4).all(|at| !different[..at].contains(&different[at])));
        assert_eq!(
            Elements::default().hashed(StableHash::default()).finish(),
            StableHash::default().finish()
        );
    }
}
