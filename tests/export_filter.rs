//! Streams that carry a part of the store: `_typeFilter`, and what leaves it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod support;

use fhirtail::client::sse::Event;
use reqwest::Response;
use serde_json::{Value, json};
use support::{
    App, Bench, client,
    stream::EventStream,
    writes::{commit, delete, put},
};

fn observation(id: &str, status: &str, patient: &str, text: &str) -> Value {
    json!({
        "resourceType": "Observation", "id": id, "status": status, "code": {"text": "weight"},
        "subject": {"reference": format!("Patient/{patient}")}, "valueString": text,
    })
}

async fn observed(bench: &Bench, id: &str, status: &str, text: &str) {
    commit(&*bench.store, vec![put(&observation(id, status, "1", text))]).await;
}

/// What a client does with an event, in a few words.
fn words(event: &Event) -> String {
    let data: Value = serde_json::from_str(&event.data).expect("JSON");
    match event.event.as_str() {
        "deleted" => {
            let request = &data["entry"][0]["request"];
            assert_eq!(request["method"], "DELETE");
            let url = request["url"].as_str().expect("a URL");
            match data["meta"]["tag"][0]["code"].as_str() {
                Some(reason) => format!("{reason} {url}"),
                None => format!("deleted {url}"),
            }
        }
        "caught-up" => "caught up".into(),
        "reset" => "reset".into(),
        name => {
            let value = data["valueString"].as_str().unwrap_or_default();
            format!("{name} {} {value}", data["id"].as_str().expect("an id")).trim().to_owned()
        }
    }
}

/// The next events, in words.
async fn next(stream: &mut EventStream, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(words(&stream.event().await.expect("the stream goes on")));
    }
    all
}

/// All up to `caught-up`, in words.
async fn history(stream: &mut EventStream) -> Vec<String> {
    let mut events = stream.until("caught-up").await;
    events.pop();
    events.iter().map(words).collect()
}

async fn get(app: &App, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = client().get(app.url(path));
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().await.expect("an answer")
}

/// The refusal of a request: its status and its words.
async fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    let outcome: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
    assert_eq!(outcome["resourceType"], "OperationOutcome", "{text}");
    (status, outcome["issue"][0]["diagnostics"].as_str().expect("words").to_owned())
}

async fn lines(app: &App, path: &str) -> Vec<Value> {
    let response = get(app, path, &[("accept", "application/fhir+ndjson")]).await;
    assert_eq!(response.status(), 200, "{path}");
    let text = response.text().await.expect("all of it");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

const FINAL: &str = "/fhir/$export?_type=Observation&_typeFilter=Observation%3Fstatus%3Dfinal";

/// Enters, changes, leaves, comes back, is deleted: and nothing of what was never found.
async fn a_resource_comes_and_goes(bench: &Bench) -> (App, String) {
    for (id, status) in [("a", "final"), ("b", "preliminary"), ("c", "final")] {
        observed(bench, id, status, "1").await;
    }
    let app = App::start(bench.store.clone()).await;
    let mut stream = EventStream::open(&app.url(FINAL), None).await;
    assert_eq!(history(&mut stream).await, ["Observation a 1", "Observation c 1"]);
    let steps = [("b", "final", "2"), ("a", "final", "2"), ("a", "preliminary", "3")];
    for (id, status, text) in steps {
        observed(bench, id, status, text).await;
    }
    observed(bench, "a", "final", "4").await;
    commit(&*bench.store, vec![delete("Observation", "a")]).await;
    let expected = [
        "Observation b 2",
        "Observation a 2",
        "left-stream Observation/a",
        "Observation a 4",
        "deleted Observation/a",
    ];
    let mut events = Vec::new();
    for _ in expected {
        events.push(stream.event().await.expect("the stream goes on"));
    }
    assert_eq!(events.iter().map(words).collect::<Vec<_>>(), expected);
    // Cut before the first of them, and resumed.
    let before = EventStream::open(&app.url(FINAL), None).await.until("caught-up").await;
    let id = before.last().expect("an event").id.clone();
    observed(bench, "b", "preliminary", "5").await;
    let mut again = EventStream::open(&app.url(FINAL), Some(&id)).await;
    assert_eq!(next(&mut again, 2).await, ["left-stream Observation/b", "caught up"]);
    assert_eq!(next(&mut stream, 1).await, ["left-stream Observation/b"]);
    let mut late = EventStream::open(&app.url(FINAL), Some(&events[1].id)).await;
    let missed = ["left-stream Observation/a", "Observation a 4", "deleted Observation/a"];
    assert_eq!(next(&mut late, 3).await, missed);
    (app, id)
}

/// What never was in the stream costs its client nothing.
async fn what_is_not_found_is_not_told(bench: &Bench, app: &App) {
    let mut stream = EventStream::open(&app.url(FINAL), None).await;
    history(&mut stream).await;
    for text in ["1", "2"] {
        observed(bench, "n", "preliminary", text).await;
    }
    commit(&*bench.store, vec![delete("Observation", "n")]).await;
    observed(bench, "z", "final", "end").await;
    assert_eq!(next(&mut stream, 1).await, ["Observation z end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let bench = support::embedded();
    let (app, _) = a_resource_comes_and_goes(&bench).await;
    what_is_not_found_is_not_told(&bench, &app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    let Some(bench) = support::mongo().await else { return };
    let (app, _) = a_resource_comes_and_goes(&bench).await;
    what_is_not_found_is_not_told(&bench, &app).await;
}

/// A collection without before-images: whatever is not found may have been.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb_without_images() {
    let Some(bench) = support::mongo().await else { return };
    without_images(&bench).await;
    let (app, _) = a_resource_comes_and_goes(&bench).await;
    let mut stream = EventStream::open(&app.url(FINAL), None).await;
    history(&mut stream).await;
    // That it was not there before is known of an insert.
    for text in ["1", "2"] {
        observed(&bench, "n", "preliminary", text).await;
    }
    commit(&*bench.store, vec![delete("Observation", "n")]).await;
    let told = ["left-stream Observation/n", "deleted Observation/n"];
    assert_eq!(next(&mut stream, 2).await, told);
}

async fn without_images(bench: &Bench) {
    let client = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
    let database = client.default_database().expect("a database");
    for name in ["Observation", "Patient"] {
        database.create_collection(name).await.expect("a collection");
    }
}

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

async fn posted(app: &App, path: &str, accept: &str, body: &Value) -> Response {
    let request = client().post(app.url(path)).header("accept", accept);
    let request = request.header("content-type", "application/fhir+json").body(body.to_string());
    request.send().await.expect("an answer")
}

fn parameters(list: &[(&str, &str, &str)]) -> Value {
    let parameter = |(name, member, value): &(&str, &str, &str)| {
        let value = match *member {
            "valueReference" => json!({"reference": value}),
            _ => json!(value),
        };
        json!({"name": name, *member: value})
    };
    let list: Vec<_> = list.iter().map(parameter).collect();
    json!({"resourceType": "Parameters", "parameter": list})
}

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

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_or_refused() {
    let bench = support::embedded();
    for (id, status) in [("a", "final"), ("b", "preliminary")] {
        observed(&bench, id, status, "1").await;
    }
    let app = App::start(bench.store.clone()).await;
    let search = ("_typeFilter", "valueString", "Observation?status=final,amended");
    let shape = ("_elements", "valueString", "valueString");
    let body = parameters(&[search, shape]);
    for path in ["/fhir/$export", "/fhir/Observation/$export", "/fhir/%24export?_type=Observation"]
    {
        let answer = posted(&app, path, "*/*", &body).await.text().await.expect("lines");
        assert_eq!(answer.lines().count(), 1, "{path}: {answer}");
        assert!(answer.contains("SUBSETTED") && !answer.contains("subject"), "{answer}");
        let mut stream = EventStream::of(posted(&app, path, "text/event-stream", &body).await);
        assert_eq!(history(&mut stream).await, ["Observation a 1"]);
    }
    let empty = client().post(app.url("/fhir/$export")).send().await.expect("an answer");
    assert_eq!(empty.text().await.expect("lines").lines().count(), 2);
    for (body, status, part) in [
        ("{", 400, "not JSON"),
        ("[]", 400, "object"),
        (r#"{"resourceType":"Patient"}"#, 400, "Send a Parameters"),
        (r#"{"resourceType":"Parameters","parameter":[{"name":"_type"}]}"#, 400, "parameter[0]"),
        (
            r#"{"resourceType":"Parameters","parameter":[{"name":"x","valueString":"y"}]}"#,
            400,
            "'x' is not known",
        ),
        (
            r#"{"resourceType":"Parameters","parameter":[{"name":"patient","valueString":"1"}]}"#,
            400,
            "/Patient/$export",
        ),
    ] {
        let request = client().post(app.url("/fhir/$export")).body(body);
        let request = request.header("content-type", "application/fhir+json");
        let (given, told) = refusal(request.send().await.expect("an answer")).await;
        assert!(given == status && told.contains(part), "{body}: {given} {told}");
    }
    let form = client().post(app.url("/fhir/$export")).body("_type=Patient");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(refusal(form.send().await.expect("an answer")).await.0, 415);
}
