//! A position that the log no longer honours: the client hears `reset`, then a whole history.
//! Never silence, never "from now".
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use fhirtail::{
    client::sse::Event,
    position::{LogPosition, Position},
    store::{Store, embedded::EmbeddedOptions},
};
use support::{
    Bench,
    app::App,
    chaos,
    mongod::ReplicaSet,
    replica::{Replica, contents},
    stream::{EventStream, PATIENCE},
    writes::{commit, group, observation, patient, put},
};

const QUERY: &str = "/fhir/$export?_type=Patient,Observation";

/// Reads from an id on until caught up.
async fn from(app: &App, query: &str, id: &str, mut replica: Replica) -> Replica {
    replica.caught_up = false;
    let mut stream = EventStream::open(&app.url(query), Some(id)).await;
    while !replica.caught_up {
        replica.take(&stream.event().await.expect("the stream goes on"));
    }
    replica
}

async fn assert_starts_over(app: &App, store: &dyn Store, id: &str) {
    let mut stream = EventStream::open(&app.url(QUERY), Some(id)).await;
    let first = stream.event().await.expect("an event");
    assert_eq!((first.event.as_str(), first.id.as_str()), ("reset", ""), "{id}");
    assert!(first.data.contains("OperationOutcome"), "{first:?}");
    let replica = from(app, QUERY, id, Replica::default()).await;
    assert_eq!(replica.resets, 1, "{id}");
    assert_eq!(replica.copy, contents(store, &["Observation", "Patient"]).await, "{id}");
}

/// A server with a small ring, and the history that a client took from it before it went away.
async fn left_after_the_history(bench: &Bench) -> (App, Vec<Event>) {
    for n in 0..30 {
        let writes = vec![put(&patient(n, "before")), put(&observation(n, n, "before"))];
        commit(bench.store.as_ref(), writes).await;
    }
    let app = App::with(bench.store.clone(), &["--ring-bytes", "5000"]).await;
    let history = EventStream::open(&app.url(QUERY), None).await.until("caught-up").await;
    (app, history)
}

/// The log holds 20 KB; more than that is written behind a client's back.
fn small_log() -> Bench {
    support::embedded_with(EmbeddedOptions { log_bytes: 20_000, ..EmbeddedOptions::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_trimmed_past_the_position() {
    let bench = small_log();
    let store = bench.store.as_ref();
    let (app, history) = left_after_the_history(&bench).await;
    for n in 0..400 {
        commit(store, vec![put(&patient(n, "after"))]).await;
    }
    for event in [&history[0], &history[20], history.last().expect("caught-up")] {
        assert_starts_over(&app, store, &event.id).await;
    }
}

/// The smallest oplog that mongod takes, and checkpoints every second, so that it is trimmed.
#[tokio::test(flavor = "multi_thread")]
async fn an_oplog_trimmed_past_the_position() {
    use mongodb::bson::{Document, doc};
    let arguments = ["--oplogSize", "1", "--syncdelay", "1"];
    let Some(set) = ReplicaSet::start(1, &arguments).await else { return };
    let bench = support::mongo_in(&set).await;
    let store = bench.store.as_ref();
    let (app, history) = left_after_the_history(&bench).await;
    let end = history.last().expect("caught-up").id.parse::<Position>().expect("a position");
    let oplog = set.client().await.database("local").collection::<Document>("oplog.rs");
    let text = "x".repeat(20_000);
    let started = std::time::Instant::now();
    loop {
        for n in 0..100 {
            commit(store, vec![put(&patient(n, &format!("{} {text}", chaos::stamp())))]).await;
        }
        let first = oplog.find_one(doc! {}).sort(doc! {"$natural": 1}).await.expect("an oplog");
        let first = first.expect("an entry").get_timestamp("ts").expect("ts");
        if u64::from(first.time) > end.log.time >> 32 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the oplog is not trimmed");
    }
    for event in [&history[0], &history[20], history.last().expect("caught-up")] {
        assert_starts_over(&app, store, &event.id).await;
    }
}

/// A copy of the whole database, our own collections included, in another replica set: what a dump
/// that is restored there makes.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_into_another_set() {
    use futures_util::TryStreamExt;
    use mongodb::{Client, bson::Document};
    let Some(old) = ReplicaSet::start(1, &[]).await else { return };
    let Some(new) = ReplicaSet::start(1, &[]).await else { return };
    let bench = support::mongo_in(&old).await;
    commit(bench.store.as_ref(), vec![put(&patient(77, "x"))]).await;
    commit(bench.store.as_ref(), vec![support::writes::delete("Patient", "p77")]).await;
    let (app, history) = left_after_the_history(&bench).await;
    let from = Client::with_uri_str(&bench.name).await.expect("a client");
    let from = from.default_database().expect("a database");
    let to = new.client().await.database(from.name());
    let names = from.list_collection_names().await.expect("names");
    for name in &names {
        let all = from.collection::<Document>(name).find(mongodb::bson::doc! {}).await;
        let all: Vec<_> = all.expect("a cursor").try_collect().await.expect("documents");
        if !all.is_empty() {
            to.collection(name).insert_many(all).await.expect("copied");
        }
    }
    assert!(names.iter().any(|name| name == "fhirtail_deleted"), "{names:?}");
    app.stop().await;
    let uri = new.uri(from.name());
    let restored = fhirtail::store::mongo::MongoStore::connect(&uri, Default::default()).await;
    let restored = restored.expect("a store");
    commit(restored.as_ref(), vec![put(&patient(3, "since"))]).await;
    let app = App::start(restored.clone()).await;
    for event in [&history[0], &history[20], history.last().expect("caught-up")] {
        assert_starts_over(&app, restored.as_ref(), &event.id).await;
    }
}

/// A collection that goes all at once, and a database: whoever streams its type starts over.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_dropped_or_renamed() {
    let Some(bench) = support::mongo().await else { return };
    let store = bench.store.as_ref();
    for n in 0..10 {
        commit(store, vec![put(&patient(n, "x")), put(&observation(n, n, "x"))]).await;
    }
    let app = App::start(bench.store.clone()).await;
    let client = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
    let database = client.default_database().expect("a database");
    let mut both = EventStream::open(&app.url(QUERY), None).await;
    let mut patients = EventStream::open(&app.url("/fhir/$export?_type=Patient"), None).await;
    both.until("caught-up").await;
    patients.until("caught-up").await;

    database.collection::<mongodb::bson::Document>("Observation").drop().await.expect("dropped");
    let again = both.until("caught-up").await;
    assert_eq!((again[0].event.as_str(), again.len()), ("reset", 1 + 10 + 1));
    commit(store, vec![put(&patient(1, "y"))]).await;
    assert_eq!(patients.event().await.expect("an event").event, "Patient", "no reset here");
    assert_eq!(both.event().await.expect("an event").event, "Patient");

    // A rename is the end of one collection and, at the same place of the log, of the other.
    commit(store, vec![put(&observation(1, 1, "x")), put(&observation(2, 1, "x"))]).await;
    both.until_that(|event| event.data.contains("\"id\":\"o2\"")).await;
    let (from, to) =
        ["Observation", "Patient"].map(|ty| format!("{}.{ty}", database.name())).into();
    let rename = mongodb::bson::doc! { "renameCollection": from, "to": to, "dropTarget": true };
    client.database("admin").run_command(rename).await.expect("renamed");
    for stream in [&mut both, &mut patients] {
        let again = stream.until("caught-up").await;
        assert_eq!(again[0].event, "reset", "{again:?}");
    }

    database.drop().await.expect("dropped");
    for stream in [&mut both, &mut patients] {
        let again = stream.until("caught-up").await;
        let names: Vec<_> = again.iter().map(|event| event.event.as_str()).collect();
        assert!(names.contains(&"reset") && !names.contains(&"Patient"), "{names:?}");
    }
    commit(store, vec![put(&patient(1, "z"))]).await;
    for stream in [&mut both, &mut patients] {
        stream.until("Patient").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_of_elsewhere_and_of_the_future() {
    let (bench, other) = (support::embedded(), support::embedded());
    for n in 0..10 {
        commit(bench.store.as_ref(), vec![put(&patient(n, "here"))]).await;
        commit(other.store.as_ref(), vec![put(&patient(n, "there"))]).await;
    }
    let elsewhere = App::start(other.store.clone()).await;
    let mut stream = EventStream::open(&elsewhere.url(QUERY), None).await;
    let there = stream.until("caught-up").await;
    let app = App::start(bench.store.clone()).await;
    for event in &there {
        assert_starts_over(&app, bench.store.as_ref(), &event.id).await;
    }
    let mut stream = EventStream::open(&app.url(QUERY), None).await;
    let here = stream.until("caught-up").await;
    let last: Position = here.last().expect("caught-up").id.parse().expect("a position");
    let scanned: Position = here[0].id.parse().expect("a position");
    // As of a log that was set back to an older copy: by one change, by many.
    let ids = [(&last, 1), (&scanned, 1), (&last, 1_000_000)].map(|(position, changes)| {
        let log = LogPosition { time: last.log.time + changes, consumed: 1 };
        Position { log, ..position.clone() }.to_string()
    });
    let all = ids.iter().map(|id| assert_starts_over(&app, bench.store.as_ref(), id));
    futures_util::future::join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_other_members() {
    const GROUP: &str = "/fhir/Group/g/$export?_type=Patient,Observation";
    let bench = support::embedded();
    let store = bench.store.as_ref();
    for n in 0..6 {
        commit(store, vec![put(&patient(n, "x")), put(&observation(n, n, "x"))]).await;
    }
    commit(store, vec![put(&group("g", &[0, 1, 2]))]).await;
    let app = App::start(bench.store.clone()).await;
    let mut stream = EventStream::open(&app.url(GROUP), None).await;
    let history = stream.until("caught-up").await;
    assert_eq!(history.len(), 3 + 3 + 1);

    // Live: a change of the name alone is none of the members.
    let mut named = group("g", &[0, 1, 2]);
    named["name"] = "a name".into();
    commit(store, vec![put(&named), put(&patient(1, "y"))]).await;
    assert_eq!(stream.event().await.expect("an event").event, "Patient");
    commit(store, vec![put(&group("g", &[0, 1, 3]))]).await;
    let again = stream.until("caught-up").await;
    assert_eq!(again[0].event, "reset");
    let mut replica = Replica::default();
    again.iter().for_each(|event| replica.take(event));
    let urls: Vec<_> = replica.copy.keys().map(String::as_str).collect();
    let expected = [
        "Observation/o0",
        "Observation/o1",
        "Observation/o3",
        "Patient/p0",
        "Patient/p1",
        "Patient/p3",
    ];
    assert_eq!(urls, expected);

    // Resumed by an id of before, in the history and live.
    for event in &history {
        let resumed = from(&app, GROUP, &event.id, Replica::default()).await;
        assert_eq!((resumed.resets, &resumed.copy), (1, &replica.copy), "{}", event.id);
    }
    // Resumed by an id of after: nothing to say.
    let last = &again.last().expect("caught-up").id;
    assert_eq!(from(&app, GROUP, last, replica).await.resets, 1);

    // The group goes: its stream starts over, and ends.
    commit(store, vec![support::writes::delete("Group", "g")]).await;
    assert_eq!(stream.event().await.expect("an event").event, "reset");
    let why = stream.event().await.expect("a reason");
    assert_eq!(why.event, "OperationOutcome");
    assert!(why.data.contains("the group is not there any more"), "{why:?}");
    assert!(stream.event().await.is_none());
    assert_eq!(EventStream::request(&app.url(GROUP), None).await.status(), 404);
}
