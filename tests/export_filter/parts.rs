//! `_elements`: a part of each resource, in history, in its lines, and live.

use fhirtail::client::sse::Event;
use serde_json::{Value, json};
use support::{
    self, App, Bench,
    stream::EventStream,
    writes::{commit, delete, put},
};

use crate::tools::{get, lines, next, observed, refusal};

/// What must be there, what was asked for, and a mark: in history, in its lines, and live.
async fn a_part_of_each_resource(bench: Bench) {
    let patient =
        json!({"resourceType": "Patient", "id": "p", "gender": "male", "birthDate": "1990"});
    commit(&*bench.store, vec![put(&patient)]).await;
    observed(&bench, "a", "final", "1").await;
    let app = App::start(bench.store.clone()).await;
    let query = "/fhir/$export?_type=Observation,Patient&_elements=Observation.valueString,gender";
    let is_part = |resource: &Value| {
        let members: Vec<_> = resource.as_object().expect("an object").keys().cloned().collect();
        let expected: &[&str] = match resource["resourceType"].as_str() {
            Some("Patient") => &["resourceType", "id", "meta", "gender"],
            _ => &["resourceType", "id", "meta", "status", "code", "valueString"],
        };
        assert_eq!(members, expected);
        assert_eq!(resource["meta"]["tag"][0]["code"], "SUBSETTED");
        assert!(resource["meta"]["versionId"].is_string(), "{resource}");
    };
    let lines = lines(&app, query).await;
    assert_eq!(lines.len(), 2);
    lines.iter().for_each(is_part);
    let parsed = |event: &Event| serde_json::from_str::<Value>(&event.data).expect("JSON");
    let mut streams = [
        EventStream::open(&app.url(query), None).await,
        EventStream::open(&app.url("/fhir/$export?_type=Observation"), None).await,
    ];
    let history = streams[0].until("caught-up").await;
    assert_eq!(history.iter().map(parsed).take(2).collect::<Vec<_>>(), lines);
    streams[1].until("caught-up").await;
    // Twice: the second finds the stream in the crowd.
    for text in ["2", "3"] {
        observed(&bench, "a", "final", text).await;
        let part = parsed(&streams[0].event().await.expect("the stream goes on"));
        assert_eq!(part["valueString"], text);
        is_part(&part);
        let whole = parsed(&streams[1].event().await.expect("the stream goes on"));
        assert!(whole["subject"].is_object() && whole["meta"]["tag"].is_null(), "{whole}");
    }
    commit(&*bench.store, vec![delete("Observation", "a")]).await;
    for stream in &mut streams {
        assert_eq!(next(stream, 1).await, ["deleted Observation/a"]);
    }
    // A type of which no element is named comes whole.
    let typed = format!("{query}&_type=Observation").replace("gender", "Observation.code");
    let patients = get(&app, &typed, &[]).await.text().await.expect("lines");
    assert_eq!(patients.lines().count(), 1);
    assert!(patients.contains("birthDate") && !patients.contains("SUBSETTED"), "{patients}");
    for (elements, part) in
        [("Patient.name.given", "no element"), ("Basic.code", "does not hold"), ("", "no element")]
    {
        let path = format!("/fhir/$export?_type=Patient&_elements={elements}");
        let (status, told) = refusal(get(&app, &path, &[]).await).await;
        assert!(status == 400 && told.contains(part), "{elements}: {status} {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_parts() {
    a_part_of_each_resource(support::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_parts() {
    let Some(bench) = support::mongo().await else { return };
    a_part_of_each_resource(bench).await;
}
