//! A synthetic population to try the server with, and its [`pulse`] of changes.
//!
//! Patients with laboratory values and blood pressures, and how they stand with four quality
//! measures: a MeasureReport each, and a DetectedIssue per care gap in the shape of the Da Vinci
//! DEQM guide. A seed gives the same bytes on any machine and any day.

mod person;
mod pulse;
mod resources;
mod rng;

use clap::Args;

use crate::{
    fhir::resource::Resource,
    store::{Action, Effect, Expect, Store, Write, WriteError},
};
use person::{Measure, Person};
pub use pulse::pulse;

/// So many resources are written as one commit.
const GROUP: usize = 500;

/// A synthetic population, and how much happens in it.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How many patients
    #[arg(long, value_name = "N", env = "FHIRTAIL_PATIENTS", default_value = "200")]
    pub patients: usize,

    /// The same seed gives the same population
    #[arg(long, value_name = "N", env = "FHIRTAIL_SEED", default_value = "1")]
    pub seed: u64,

    /// How many changes per second follow, 0 for none
    #[arg(long, value_name = "N", env = "FHIRTAIL_RATE", default_value = "2", value_parser = rate)]
    pub rate: f64,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (0.0..=1000.0).contains(&rate) { Ok(rate) } else { Err("it is not within 0 to 1000".into()) }
}

/// A population: a clinic, and that many patients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Population {
    seed: u64,
    patients: usize,
}

impl Population {
    /// The population of a seed.
    #[must_use]
    pub fn new(seed: u64, patients: usize) -> Self {
        Self { seed, patients }
    }

    /// Every resource once: staff, then person by person (Patient, Observations, MeasureReports,
    /// DetectedIssues), then a Group per measure. What is referred to comes first.
    pub fn resources(self) -> impl Iterator<Item = Resource> + Send {
        let people = self.people().flat_map(|person| resources::of_person(&person));
        let group = move |measure: Measure| {
            let members = self.people().filter(move |person| person.is_in(measure));
            resources::group(measure, members.map(|person| person.number))
        };
        resources::staff().chain(people).chain(Measure::ALL.into_iter().filter_map(group))
    }

    fn people(self) -> impl Iterator<Item = Person> + Send {
        (1..=self.patients).map(move |number| Person::new(self.seed, number))
    }
}

/// Writes a population. Returns how many resources were not there just so already.
///
/// # Errors
/// What [`Store::commit`] fails with. What was committed before stays.
pub async fn populate(store: &dyn Store, population: Population) -> Result<u64, WriteError> {
    let mut resources = population.resources();
    let mut changed = 0;
    loop {
        let group: Vec<_> = resources.by_ref().take(GROUP).filter_map(put).collect();
        if group.is_empty() {
            return Ok(changed);
        }
        let written = store.commit(group).await?;
        changed += written.iter().filter(|one| one.effect != Effect::Unchanged).count() as u64;
    }
}

/// A resource of ours as a write; `None` only for one without an id, which none is.
fn put(resource: Resource) -> Option<Write> {
    let (ty, id) = (resource.ty(), resource.id()?.to_owned());
    Some(Write { ty, id, action: Action::Put(resource), expect: Expect::Any })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use serde_json::Value;

    use super::*;
    use crate::fhir::ResourceType;

    fn texts(seed: u64, patients: usize) -> Vec<String> {
        let text = |resource: Resource| String::from_utf8(resource.to_json().to_vec());
        Population::new(seed, patients).resources().map(|r| text(r).expect("UTF-8")).collect()
    }

    #[test]
    fn a_seed_gives_the_same_bytes() {
        let one = texts(7, 40);
        assert_eq!(one, texts(7, 40));
        assert_ne!(one, texts(8, 40));
        // More people change no one but the Groups.
        assert!(texts(7, 50).starts_with(&one[..one.len() - 4]));
    }

    #[test]
    fn each_resource_is_what_a_reader_expects() {
        let mut names = HashSet::new();
        let mut counts = BTreeMap::<&str, usize>::new();
        let mut gaps = HashSet::new();
        for text in texts(1, 300) {
            let resource = Resource::parse(text.as_bytes()).expect("a resource");
            assert_eq!(resource.members()["meta"]["tag"][0]["code"], "HTEST");
            let name = format!("{}/{}", resource.ty(), resource.id().expect("an id"));
            let tree = Value::Object(resource.members().clone());
            for reference in references(&tree) {
                assert!(names.contains(&reference), "{name} refers to {reference}");
            }
            if let Some(gap) =
                tree["modifierExtension"][0]["valueCodeableConcept"]["coding"][0]["code"].as_str()
            {
                gaps.insert(gap.to_owned());
            }
            *counts.entry(resource.ty().name()).or_default() += 1;
            assert!(names.insert(name.clone()), "{name} comes twice");
        }
        assert!(names.contains("Patient/patient-0001") && names.contains("Patient/patient-0300"));
        let gaps_expected = ["open-gap", "closed-gap", "prospective-gap"].map(str::to_owned);
        assert_eq!(gaps, HashSet::from(gaps_expected));
        assert_eq!((counts["Patient"], counts["Group"], counts["Practitioner"]), (300, 4, 5));
        assert_eq!(counts["MeasureReport"], counts["DetectedIssue"]);
        assert!(counts["MeasureReport"] > 200 && counts["Observation"] > 600, "{counts:?}");
        assert!(counts.keys().all(|name| ResourceType::parse(name).is_some()));
    }

    #[test]
    fn decimals_keep_their_trailing_zero() {
        let texts = texts(1, 50);
        let is_decimal = |text: &&String| text.contains(r#""valueQuantity":{"value":7.20,"#);
        assert!(texts.iter().any(|text| is_decimal(&text)), "{}", texts.len());
    }

    fn references(tree: &Value) -> Vec<String> {
        match tree {
            Value::Object(members) => {
                let own = members.get("reference").and_then(Value::as_str).map(str::to_owned);
                own.into_iter().chain(members.values().flat_map(references)).collect()
            }
            Value::Array(items) => items.iter().flat_map(references).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn an_empty_population_has_no_empty_arrays() {
        let texts = texts(1, 0);
        assert_eq!(texts.len(), 1 + 5 + 4);
        assert!(texts.iter().all(|text| !text.contains("[]")));
    }
}
