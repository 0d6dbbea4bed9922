//! `patient`: of whose compartments alone a stream is.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;
use support::{
    self, App, Bench,
    stream::EventStream,
    watched::Watched,
    writes::{commit, delete, put},
};

use crate::tools::{get, history, next, observation, parameters, posted, refusal, words};

/// Two patients, what is theirs, and what comes and goes between them.
async fn named_patients(bench: Bench) {
    let patient = |id: &str| json!({"resourceType": "Patient", "id": id});
    let member = |id: &str| json!({"entity": {"reference": format!("Patient/{id}")}});
    let group = |ids: &[&str]| {
        let members: Vec<_> = ids.iter().map(|id| member(id)).collect();
        json!({"resourceType": "Group", "id": "g", "type": "person", "actual": true,
            "member": members})
    };
    commit(&*bench.store, ["1", "2", "3"].map(|id| put(&patient(id))).to_vec()).await;
    commit(&*bench.store, vec![put(&group(&["1", "2"]))]).await;
    let write = async |id: &str, patient: &str, text: &str| {
        commit(&*bench.store, vec![put(&observation(id, "final", patient, text))]).await;
    };
    for id in ["1", "2", "3"] {
        write(&format!("o{id}"), id, "1").await;
    }
    let app = App::start(bench.store.clone()).await;
    let body = parameters(&[
        ("patient", "valueReference", "Patient/1"),
        ("patient", "valueReference", "Patient/2"),
        ("_type", "valueString", "Observation"),
    ]);
    let expected = ["Observation o1 1", "Observation o2 1"];
    let query = "_type=Observation&patient=Patient/1,2";
    let path = format!("/fhir/Patient/$export?{query}");
    let post = posted(&app, "/fhir/Patient/$export", "text/event-stream", &body).await;
    assert_eq!(post.status(), 200);
    let of_group = format!("/fhir/Group/g/$export?{query}");
    let mut streams = [
        EventStream::open(&app.url(&path), None).await,
        EventStream::of(post),
        EventStream::open(&app.url(&of_group), None).await,
    ];
    for stream in &mut streams {
        assert_eq!(history(stream).await, expected);
    }
    let lines = posted(&app, "/fhir/Patient/$export", "application/fhir+ndjson", &body).await;
    assert_eq!(lines.text().await.expect("lines").lines().count(), 2);
    write("o3", "2", "2").await;
    write("o1", "3", "2").await;
    write("o9", "3", "2").await;
    write("o2", "1", "3").await;
    let live = ["Observation o3 2", "left-stream Observation/o1", "Observation o2 3"];
    let mut ids = Vec::new();
    for stream in &mut streams {
        let event = stream.event().await.expect("the stream goes on");
        assert_eq!(words(&event), live[0]);
        ids.push(event.id);
        assert_eq!(next(stream, 2).await, live[1..]);
    }
    // Cut, and resumed; whoever was deleted meanwhile.
    commit(&*bench.store, vec![delete("Patient", "1")]).await;
    let mut resumed = EventStream::open(&app.url(&path), Some(&ids[0])).await;
    assert_eq!(next(&mut resumed, 3).await, [live[1], live[2], "caught up"]);
    let (status, told) = refusal(get(&app, &path, &[]).await).await;
    assert!(status == 404 && told.contains("no Patient/1"), "{status} {told}");
    for (all, absent) in [("2,3", None), ("2,3,4", Some("4")), ("4", Some("4")), ("1", Some("1"))] {
        let path = format!("/fhir/Patient/$export?patient={all}");
        let answer = get(&app, &path, &[]).await;
        match absent {
            None => assert_eq!(answer.status(), 200),
            Some(id) => {
                let (status, told) = refusal(answer).await;
                assert!(status == 404 && told.contains(&format!("no Patient/{id}.")), "{told}");
            }
        }
    }
    let lenient = get(&app, &path, &[("prefer", "handling=lenient")]).await;
    assert_eq!(lenient.text().await.expect("lines").lines().count(), 2);
    // Of other members of the group nothing is heard; of its own it is.
    let mut of_two = EventStream::open(&app.url(&of_group.replace("1,2", "2")), None).await;
    history(&mut of_two).await;
    for ids in [&["1", "2", "3"][..], &["1", "3"]] {
        commit(&*bench.store, vec![put(&group(ids))]).await;
    }
    assert_eq!(next(&mut of_two, 1).await, ["reset"]);
    let stranger = of_group.replace("1,2", "2");
    let (status, told) = refusal(get(&app, &stranger, &[]).await).await;
    assert!(status == 404 && told.contains("no member"), "{status} {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_patients() {
    named_patients(support::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_patients() {
    let Some(bench) = support::mongo().await else { return };
    named_patients(bench).await;
}

/// Whether the patients are there is read from a snapshot. One that ends is no reason for an
/// EventSource to give up.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_ends_is_told_in_the_stream() {
    let bench = support::embedded();
    let patient = |id: &str| put(&json!({"resourceType": "Patient", "id": id}));
    commit(&*bench.store, ["1", "2"].map(patient).to_vec()).await;
    let (store, seen) = Watched::over(&bench.store);
    let app = App::start(store).await;
    let url = app.url("/fhir/Patient/$export?_type=Observation&patient=1,2");
    seen.expired.store(2, SeqCst);
    let mut stream = EventStream::open(&url, None).await;
    let event = stream.event().await.expect("why");
    assert_eq!(event.event, "OperationOutcome");
    assert!(event.data.contains("transient"), "{}", event.data);
    let preferred = support::client().get(&url).header("Accept", "text/event-stream");
    let preferred = preferred.header("Prefer", "respond-eventsource").send().await.expect("one");
    assert_eq!(preferred.status(), 503);
    assert!(preferred.headers().contains_key("retry-after"));
    assert_eq!(history(&mut EventStream::open(&url, None).await).await, Vec::<String>::new());
}
