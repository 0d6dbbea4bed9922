//! Streams that each hold to patients of their own, beside some that hold to none: each hears of
//! what is its own, and of nothing else.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{sync::Arc, time::Duration};

use fhirtail::{
    client::sse::Item,
    fhir::ResourceType,
    frame::Format,
    live::{Hub, HubOptions},
    plan::{Grant, Plan, Scope},
    position::{LogPosition, Position},
    session::{Admission, Outgoing, Piece, Session, Times},
    store::{Store, Window},
};
use futures_util::StreamExt;
use support::{
    App, Bench,
    chaos::{Dice, stamp},
    replica::{Copy, Replica, contents},
    stream::{EventStream, PATIENCE},
    writes::{commit, delete, group, observation, patient, put},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const PATIENTS: usize = 24;
const OBSERVATIONS: usize = 40;

/// What a stream carries.
#[derive(Debug, Clone)]
struct Query {
    path: String,
    /// Whose; everybody's, where there is none.
    patients: Vec<usize>,
    types: &'static [&'static str],
}

const BOTH: &[&str] = &["Patient", "Observation"];

impl Query {
    fn new(level: &str, patients: &[usize], types: &'static [&'static str]) -> Self {
        let path = format!("/fhir/{level}$export?_type={}", types.join(","));
        Self { path, patients: patients.to_vec(), types }
    }

    fn of_group(id: &str, patients: &[usize]) -> Self {
        Self::new(&format!("Group/{id}/"), patients, BOTH)
    }

    fn of_patient(n: usize) -> Self {
        Self::of_group(&format!("only{n}"), &[n])
    }

    /// What it finds, by a look at the resources themselves.
    fn found(&self, all: &Copy) -> Copy {
        let is_of = |url: &str, json: &str, n: usize| {
            url == format!("Patient/p{n}") || json.contains(&format!("\"Patient/p{n}\""))
        };
        let holds = |(url, json): &(&String, &String)| {
            let typed = self.types.iter().any(|ty| url.starts_with(ty));
            let theirs = self.patients.iter().any(|n| is_of(url, json, *n));
            typed && (theirs || self.patients.is_empty())
        };
        all.iter().filter(holds).map(|(url, json)| (url.clone(), json.clone())).collect()
    }

    /// The resource that is written last of all that it carries.
    fn last(&self) -> String {
        format!("Patient/p{}", self.patients.iter().max().unwrap_or(&(PATIENTS - 1)))
    }
}

/// A stream that is level, and its copy.
async fn level(app: &App, query: &Query, encoded: bool) -> (EventStream, Replica) {
    let url = app.url(&query.path);
    let mut stream = match encoded {
        true => EventStream::open_encoded(&url).await,
        false => EventStream::open(&url, None).await,
    };
    let mut replica = Replica::default();
    stream.until("caught-up").await.iter().for_each(|event| replica.take(event));
    (stream, replica)
}

/// Follows until it has the last write.
async fn replicate((mut stream, mut replica): (EventStream, Replica), last: String) -> Replica {
    let is_last = |json: &String| json.contains("\"last\"");
    while !(replica.caught_up && replica.copy.get(&last).is_some_and(is_last)) {
        let event = stream.event().await.expect("the stream goes on");
        let (held, level) = (replica.copy.len(), replica.caught_up);
        replica.take(&event);
        let lost = replica.copy.len() < held;
        assert!(lost || !level || event.event != "deleted", "it never had that: {event:?}");
    }
    replica
}

/// Resources come, change, move from patient to patient, and go.
async fn write(store: &dyn Store, dice: &mut Dice, commits: usize) {
    for _ in 0..commits {
        let (first, count) = (dice.below(OBSERVATIONS), 1 + dice.below(4));
        let writes = (first..first + count).map(|n| match dice.roll(5) {
            0 => delete("Observation", &format!("o{n}")),
            1 => put(&patient(n % PATIENTS, &stamp())),
            _ => put(&observation(n, dice.below(PATIENTS), &stamp())),
        });
        commit(store, writes.collect()).await;
    }
}

/// Streams of many voices, most of one patient each; some join while others write, and one
/// group gets other members. Each copy becomes what its query finds.
async fn each_hears_of_its_own(bench: Bench, arguments: &[&str]) {
    let store = bench.store.as_ref();
    let people = |name: &'static str| (0..PATIENTS).map(move |n| put(&patient(n, name)));
    commit(store, people("first").collect()).await;
    let alone = (0..PATIENTS).map(|n| put(&group(&format!("only{n}"), &[n])));
    let more = [put(&group("some", &[3, 5, 7])), put(&group("moves", &[1, 2]))];
    commit(store, alone.chain(more).collect()).await;
    let mut dice = Dice(7);
    write(store, &mut dice, 20).await;
    let app = App::with(bench.store.clone(), arguments).await;

    let mut queries: Vec<_> = (0..PATIENTS).map(Query::of_patient).collect();
    queries.extend([
        Query::of_patient(5),
        Query::of_group("some", &[3, 5, 7]),
        Query::new("Group/some/", &[3, 5, 7], &["Patient"]),
        Query::new("", &[], BOTH),
        Query::new("Patient/", &[], &["Patient"]),
        Query::new("Patient/", &[], BOTH),
    ]);
    let moves = Query::of_group("moves", &[2, 9]);
    let mut clients: Vec<(Query, JoinHandle<Replica>)> = Vec::new();
    for (n, query) in queries.iter().chain([&moves]).enumerate() {
        let client = replicate(level(&app, query, n % 3 == 0).await, query.last());
        clients.push((query.clone(), tokio::spawn(client)));
    }
    write(store, &mut dice, 100).await;
    for query in queries.iter().step_by(2).chain([&moves]) {
        let joins = level(&app, query, false);
        let (joined, ()) = tokio::join!(joins, write(store, &mut dice, 10));
        clients.push((query.clone(), tokio::spawn(replicate(joined, query.last()))));
    }
    commit(store, vec![put(&group("moves", &[2, 9]))]).await;
    write(store, &mut dice, 100).await;
    for last in people("last") {
        commit(store, vec![last]).await;
    }

    let all = contents(store, BOTH).await;
    for (query, client) in clients {
        let replica = timeout(PATIENCE, client).await.expect("in time").expect("a client");
        assert_eq!(replica.copy, query.found(&all), "{query:?}");
        let resets = usize::from(query.path == moves.path);
        assert_eq!(replica.resets, resets, "{query:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_each_hears_of_its_own() {
    each_hears_of_its_own(support::embedded(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_each_hears_of_its_own() {
    let Some(bench) = support::mongo().await else { return };
    each_hears_of_its_own(bench, &[]).await;
}

/// The ring holds a few changes: those that carry streams lose their place in it now and then.
#[tokio::test(flavor = "multi_thread")]
async fn embedded_each_hears_of_its_own_behind_the_ring() {
    each_hears_of_its_own(support::embedded(), &["--ring-bytes", "2000"]).await;
}

fn place(id: &str) -> LogPosition {
    id.parse::<Position>().expect("a position").log
}

/// A stream that is not woken by what others write goes on all the same: its client is told so,
/// and resumes from there.
#[tokio::test(flavor = "multi_thread")]
async fn who_hears_of_nothing_moves_on() {
    let bench = support::embedded();
    let store = bench.store.as_ref();
    commit(store, (1..3).map(|n| put(&group(&format!("only{n}"), &[n]))).collect()).await;
    let app = App::start(bench.store.clone()).await;
    let url = app.url(&Query::of_patient(1).path);
    let mut stream = EventStream::open(&url, None).await;
    let level = stream.until("caught-up").await.pop().expect("an event").id;
    let mut others = EventStream::open(&app.url(&Query::of_patient(2).path), None).await;
    others.until("caught-up").await;
    let mut written = place(&level);
    let told = async {
        loop {
            commit(store, vec![put(&observation(1, 2, &stamp()))]).await;
            let heard = others.event().await.expect("an event").id;
            match timeout(Duration::from_millis(100), stream.item()).await {
                Ok(Some(Item::Checkpoint(id))) => break id,
                Ok(other) => panic!("nothing is its own: {other:?}"),
                Err(_) => written = place(&heard),
            }
        }
    };
    let told = timeout(PATIENCE, told).await.expect("it is told");
    assert!(written > place(&level) && place(&told) >= written, "{told} after {written:?}");
    let own = observation(2, 1, "its own");
    commit(store, vec![put(&own)]).await;
    let heard = stream.event().await.expect("an event");
    drop(stream);
    let mut again = EventStream::open(&url, Some(&told)).await;
    let resumed = again.event().await.expect("an event");
    assert_eq!((&resumed.event, &resumed.id), (&heard.event, &heard.id));
    assert_eq!(resumed.data, heard.data);
}

/// Where others write all the time, a stream to which that says nothing is still given to
/// those who carry the level ones: else each change would wake each such stream.
#[tokio::test(flavor = "multi_thread")]
async fn who_hears_of_nothing_is_carried() {
    let bench = support::embedded();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let hub = Hub::start(bench.store.clone(), HubOptions::default(), tasks, stop.clone());
    let hub = hub.await.expect("a hub");
    let types = ["Patient"].map(|name| ResourceType::parse(name).expect("a type"));
    let window = Window::default();
    let plan = Plan::new(Scope::System, Some(&types), window, true, Grant::Everything);
    let store = bench.store.clone();
    let session = Session::new(Arc::new(plan), store, Arc::clone(&hub), Format::Sse, None);
    let times = Times {
        keep_alive: PATIENCE,
        retry: PATIENCE,
        drain: CancellationToken::new(),
        drain_over: Duration::ZERO,
    };
    let outgoing = Outgoing::new(session, times, Admission::default());
    let mut pieces = Box::pin(Box::new(outgoing).pieces(true));
    let mut next = async || timeout(PATIENCE, pieces.next()).await.expect("in time");
    loop {
        match next().await {
            Some(Ok(Piece::Chunk(chunk))) if chunk.starts_with(b"event: caught-up") => break,
            Some(Ok(Piece::Chunk(_))) => {}
            _ => panic!("it has not caught up"),
        }
    }
    // It is no longer level when it is looked at next.
    commit(bench.store.as_ref(), vec![put(&observation(1, 1, "x"))]).await;
    let head = bench.store.head().await.expect("the log's end");
    while hub.ends_at(head) {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(next().await, Some(Ok(Piece::Level(_)))));
    stop.cancel();
}
