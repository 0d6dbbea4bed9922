//! Cut and resume: whoever goes on from an id gets exactly what follows it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use fhirtail::{client::sse::Event, store::Store};
use support::{
    Bench,
    app::App,
    process::Process,
    replica::{Replica, contents},
    stream::EventStream,
    writes::{commit, delete, observation, patient, put},
};

const TYPES: [&str; 2] = ["Observation", "Patient"];
const QUERY: &str = "/fhir/$export?_type=Patient,Observation";

async fn populate(store: &dyn Store) {
    for n in 0..40 {
        let mut writes = vec![put(&patient(n, "first"))];
        writes.extend((0..3).map(|m| put(&observation(3 * n + m, n, "first"))));
        commit(store, writes).await;
    }
}

/// Creates, updates, deletions, transactions; the last write makes `Patient/last`.
async fn change(store: &dyn Store) {
    for n in 0..30 {
        commit(store, vec![put(&patient(n, "second"))]).await;
        let mut writes = vec![delete("Observation", &format!("o{}", 2 * n))];
        writes.extend((0..3).map(|m| put(&observation(200 + 3 * n + m, n, "second"))));
        commit(store, writes).await;
        commit(store, vec![delete("Patient", &format!("p{}", n + 5))]).await;
    }
    commit(store, vec![put(&serde_json::json!({"resourceType": "Patient", "id": "last"}))]).await;
}

fn is_last(event: &Event) -> bool {
    event.event == "Patient" && event.data.contains(r#""id":"last""#)
}

/// What a client keeps: every connection says `caught-up` for itself.
fn kept(events: &[Event]) -> Vec<(String, String)> {
    let is_kept = |event: &&Event| event.event != "caught-up";
    events.iter().filter(is_kept).map(|e| (e.event.clone(), e.data.clone())).collect()
}

/// Joined streams, cut after every event of the history, equal the uncut one.
async fn in_the_history(resumed: &str, uncut: &[Event]) {
    for cut in 0..uncut.len() {
        let id = uncut[cut].id.as_str();
        assert!(id.len() <= 128, "{id}");
        let rest = EventStream::open(resumed, Some(id)).await.until("caught-up").await;
        let joined: Vec<_> = uncut[..=cut].iter().chain(&rest).cloned().collect();
        assert_eq!(kept(&joined), kept(uncut), "cut after {cut}: {id}");
    }
}

/// The same in the live part, by events that were sent once.
async fn in_the_live_part(resumed: &str, live: &[Event]) {
    for cut in 0..live.len() - 1 {
        let mut rest = EventStream::open(resumed, Some(&live[cut].id)).await;
        let rest = rest.until_that(is_last).await;
        assert_eq!(kept(&rest), kept(&live[cut + 1..]), "cut after {cut}: {}", live[cut].id);
    }
}

/// A client that was cut in its history, and comes back when the database has moved on.
async fn across_changes(resumed: &str, store: &dyn Store, uncut: &[Event]) {
    let now = contents(store, &TYPES).await;
    for cut in (0..uncut.len()).step_by(7) {
        let mut replica = Replica::default();
        uncut[..=cut].iter().for_each(|event| replica.take(event));
        replica.caught_up = false;
        let mut stream = EventStream::open(resumed, Some(&uncut[cut].id)).await;
        while !replica.caught_up {
            replica.take(&stream.event().await.expect("the stream goes on"));
        }
        assert_eq!(replica.copy, now, "cut after {cut}");
    }
}

async fn cut_and_resume(bench: &Bench, resumed: &str) {
    let store = bench.store.as_ref();
    populate(store).await;
    let app = App::start(bench.store.clone()).await;
    let mut stream = EventStream::open(&app.url(QUERY), None).await;
    let history = stream.until("caught-up").await;
    assert_eq!(kept(&history).len(), 160);
    in_the_history(resumed, &history).await;

    change(store).await;
    let mut live = vec![history.last().expect("caught-up").clone()];
    live.extend(stream.until_that(is_last).await);
    assert!(kept(&live).len() > 150, "{}", live.len());
    in_the_live_part(resumed, &live).await;
    across_changes(resumed, store, &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let bench = support::embedded();
    let resumed = App::start(bench.store.clone()).await;
    cut_and_resume(&bench, &resumed.url(QUERY)).await;
}

/// The server that streams resume on is another process.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    let Some(bench) = support::mongo().await else { return };
    let resumed = Process::serve(&bench.name, &[]);
    cut_and_resume(&bench, &resumed.url(QUERY)).await;
}

/// The same server after a restart: on the embedded store no other process can.
#[tokio::test(flavor = "multi_thread")]
async fn embedded_after_a_restart() {
    let bench = support::embedded();
    populate(bench.store.as_ref()).await;
    bench.store.close().await;
    let Bench { store, name, keep } = bench;
    drop(store);
    let mut first = Process::serve(&name, &[]);
    let history = EventStream::open(&first.url(QUERY), None).await.until("caught-up").await;
    first.kill();
    let second = Process::serve(&name, &[]);
    for cut in (0..history.len()).step_by(20) {
        let mut rest = EventStream::open(&second.url(QUERY), Some(&history[cut].id)).await;
        let rest = rest.until("caught-up").await;
        assert_eq!(kept(&rest), kept(&history[cut + 1..]), "cut after {cut}");
    }
    drop(keep);
}

/// Who has all that was written is told so, though the server has started since, and nobody writes.
#[tokio::test(flavor = "multi_thread")]
async fn embedded_at_rest_after_a_restart() {
    let bench = support::embedded();
    bench.store.close().await;
    let Bench { store, name, keep } = bench;
    drop(store);
    let mut first = Process::serve(&name, &[]);
    let mut stream = EventStream::open(&first.url(QUERY), None).await;
    stream.until("caught-up").await;
    let last = serde_json::json!({"resourceType": "Patient", "id": "last"});
    let put = support::stream::client().put(first.url("/fhir/Patient/last"));
    let put = put.header("Content-Type", "application/fhir+json").body(last.to_string());
    assert_eq!(put.send().await.expect("an answer").status(), 201);
    let last = stream.until_that(is_last).await.pop().expect("the last change");
    first.kill();
    let second = Process::serve(&name, &["--look-back", "0"]);
    let rest = EventStream::open(&second.url(QUERY), Some(&last.id)).await.until("caught-up").await;
    assert!(kept(&rest).is_empty(), "{rest:#?}");
    drop(keep);
}
