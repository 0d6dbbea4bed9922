//! Changes that are looked up late: each brings the resource as it is by then, and the later ones
//! repeat it; or it is deferred to the one that brings it. MongoDB's reader does so behind the
//! snapshot window; here an embedded store's log is
//! read so, and when is for the test to say.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use fhirtail::{
    client::sse::Event,
    position::LogPosition,
    store::{Change, ChangeBatch, ChangeKind, Changes, Lookup, Snapshot, Store, StoreError},
};
use serde_json::{Value, json};

use support::{
    self,
    altered::{Alter, altered},
    app::App,
    stream::{EventStream, PATIENCE},
    writes::{commit, put},
};

/// The log says late what became of patients.
#[derive(Debug)]
struct Late(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    /// Changes up to this number may be read.
    open_to: AtomicU64,
    snapshots: AtomicUsize,
    /// What is no more as it was is deferred.
    defers: bool,
}

impl Gate {
    fn open(&self, to: u64) {
        self.open_to.store(to, SeqCst);
    }
}

struct Reader {
    store: Arc<dyn Store>,
    gate: Arc<Gate>,
    inner: Box<dyn Changes>,
    read: VecDeque<Change>,
    level: LogPosition,
}

impl Reader {
    async fn look_up(&mut self, change: &mut Change) {
        let now = self.store.head().await.expect("a head").time;
        let ChangeKind::Upsert { ty, id, json, .. } = &mut change.kind else { return };
        if ty.name() != "Patient" {
            return;
        }
        let Ok(Lookup::Found { json: found, .. }) = self.store.read(*ty, id).await else { return };
        if self.gate.defers && *json != found {
            change.kind = ChangeKind::Deferred { ty: *ty, until: LogPosition::past(now) };
            return;
        }
        *json = found;
        change.as_of = (now > change.position.time).then_some(now);
    }
}

#[async_trait]
impl Changes for Reader {
    async fn next(&mut self) -> Result<ChangeBatch, StoreError> {
        let batch = self.inner.next().await?;
        self.read.extend(batch.changes);
        let mut changes = Vec::new();
        let open_to = self.gate.open_to.load(SeqCst);
        while let Some(mut change) = self.read.pop_front_if(|next| next.position.time <= open_to) {
            self.look_up(&mut change).await;
            self.level = change.position;
            changes.push(change);
        }
        let all = self.read.is_empty();
        if all {
            self.level = self.level.max(batch.level);
        }
        let quiet = all && batch.quiet;
        Ok(ChangeBatch::new(changes, self.level, quiet))
    }

    async fn close(self: Box<Self>) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Alter for Late {
    async fn snapshot(&self, store: &Arc<dyn Store>) -> Result<Arc<dyn Snapshot>, StoreError> {
        let snapshot = store.snapshot().await;
        self.0.snapshots.fetch_add(1, SeqCst);
        snapshot
    }

    async fn changes(
        &self,
        store: &Arc<dyn Store>,
        after: LogPosition,
    ) -> Result<Box<dyn Changes>, StoreError> {
        let inner = store.changes(after).await?;
        let (store, gate) = (store.clone(), self.0.clone());
        Ok(Box::new(Reader { store, gate, inner, read: VecDeque::new(), level: after }))
    }
}

fn late(defers: bool) -> (support::Bench, Arc<Gate>) {
    let mut bench = support::embedded();
    let (open_to, snapshots) = (AtomicU64::new(u64::MAX), AtomicUsize::new(0));
    let gate = Arc::new(Gate { open_to, snapshots, defers });
    bench.store = altered(&bench.store, Late(gate.clone()));
    (bench, gate)
}

async fn write(store: &dyn Store, name: &str, id: &str, text: &str) {
    let text = json!([{"url": "urn:text", "valueString": text}]);
    let resource = json!({"resourceType": name, "id": id, "extension": text});
    commit(store, vec![put(&resource)]).await;
}

async fn wait_for(what: &str, is_so: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const QUERY: &str = "/fhir/$export?_type=Patient,Basic";

/// Which versions of patients are there.
fn patients(events: &[Event]) -> Vec<(String, String)> {
    assert!(events.iter().all(|event| event.event != "reset"), "{events:?}");
    let version = |data: &str| {
        let resource: Value = serde_json::from_str(data).expect("JSON");
        let id = resource["id"].as_str().expect("an id").to_owned();
        (id, resource["meta"]["versionId"].as_str().expect("a version").to_owned())
    };
    let of_patients = events.iter().filter(|event| event.event == "Patient");
    of_patients.map(|event| version(&event.data)).collect()
}

/// A replay sends what was looked up as of after its snapshot: what the log says of that time comes
/// neither twice nor not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_late_look_ups_is_followed_by_no_repeat_and_by_no_gap() {
    replayed(QUERY, false, &[("a", "3"), ("b", "3")]).await;
}

/// Nothing follows a history with an end: what was deferred comes before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_does_not_end_before_what_was_deferred() {
    let query = format!("{QUERY}&_until=2999-01-01T00:00:00Z");
    replayed(&query, true, &[("a", "3"), ("b", "3")]).await;
}

/// A history that goes on live need not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_deferred_in_a_replay_comes_live() {
    replayed(QUERY, true, &[("b", "2"), ("a", "3"), ("b", "3")]).await;
}

async fn replayed(query: &str, defers: bool, expected: &[(&str, &str)]) {
    let (bench, gate) = late(defers);
    let store = bench.store.as_ref();
    for id in ["a", "b"] {
        write(store, "Patient", id, "1").await;
    }
    let app = App::start(bench.store.clone()).await;
    let mut stream = EventStream::open(&app.url(query), None).await;
    let of_a = stream.event().await.expect("a resource");
    assert!(of_a.data.contains("\"a\""), "{of_a:?}");
    drop(stream);
    gate.open(store.head().await.expect("a head").time);
    for id in ["a", "b"] {
        write(store, "Patient", id, "2").await;
    }
    let snapshots = gate.snapshots.load(SeqCst);
    let mut stream = EventStream::open(&app.url(query), Some(&of_a.id)).await;
    wait_for("a snapshot", async || gate.snapshots.load(SeqCst) > snapshots).await;
    for id in ["a", "b"] {
        write(store, "Patient", id, "3").await;
    }
    write(store, "Basic", "last", "").await;
    gate.open(u64::MAX);
    let said = patients(&stream.until("caught-up").await);
    let said: Vec<_> = said.iter().map(|(id, n)| (id.as_str(), n.as_str())).collect();
    assert_eq!(said, expected);
    app.stop().await;
}

/// A level stream whose client does not take all at once goes on in a task of its own, and is
/// level again: what it has heard by then it does not hear again.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_the_crowd_and_comes_back_hears_no_late_look_up_twice() {
    let (bench, gate) = late(false);
    let store = bench.store.as_ref();
    write(store, "Patient", "a", "1").await;
    // The ring holds all that is written.
    let app = App::with(bench.store.clone(), &["--ring-bytes", "268435456"]).await;
    let mut stream = EventStream::open(&app.url(QUERY), None).await;
    stream.until("caught-up").await;
    wait_for("it is level", async || app.stream().await["phase"] == "live").await;
    gate.open(store.head().await.expect("a head").time);
    write(store, "Patient", "a", "2").await;
    let large = "x".repeat(200_000);
    for n in 0..100 {
        write(store, "Basic", &format!("b{n}"), &large).await;
    }
    write(store, "Basic", "between", "").await;
    let between = store.head().await.expect("a head").time;
    write(store, "Patient", "a", "3").await;
    write(store, "Basic", "last", "").await;
    gate.open(between);
    wait_for("it falls behind", async || app.stream().await["phase"] == "behind").await;
    let events = stream.until_that(|event| event.data.contains("\"between\"")).await;
    let of_a: Vec<_> = events.iter().filter(|event| event.event == "Patient").collect();
    assert!(of_a.len() == 1 && of_a[0].data.contains("\"3\""), "{of_a:?}");
    wait_for("it is level", async || app.stream().await["phase"] == "live").await;
    gate.open(u64::MAX);
    let events = stream.until_that(|event| event.data.contains("\"last\"")).await;
    assert_eq!(patients(&events), []);
    app.stop().await;
}
