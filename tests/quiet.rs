//! A log that moves on without a change that is a stream's own: the writes are to another
//! database of the same replica set.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use fhirtail::{
    client::sse::Item,
    live::{Follow, Followed, Hub, HubOptions},
    position::Position,
};
use mongodb::bson::{Document, doc};
use support::{
    app::App,
    mongod,
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const QUERY: &str = "/fhir/$export?_type=Patient";

/// Writes to another database until aborted.
async fn write_elsewhere(set: &mongod::ReplicaSet) -> JoinHandle<()> {
    let elsewhere = set.client().await.database(&mongod::fresh_database());
    let documents = elsewhere.collection::<Document>("elsewhere");
    documents.insert_one(doc! {}).await.expect("a write");
    tokio::spawn(async move {
        loop {
            documents.insert_one(doc! {}).await.expect("a write");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

async fn checkpoint(stream: &mut EventStream) -> String {
    loop {
        match stream.item().await.expect("the stream goes on") {
            Item::Checkpoint(id) => return id,
            Item::Event(event) => panic!("nothing was written: {event:?}"),
            Item::Retry(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_catches_up_though_the_log_never_rests() {
    let Some(set) = mongod::shared().await else { return };
    let bench = support::mongo_in(set).await;
    commit(bench.store.as_ref(), vec![put(&patient(1, "x"))]).await;
    let app = App::start(bench.store.clone()).await;
    let writer = write_elsewhere(set).await;
    for _ in 0..20 {
        let mut stream = EventStream::open(&app.url(QUERY), None).await;
        let events = timeout(PATIENCE, stream.until("caught-up")).await.expect("in time");
        assert_eq!(events.len(), 2);
    }
    writer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_moves_on_with_the_writes_of_others() {
    let Some(set) = mongod::shared().await else { return };
    let bench = support::mongo_in(set).await;
    commit(bench.store.as_ref(), vec![put(&patient(1, "x"))]).await;
    let app = App::with(bench.store.clone(), &["--keep-alive", "3"]).await;
    let mut stream = EventStream::open(&app.url(QUERY), None).await;
    let told = stream.until("caught-up").await.pop().expect("an event").id;
    let writer = write_elsewhere(set).await;
    let checkpoint = timeout(PATIENCE, checkpoint(&mut stream)).await.expect("in time");
    let position = |id: &str| id.parse::<Position>().expect("a position").log;
    assert!(position(&checkpoint) > position(&told), "{checkpoint} after {told}");
    writer.abort();
}

async fn silent_for(hub: &Hub, time: Duration) {
    while hub.silence().is_none_or(|silence| silence < time) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A MongoDB that keeps its connections and answers nothing is no store that one is ready with.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_answer_is_silent() {
    let Some(set) = mongod::ReplicaSet::start(1, &[]).await else { return };
    let bench = support::mongo_in(&set).await;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let hub = Hub::start(bench.store.clone(), HubOptions::default(), tasks, stop.clone());
    let hub = hub.await.expect("a hub");
    timeout(PATIENCE, silent_for(&hub, Duration::ZERO)).await.expect("it answers");
    for _ in 0..10 {
        timeout(PATIENCE, heard_again(&hub)).await.expect("a log at rest answers");
    }
    let block = doc! {
        "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 60_000,
        "appName": "fhirtail",
    };
    set.fail_command(doc! {"times": 1}, block).await;
    timeout(PATIENCE / 2, silent_for(&hub, Duration::from_secs(3)))
        .await
        .expect("it does not answer");
    stop.cancel();
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Thousands of streams rest at a time: as long as nothing happens, none of them is woken, not
/// even though the tail hears again and again that nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_at_rest_is_not_woken() {
    let bench = support::embedded();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let hub = Hub::start(bench.store.clone(), HubOptions::default(), tasks, stop.clone());
    let hub = hub.await.expect("a hub");
    let mut follow = hub.follow(bench.store.head().await.expect("the log's end"));
    for rests in [false, true] {
        follow.rest(false);
        until_it_rests(&mut follow).await;
        follow.rest(rests);
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(wakes.clone());
        let mut context = Context::from_waker(&waker);
        let mut next = Box::pin(follow.next());
        // Of how it came to rest the tail may have more to say: the word that goes with what was
        // read already, and two beats. But not without end.
        let mut words = 0..10;
        loop {
            while next.as_mut().poll(&mut context).is_ready() {
                words.next().expect("a log at rest goes on to tell of itself");
                drop(next);
                next = Box::pin(follow.next());
            }
            for _ in 0..4 {
                heard_again(&hub).await;
            }
            if wakes.0.swap(0, SeqCst) == 0 {
                break;
            }
            words.next().expect("a log at rest goes on to wake who rests");
        }
        commit(bench.store.as_ref(), vec![put(&patient(1, &format!("{rests}")))]).await;
        let told = async {
            loop {
                while wakes.0.swap(0, SeqCst) == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // A beat may have come right before it.
                if let Poll::Ready(told) = next.as_mut().poll(&mut context) {
                    return told;
                }
            }
        };
        let told = timeout(PATIENCE, told).await.expect("it is woken");
        assert!(matches!(told, Ok(Followed::Change(_))), "{told:?}");
    }
    stop.cancel();
}

async fn until_it_rests(follow: &mut Follow) {
    loop {
        let next = timeout(PATIENCE, follow.next()).await.expect("in time");
        if matches!(next, Ok(Followed::Level { quiet: true })) {
            return;
        }
    }
}

/// Waits until the tail has heard from the store once more.
async fn heard_again(hub: &Hub) {
    let silence = || hub.silence().unwrap_or_default();
    let mut before = silence();
    loop {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = silence();
        if now < before {
            return;
        }
        before = now;
    }
}
