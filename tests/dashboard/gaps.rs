//! Care gaps as tests write them, and what the page must make of a store.

use std::collections::BTreeMap;

use fhirtail::store::Store;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{client, replica};

use crate::browser::Browser;

/// Where the guide's extension has been.
pub(crate) const FAMILIES: [&str; 2] =
    ["http://hl7.org/fhir/us/davinci-deqm", "http://hl7.org/fhir/uv/deqm"];

pub(crate) const TYPES: [&str; 4] = ["DetectedIssue", "MeasureReport", "Composition", "Patient"];

/// A gap of patient `p{n}` in measure `m{measure}`, which cites the report `r{n}-{measure}`.
pub(crate) fn gap(n: usize, measure: usize, status: &str) -> Value {
    let family = FAMILIES[n % 2];
    json!({
        "resourceType": "DetectedIssue", "id": format!("g{n}-{measure}"), "status": "final",
        "modifierExtension": [{
            "url": format!("{family}/StructureDefinition/extension-gapStatus"),
            "valueCodeableConcept": {"coding": [{
                "system": format!("{family}/CodeSystem/gaps-status"), "code": status,
            }]},
        }],
        "code": {"coding": [{"code": "CAREGAP"}], "text": format!("Measure {measure}")},
        "patient": {"reference": format!("Patient/p{n}")},
        "evidence": [{"detail": [{"reference": format!("MeasureReport/r{n}-{measure}")}]}],
    })
}

pub(crate) fn report(n: usize, measure: usize) -> Value {
    json!({
        "resourceType": "MeasureReport", "id": format!("r{n}-{measure}"), "status": "complete",
        "type": "individual", "measure": format!("http://example.org/Measure/m{measure}"),
        "subject": {"reference": format!("Patient/p{n}")},
        "period": {"start": "2025-01-01", "end": "2025-12-31"},
        "group": [{"measureScore": {"value": 1}}],
    })
}

/// Puts a resource over HTTP.
pub(crate) async fn put(base: &str, resource: &Value) {
    let text = |name: &str| resource[name].as_str().expect("text").to_owned();
    let url = format!("{base}/fhir/{}/{}", text("resourceType"), text("id"));
    let request = client().put(url).header("content-type", "application/fhir+json");
    let answer = request.body(resource.to_string()).send().await.expect("an answer");
    let is_done = [StatusCode::OK, StatusCode::CREATED].contains(&answer.status());
    assert!(is_done, "{:?}", answer.text().await);
}

/// What a page holds and what a server holds, to be compared: `Type/id` → version.
pub(crate) type Versions = BTreeMap<String, String>;

/// What the store has of the page's types.
pub(crate) async fn stored(store: &dyn Store) -> Versions {
    let copy = replica::contents(store, &TYPES).await;
    copy.iter().map(|(name, text)| (name.clone(), version(text))).collect()
}

/// What the server's `$export` has of the page's types.
pub(crate) async fn exported(base: &str) -> Versions {
    let url = format!("{base}/fhir/$export?_type={}", TYPES.join(","));
    let request = client().get(url).header("accept", "application/fhir+ndjson");
    let answer = request.send().await.expect("an answer").text().await.expect("text");
    let identified = |line: &str| (replica::identity(line).0, version(line));
    answer.lines().map(identified).collect()
}

fn version(json: &str) -> String {
    replica::identity(json).1.expect("a version")
}

/// What the page's model holds. Only gaps among the DetectedIssues are in it.
pub(crate) async fn held(browser: &Browser) -> Versions {
    const SCRIPT: &str = "Object.fromEntries([
        ...[...page.model.gaps.values()].map(one => ['DetectedIssue/' + one.id, one.version]),
        ...[...page.model.reports.values()].map(one => ['MeasureReport/' + one.id, one.version]),
        ...[...page.model.compositions.values()].map(one => ['Composition/' + one.id, one.version]),
        ...[...page.model.rows.values()].filter(row => row.facts)
            .map(row => ['Patient/' + row.facts.id, row.facts.version]),
    ])";
    serde_json::from_value(browser.ask(SCRIPT).await).expect("texts")
}

/// The page's counts: open, prospective, closed, not applicable, other.
pub(crate) async fn totals(browser: &Browser) -> Vec<u64> {
    serde_json::from_value(browser.ask("page.model.totals").await).expect("numbers")
}
