//! `$export` as lines: an export that outlives its snapshot goes on in a newer one, and one that can't
//! be completed breaks off without an end.

use std::{sync::Arc, time::Duration};

use fhirtail::store::{Store, embedded::EmbeddedOptions};
use serde_json::{Value, json};
use support::{
    self,
    app::App,
    chaos::stamp,
    replica::{contents, folded},
    stream::{PATIENCE, client},
    writes::{commit, delete, put},
};
use tokio_util::sync::CancellationToken;

use crate::{RESOURCES, keep_changing, keep_moving, populate, short_lived, until_snapshots_expire};

/// An export that is read as far as somebody wants.
struct Export {
    response: reqwest::Response,
    read: Vec<u8>,
}

impl Export {
    async fn of(app: &App, types: &str) -> Self {
        let request = client().get(app.url(&format!("/fhir/$export?_type={types}")));
        let request = request.header("Accept", "application/fhir+ndjson").send();
        let response = tokio::time::timeout(PATIENCE, request).await.expect("in time");
        let response = response.expect("an answer");
        assert_eq!(response.status(), 200);
        Self { response, read: Vec::new() }
    }

    /// `false`: the body has ended. An error: it is broken off.
    async fn reads_on(&mut self) -> reqwest::Result<bool> {
        let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
        let chunk = chunk.expect("the export goes on")?;
        chunk.iter().for_each(|chunk| self.read.extend_from_slice(chunk));
        Ok(chunk.is_some())
    }

    /// Reads so many lines at least.
    async fn until(&mut self, lines: usize) {
        while self.read.iter().filter(|byte| **byte == b'\n').count() < lines {
            assert!(self.reads_on().await.expect("it goes on"), "it ends before {lines} lines");
        }
    }

    /// All of it; `None`: it was broken off.
    async fn whole(mut self) -> Option<String> {
        loop {
            match self.reads_on().await {
                Ok(true) => {}
                Ok(false) => return Some(String::from_utf8(self.read).expect("UTF-8")),
                Err(_) => return None,
            }
        }
    }
}

/// What nobody but the test changes: `a…` is read before all else, `z…` after it.
fn own(id: &str) -> Value {
    json!({"resourceType": "Basic", "id": id, "code": {"text": stamp()}})
}

/// What the lines say of one resource, in their order: it is there, or is not.
fn said(lines: &str, id: &str) -> Vec<bool> {
    let (is, gone) = (format!(r#""id":"{id}""#), format!(r#""Basic/{id}""#));
    let told = lines.lines().filter_map(|line| match (line.contains(&is), line.contains(&gone)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    });
    told.collect()
}

/// Reads lines, and stops at the first ones and at a quarter until snapshots have expired under it; then
/// they make what the store holds.
async fn exported_slowly(store: Arc<dyn Store>) {
    populate(store.as_ref()).await;
    let first = ["a0", "a1", "a2", "z0", "z1"].map(|id| put(&own(id)));
    commit(store.as_ref(), first.into()).await;
    let app = App::start(store.clone()).await;
    let (done, moved) = (CancellationToken::new(), CancellationToken::new());
    let writer = tokio::spawn(keep_changing(store.clone(), done.clone()));
    let mover = tokio::spawn(keep_moving(store.clone(), moved.clone()));
    let store = store.as_ref();

    let mut export = Export::of(&app, "Basic").await;
    export.until(3).await;
    let gone = ["a1", "z1"].map(|id| delete("Basic", id));
    let writes = ["a0", "a3", "z0", "z2"].map(|id| put(&own(id)));
    commit(store, writes.into_iter().chain(gone).collect()).await;
    until_snapshots_expire(store).await;
    export.until(RESOURCES / 4).await;
    done.cancel();
    writer.await.expect("the writer");
    let gone = ["a2", "z2"].map(|id| delete("Basic", id));
    let writes = ["a0", "a1"].map(|id| put(&own(id)));
    commit(store, writes.into_iter().chain(gone).collect()).await;
    until_snapshots_expire(store).await;
    let lines = export.whole().await.expect("a whole export");
    moved.cancel();
    mover.await.expect("who moves the window on");

    // Of what was sent before, each version that a newer snapshot has, and each deletion; the rest once.
    let told: [(&str, &[bool]); 7] = [
        ("a0", &[true, true, true]),
        ("a1", &[true, false, true]),
        ("a2", &[true, false]),
        ("a3", &[true]),
        ("z0", &[true]),
        ("z1", &[]),
        ("z2", &[]),
    ];
    for (id, expected) in told {
        assert_eq!(said(&lines, id), expected, "{id}");
    }
    let copy = folded(&lines).expect("lines of an export");
    let held = contents(store, &["Basic"]).await;
    let differs = held.keys().chain(copy.keys()).find(|url| copy.get(*url) != held.get(*url));
    assert_eq!(differs, None, "{} of {}", copy.len(), held.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    exported_slowly(short_lived().store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    use mongodb::bson::doc;
    let Some(set) = support::mongod::ReplicaSet::start(1, &[]).await else { return };
    set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 2}).await;
    exported_slowly(support::mongo_in(&set).await.store).await;
}

/// The server stops while the client reads: it is let go in the midst, and nobody cuts its connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_cut_short_has_no_end() {
    let bench = support::embedded();
    populate(bench.store.as_ref()).await;
    let app = App::start(bench.store.clone()).await;
    let mut export = Export::of(&app, "Basic").await;
    export.until(1).await;
    let ready = app.url("/readyz");
    let is_ready =
        async || matches!(client().get(&ready).send().await, Ok(said) if said.status() == 200);
    assert!(is_ready().await);
    let stops = tokio::spawn(app.stop());
    while is_ready().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(export.whole().await.is_none(), "half an export has no end");
    stops.await.expect("the server ends");
}

/// Its snapshot has expired, and what changed since is no longer in the log.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_outlives_the_log_has_no_end() {
    let life = Duration::from_millis(300);
    let options = EmbeddedOptions { snapshot_life: life, log_bytes: 20_000, ..Default::default() };
    let bench = support::embedded_with(options);
    let store = bench.store.as_ref();
    populate(store).await;
    let app = App::with(bench.store.clone(), &["--ring-bytes", "5000"]).await;
    let mut export = Export::of(&app, "Basic").await;
    export.until(1).await;
    for _ in 0..400 {
        commit(store, vec![put(&own("z0"))]).await;
    }
    until_snapshots_expire(store).await;
    assert!(export.whole().await.is_none(), "half an export has no end");
}
