//! Searches in a `_typeFilter`, and positions of them.

use serde_json::json;
use support::{
    self, App,
    stream::EventStream,
    writes::{commit, put},
};

use crate::tools::{FINAL, get, lines, next, observed, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_read_as_searches_are() {
    let bench = support::embedded();
    commit(&*bench.store, vec![put(&json!({"resourceType": "Patient", "id": "p"}))]).await;
    for (id, status) in [("a", "final"), ("b", "preliminary"), ("c", "amended")] {
        observed(&bench, id, status, id).await;
    }
    let app = App::start(bench.store.clone()).await;
    for (query, found) in [
        ("_typeFilter=Observation?status=final", "a p"),
        ("_typeFilter=Observation%3Fstatus%3Dfinal,Observation%3Fstatus%3Damended", "a c p"),
        ("_typeFilter=Observation?status=final&_typeFilter=Observation?status=amended", "a c p"),
        ("_typeFilter=Observation?status=final%2Camended", "a c p"),
        ("_typeFilter=Observation?status:not=final%26value-string=B", "b p"),
        ("_typeFilter=Observation?subject=Patient/2", "p"),
        ("_typeFilter=Observation?&_type=Observation", "a b c"),
        ("_typeFilter=Patient?active=true,Observation?status=final", "a"),
    ] {
        let lines = lines(&app, &format!("/fhir/$export?{query}")).await;
        let ids: Vec<_> = lines.iter().map(|line| line["id"].as_str().expect("an id")).collect();
        assert_eq!(ids.join(" "), found, "{query}");
    }
    let absolute = app.url("/fhir/Patient/1").replace(':', "%3A");
    let path = format!("/fhir/$export?_typeFilter=Observation?subject={absolute}");
    assert_eq!(lines(&app, &path).await.len(), 4, "a URL of this server's own");
    for (query, part) in [
        ("_typeFilter=Observation?color=red", "no search parameter"),
        ("_typeFilter=Observation?subject.name=x", "not supported"),
        ("_typeFilter=Patient?name=x&_type=Observation", "which this export does not hold"),
        ("_typeFilter=Observation?_sort=_id", "_sort"),
        ("_typeFilter=status=final", "Type?query"),
    ] {
        let path = format!("/fhir/$export?{query}");
        let (status, told) = refusal(get(&app, &path, &[]).await).await;
        assert!(status == 400 && told.contains(part), "{query}: {status} {told}");
    }
    let path = "/fhir/$export?_type=Observation&_typeFilter=Patient?name=x&\
                _typeFilter=Observation?status=final%26color=red";
    let lenient = get(&app, path, &[("prefer", "handling=lenient")]).await;
    let ignored = lenient.headers()["x-ignored-parameters"].to_str().expect("text").to_owned();
    assert_eq!(ignored, "_typeFilter=Patient?,_typeFilter=Observation?color");
    assert_eq!(lenient.text().await.expect("lines").lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_in_the_history_of_another_search_is_refused() {
    let bench = support::embedded();
    for id in ["a", "b"] {
        observed(&bench, id, "final", id).await;
    }
    let app = App::start(bench.store.clone()).await;
    let first = EventStream::open(&app.url(FINAL), None).await.event().await.expect("an event");
    let other = FINAL.replace("final", "amended");
    let response = EventStream::request(&app.url(&other), Some(&first.id)).await;
    let (status, told) = refusal(response).await;
    assert!(status == 400 && told.contains("history of another query"), "{told}");
    let mut same = EventStream::open(&app.url(FINAL), Some(&first.id)).await;
    assert_eq!(next(&mut same, 2).await, ["Observation b b", "caught up"]);
}
