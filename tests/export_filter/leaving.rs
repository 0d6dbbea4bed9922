//! What comes into a stream's search, and what leaves it.

use support::{
    self, App, Bench,
    stream::EventStream,
    writes::{commit, delete},
};

use crate::tools::{FINAL, history, next, observed, words};

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
