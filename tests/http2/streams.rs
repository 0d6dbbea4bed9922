//! What a client of HTTP/2 gets: what those of HTTP/1.1 get.

use fhirtail::client::sse::Item;
use support::{
    App, Bench,
    certificate::Issued,
    embedded,
    http2::{Ended, Http2},
    mongo,
    replica::{Replica, contents},
    stream::{EventStream, PATIENCE},
    writes::{commit, delete, observation, patient, put},
};
use tokio::{sync::oneshot, time::timeout};

use crate::{PATIENTS, populate};

const ALL: &str = "/fhir/$export?_type=Patient,Observation";

/// A server and a connection to it, encrypted or not.
async fn connected(bench: &Bench, issued: Option<&Issued>) -> (App, Http2, Ended) {
    let Some(issued) = issued else {
        let app = App::start(bench.store.clone()).await;
        let (client, ended) = Http2::connect(app.address).await;
        return (app, client, ended);
    };
    let arguments = issued.arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let app = App::with(bench.store.clone(), &arguments).await;
    let (client, ended) = Http2::encrypted(app.address, issued).await;
    (app, client, ended)
}

async fn history_then_changes_then_a_resume(bench: Bench, issued: Option<Issued>) {
    populate(&bench.store, 3, 10).await;
    let (app, client, _) = connected(&bench, issued.as_ref()).await;
    let mut stream = client.open(PATIENTS, &[]).await;
    assert_eq!(stream.response_headers["content-type"], "text/event-stream");
    assert_eq!(stream.until("caught-up").await.len(), 4);
    commit(bench.store.as_ref(), vec![put(&patient(7, "first"))]).await;
    let first = stream.event().await.expect("a change");
    assert!(first.data.contains("first"), "{first:?}");
    commit(bench.store.as_ref(), vec![put(&patient(8, "second"))]).await;
    let second = stream.event().await.expect("a change");

    let mut resumed = client.open(PATIENTS, &[("last-event-id", &first.id)]).await;
    let missed = resumed.until("caught-up").await;
    assert_eq!((missed.len(), &missed[0]), (2, &second));

    // What names the server names it as its client does.
    let (_, bundle) = client.text("/fhir/Patient?_id=p7").await;
    let bundle: serde_json::Value = serde_json::from_str(&bundle).expect("JSON");
    assert_eq!(bundle["entry"][0]["fullUrl"], app.url("/fhir/Patient/p7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_clear() {
    history_then_changes_then_a_resume(embedded(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls() {
    history_then_changes_then_a_resume(embedded(), Some(Issued::fresh())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_from_mongodb() {
    let Some(bench) = mongo().await else { return };
    history_then_changes_then_a_resume(bench, Some(Issued::fresh())).await;
}

/// Follows to the farewell; tells once it has the last patient.
async fn replicate(mut stream: EventStream, has_all: oneshot::Sender<()>) -> Replica {
    let mut replica = Replica::default();
    let mut has_all = Some(has_all);
    let mut last = None;
    // What is encoded says at its end what it was, and that is checked.
    while let Some(item) = stream.item().await {
        if let Item::Event(event) = &item {
            replica.take(event);
        }
        if replica.copy.contains_key("Patient/p99")
            && let Some(has_all) = has_all.take()
        {
            has_all.send(()).expect("somebody waits");
        }
        last = Some(item);
    }
    assert!(matches!(last, Some(Item::Retry(_))), "{last:?}");
    replica
}

/// A hundred streams on one connection, plain and in gzip, from history to farewell.
async fn a_hundred_at_once(issued: Option<Issued>) {
    let bench = embedded();
    populate(&bench.store, 20, 2_000).await;
    let (app, client, ended) = connected(&bench, issued.as_ref()).await;
    let mut followers = Vec::new();
    for n in 0..100 {
        let encoded = ("accept-encoding", "gzip, deflate, br, zstd");
        let headers: &[_] = if n % 2 == 0 { &[] } else { &[encoded] };
        let stream = client.open(ALL, headers).await;
        let coding = stream.response_headers.get("content-encoding");
        assert_eq!(coding.is_some_and(|coding| coding == "gzip"), n % 2 == 1, "{coding:?}");
        let (tell, told) = oneshot::channel();
        followers.push((tokio::spawn(replicate(stream, tell)), told));
    }
    for n in 0..200 {
        let mut writes = vec![put(&observation(n % 20, n % 3, &n.to_string()))];
        if n % 7 == 0 {
            writes.push(delete("Observation", &format!("o{}", (n + 5) % 20)));
        }
        commit(bench.store.as_ref(), writes).await;
    }
    commit(bench.store.as_ref(), vec![put(&patient(99, "last"))]).await;
    let all = contents(bench.store.as_ref(), &["Patient", "Observation"]).await;
    let mut replicas = Vec::new();
    for (follower, has_all) in followers {
        timeout(PATIENCE, has_all).await.expect("it gets all").expect("it follows");
        replicas.push(follower);
    }
    let stopping = tokio::spawn(app.stop());
    for replica in replicas {
        assert_eq!(replica.await.expect("a follower").copy, all);
    }
    stopping.await.expect("the server stops");
    ended.await.expect("the connection ends").expect("in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_in_the_clear() {
    a_hundred_at_once(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_over_tls() {
    a_hundred_at_once(Some(Issued::fresh())).await;
}

/// Lines, a Bundle, a write with a body, and a refusal.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_stream() {
    let bench = embedded();
    populate(&bench.store, 3, 100_000).await;
    let app = App::start(bench.store.clone()).await;
    let (client, _) = Http2::connect(app.address).await;
    let (head, lines) = client.text(PATIENTS).await;
    assert_eq!(head["content-type"], "application/fhir+ndjson");
    assert_eq!((lines.lines().count(), lines.len() > 300_000), (3, true));
    let (head, patient) = client.text("/fhir/Patient/p1").await;
    let length: usize = head["content-length"].to_str().expect("text").parse().expect("a number");
    assert_eq!(length, patient.len());

    let body = r#"{"resourceType":"Patient","id":"new"}"#;
    let json = [("content-type", "application/fhir+json")];
    let request = client.request(axum::http::Method::PUT, "/fhir/Patient/new", &json);
    let (answer, mut sends) = client.ask(request, false).await.expect("a stream");
    sends.send_data(body.into(), true).expect("a body");
    assert_eq!(answer.await.expect("an answer").status(), 201);

    let refused = client.get("/fhir/$export?_type=Nothing", &[]).await.expect("an answer");
    assert_eq!(refused.status(), 400);
}
