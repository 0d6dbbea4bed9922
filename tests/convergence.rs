//! Writers at full speed while clients export: at rest each client's copy, built only from its
//! events, equals the database, and no stream carries a version twice.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{sync::Arc, time::Duration};

use fhirtail::{
    fhir::ResourceType,
    filter::{Filter, members_of},
    plan::{Grant, Plan, Scope},
    store::{Store, Window, embedded::EmbeddedOptions},
};
use jiff::{Timestamp, ToSpan};
use support::{
    app::App,
    chaos::{self, Dice, TYPES},
    converge, foreign,
    replica::contents,
    stream::EventStream,
    writes::ty,
};
use tokio::task::JoinHandle;

fn writers(store: &Arc<dyn Store>, each: usize) -> Vec<JoinHandle<()>> {
    (0..4).map(|seed| tokio::spawn(chaos::write(store.clone(), seed, each))).collect()
}

/// A clock that lies: days behind, days ahead, standing still.
fn lying_clock() -> EmbeddedOptions {
    let dice = std::sync::Mutex::new(Dice(7));
    let clock = move || {
        let days = dice.lock().expect("a clock").roll(5) as i64 - 2;
        Timestamp::now() + (24 * days).hours()
    };
    EmbeddedOptions { clock: Arc::new(clock), ..EmbeddedOptions::default() }
}

async fn everything_converges(
    store: Arc<dyn Store>,
    arguments: &[&str],
    writers: Vec<JoinHandle<()>>,
) {
    let apps =
        [App::with(store.clone(), arguments).await, App::with(store.clone(), arguments).await];
    let urls = apps.each_ref().map(|app| app.url("/fhir/$export?_type=Patient,Observation,Group"));
    let clients = converge::crowd(&urls);
    converge::written(writers, &store).await;
    let database = contents(store.as_ref(), &TYPES).await;
    assert!(database.len() > 200, "{}", database.len());
    converge::assert_equal(clients, &database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let bench = support::embedded_with(lying_clock());
    chaos::write(bench.store.clone(), 99, 300).await;
    let writers = writers(&bench.store, 400);
    everything_converges(bench.store, &[], writers).await;
}

/// The ring holds next to nothing: every client is behind it most of the time.
#[tokio::test(flavor = "multi_thread")]
async fn embedded_behind_the_ring() {
    let bench = support::embedded();
    chaos::write(bench.store.clone(), 99, 300).await;
    let writers = writers(&bench.store, 300);
    everything_converges(bench.store, &["--ring-bytes", "4000"], writers).await;
}

/// Snapshots live for a moment: every history goes on in newer and newer ones.
#[tokio::test(flavor = "multi_thread")]
async fn embedded_with_snapshots_that_expire() {
    let options = EmbeddedOptions { snapshot_life: Duration::from_millis(30), ..lying_clock() };
    let bench = support::embedded_with(options);
    chaos::write(bench.store.clone(), 99, 300).await;
    let writers = writers(&bench.store, 300);
    everything_converges(bench.store, &[], writers).await;
}

/// Only what lies in the members' compartments, though observations move between patients.
#[tokio::test(flavor = "multi_thread")]
async fn embedded_group() {
    let bench = support::embedded();
    chaos::write_group(bench.store.as_ref(), 20).await;
    chaos::write(bench.store.clone(), 99, 300).await;
    let writers = writers(&bench.store, 300);
    let store = bench.store;
    let app = App::start(store.clone()).await;
    let url = app.url("/fhir/Group/g/$export?_type=Patient,Observation");
    let clients: Vec<_> =
        [usize::MAX, 13, 40].into_iter().map(|every| grouped(url.clone(), every)).collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    // The last write is a member's own.
    let last = support::writes::patient(0, "last");
    support::writes::commit(store.as_ref(), vec![support::writes::put(&last)]).await;
    let members = members_of(
        support::writes::group("g", &(0..20).collect::<Vec<_>>()).to_string().as_bytes(),
    )
    .expect("a group");
    let types = [ty("Patient"), ty("Observation")];
    let plan = Plan::new(
        Scope::Group("g".into()),
        Some(&types),
        Window::default(),
        true,
        Grant::Everything,
    );
    let filter = Filter { plan: &plan, members: Some(&members) };
    let mut database = contents(store.as_ref(), &["Patient", "Observation"]).await;
    let all = database.len();
    database.retain(|url, json| {
        let (name, id) = url.split_once('/').expect("Type/id");
        let ty = ResourceType::parse(name).expect("a type");
        filter.holds(ty, id, &json.clone().into())
    });
    assert!(database.len() > 50 && database.len() < all, "{} of {all}", database.len());
    converge::assert_equal(clients, &database).await;
}

fn grouped(url: String, every: usize) -> JoinHandle<support::replica::Replica> {
    tokio::spawn(async move {
        let mut replica = support::replica::Replica::default();
        let mut last_id: Option<String> = None;
        loop {
            let mut stream = EventStream::open(&url, last_id.as_deref()).await;
            replica.caught_up = false;
            for _ in 0..every {
                let event = stream.event().await.expect("the stream goes on");
                last_id = Some(event.id.clone()).filter(|id| !id.is_empty());
                replica.take(&event);
                let is_last = |json: &String| json.contains("\"last\"");
                if replica.caught_up && replica.copy.get("Patient/p0").is_some_and(is_last) {
                    return replica;
                }
            }
        }
    })
}

/// Writers of all kinds on MongoDB: this server's own transactions, and programs that know
/// nothing of it.
async fn mongo_writers(bench: &support::Bench, each: usize) -> Vec<JoinHandle<()>> {
    let uri = &bench.name;
    let client = mongodb::Client::with_uri_str(uri).await.expect("a client");
    let database = client.default_database().expect("a database");
    let foreign = |seed| tokio::spawn(foreign::write(database.clone(), seed, each));
    let mut all: Vec<_> = (0..2).map(foreign).collect();
    all.extend((0..2).map(|n| tokio::spawn(chaos::write(bench.store.clone(), n, each))));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    let Some(bench) = support::mongo().await else { return };
    chaos::write(bench.store.clone(), 99, 300).await;
    let writers = mongo_writers(&bench, 300).await;
    everything_converges(bench.store, &[], writers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_behind_the_ring() {
    let Some(bench) = support::mongo().await else { return };
    chaos::write(bench.store.clone(), 99, 300).await;
    let writers = mongo_writers(&bench, 200).await;
    everything_converges(bench.store, &["--ring-bytes", "4000"], writers).await;
}

/// Collections that others made: no before- and no after-images, so that an update's document
/// is looked up, and may be newer than the update, or gone.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb_without_images() {
    let Some(bench) = support::mongo().await else { return };
    let client = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
    let database = client.default_database().expect("a database");
    for name in TYPES {
        database.create_collection(name).await.expect("a collection");
    }
    chaos::write(bench.store.clone(), 99, 300).await;
    let writers = mongo_writers(&bench, 300).await;
    everything_converges(bench.store, &[], writers).await;
}
