//! What these tests write, ask and read.

use fhirtail::client::sse::Event;
use reqwest::Response;
use serde_json::{Value, json};

use support::{
    App, Bench, client,
    stream::EventStream,
    writes::{commit, put},
};

pub(crate) const FINAL: &str =
    "/fhir/$export?_type=Observation&_typeFilter=Observation%3Fstatus%3Dfinal";

pub(crate) fn observation(id: &str, status: &str, patient: &str, text: &str) -> Value {
    json!({
        "resourceType": "Observation", "id": id, "status": status, "code": {"text": "weight"},
        "subject": {"reference": format!("Patient/{patient}")}, "valueString": text,
    })
}

pub(crate) async fn observed(bench: &Bench, id: &str, status: &str, text: &str) {
    commit(&*bench.store, vec![put(&observation(id, status, "1", text))]).await;
}

/// What a client does with an event, in a few words.
pub(crate) fn words(event: &Event) -> String {
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
pub(crate) async fn next(stream: &mut EventStream, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(words(&stream.event().await.expect("the stream goes on")));
    }
    all
}

/// All up to `caught-up`, in words.
pub(crate) async fn history(stream: &mut EventStream) -> Vec<String> {
    let mut events = stream.until("caught-up").await;
    events.pop();
    events.iter().map(words).collect()
}

pub(crate) async fn get(app: &App, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = client().get(app.url(path));
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().await.expect("an answer")
}

/// The refusal of a request: its status and its words.
pub(crate) async fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    let outcome: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
    assert_eq!(outcome["resourceType"], "OperationOutcome", "{text}");
    (status, outcome["issue"][0]["diagnostics"].as_str().expect("words").to_owned())
}

pub(crate) async fn lines(app: &App, path: &str) -> Vec<Value> {
    let response = get(app, path, &[("accept", "application/fhir+ndjson")]).await;
    assert_eq!(response.status(), 200, "{path}");
    let text = response.text().await.expect("all of it");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub(crate) async fn posted(app: &App, path: &str, accept: &str, body: &Value) -> Response {
    let request = client().post(app.url(path)).header("accept", accept);
    let request = request.header("content-type", "application/fhir+json").body(body.to_string());
    request.send().await.expect("an answer")
}

pub(crate) fn parameters(list: &[(&str, &str, &str)]) -> Value {
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
