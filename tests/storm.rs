//! A reconnect storm: many streams come back at once, from places before a small ring. Few
//! readers of the log serve them all.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use fhirtail::{
    client::sse::Event,
    fhir::ResourceType,
    frame::Format,
    live::{Hub, HubOptions},
    plan::{Grant, Plan, Scope},
    position::Position,
    session::Session,
    store::{
        Store, Window,
        embedded::EmbeddedOptions,
        mongo::{MongoOptions, MongoStore},
    },
};
use futures_util::{FutureExt, future::join_all};
use mongodb::bson::doc;
use support::{
    App, Bench,
    chaos::stamp,
    mongod,
    stream::{EventStream, PATIENCE, client},
    watched::Watched,
    writes::{commit, put},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

const QUERY: &str = "/fhir/Basic/$export";
const STREAMS: usize = 300;
const STALLED: usize = 6;
/// How much is written before the storm, and how much in it.
const BEFORE: usize = 500;
const MEANWHILE: usize = 150;

async fn write(store: &dyn Store, count: usize, text_bytes: usize) {
    for n in 0..count {
        let text = format!("{} {}", stamp(), "x".repeat(text_bytes));
        let id = format!("b{}", n % 20);
        let basic = serde_json::json!({"resourceType": "Basic", "id": id, "code": {"text": text}});
        commit(store, vec![put(&basic)]).await;
    }
}

/// What a client keeps of an event.
type Kept = (String, String);

fn kept(event: &Event) -> Kept {
    (event.id.clone(), event.data.clone())
}

/// The next `count` resources of a stream, and then that it has caught up.
async fn resources(stream: &mut EventStream, count: usize) -> Vec<Event> {
    let (mut events, mut caught_up) = (Vec::new(), false);
    while events.len() < count || !caught_up {
        let event = stream.event().await.expect("the stream goes on");
        match event.event.as_str() {
            "Basic" => events.push(event),
            "caught-up" => caught_up = true,
            "fell-behind" => caught_up = false,
            _ => panic!("{event:?}"),
        }
    }
    events
}

/// A stream from now on, which hears of all that is written.
async fn witness(app: &App) -> EventStream {
    let mut witness = EventStream::open(&app.url(QUERY), None).await;
    witness.until("caught-up").await;
    witness
}

/// A client with next to no room in its socket, which asks for a stream and reads no more.
async fn stalled(app: &App, id: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut socket = socket.connect(app.address).await.expect("a connection");
    let request = format!(
        "GET {QUERY} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nLast-Event-ID: {id}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("written");
    socket.read_exact(&mut [0; 64]).await.expect("an answer");
    socket
}

async fn streams_resume(bench: &Bench, readers: usize) {
    let (store, seen) = Watched::over(&bench.store);
    write(bench.store.as_ref(), 20, 100).await;
    let arguments = ["--ring-bytes", "20000", "--catch-ups", &readers.to_string()];
    let app = Arc::new(App::with(store, &arguments).await);
    let mut witness = witness(&app).await;
    let writing = bench.store.clone();
    let written = tokio::spawn(async move { write(writing.as_ref(), BEFORE, 4_000).await });
    let before = resources_of(&mut witness, BEFORE).await;
    written.await.expect("a writer");

    let mut sockets = Vec::new();
    for n in 0..STALLED {
        sockets.push(stalled(&app, &before[n * 5].id).await);
    }
    let client = |n: usize| {
        // All over the log, in no order.
        let place = n * 7919 % BEFORE;
        let (app, id) = (app.clone(), before[place].id.clone());
        let rest = BEFORE + MEANWHILE - place - 1;
        let client = tokio::spawn(async move {
            let mut stream = EventStream::open(&app.url(QUERY), Some(&id)).await;
            resources(&mut stream, rest).await.iter().map(kept).collect::<Vec<_>>()
        });
        (place, client)
    };
    let clients: Vec<(usize, JoinHandle<Vec<Kept>>)> = (0..STREAMS).map(client).collect();
    write(bench.store.as_ref(), MEANWHILE, 4_000).await;
    let meanwhile = resources_of(&mut witness, MEANWHILE).await;
    let log: Vec<Kept> = before.iter().chain(&meanwhile).map(kept).collect();
    for (place, client) in clients {
        let got = tokio::time::timeout(PATIENCE, client).await.expect("in time").expect("a client");
        assert!(got == log[place + 1..], "from {place}: {} of {}", got.len(), log.len() - place);
    }
    let most = seen.most.load(SeqCst);
    assert!((2..=readers).contains(&most), "{most} readers at once");
    eprintln!("{} readers in all", seen.opened.load(SeqCst));
    drop(sockets);
}

/// The next `count` resources, whatever else comes.
async fn resources_of(stream: &mut EventStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let event = stream.event().await.expect("the stream goes on");
        if event.event == "Basic" {
            events.push(event);
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let bench = support::embedded();
    streams_resume(&bench, 3).await;
}

/// Asks the server itself, again and again, how many change streams are open.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    let Some(bench) = support::mongo().await else { return };
    let client = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
    let database = client.default_database().expect("a database").name().to_owned();
    let over = CancellationToken::new();
    let ended = over.clone();
    let counted = tokio::spawn(async move {
        let mut counts = Vec::new();
        while !ended.is_cancelled() {
            counts.push(mongod::change_streams(&client, &database).await.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        counts
    });
    streams_resume(&bench, 3).await;
    over.cancel();
    let counts = counted.await.expect("counts");
    assert!(
        counts.iter().any(|count| *count >= 2) && counts.iter().all(|count| *count <= 3),
        "{counts:?}"
    );
}

/// One position is too old for the log, those of others are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_position_resets_only_its_own() {
    let options = EmbeddedOptions { log_bytes: 200_000, ..EmbeddedOptions::default() };
    let bench = support::embedded_with(options);
    let store = bench.store.as_ref();
    write(store, 1, 100).await;
    let app = App::with(bench.store.clone(), &["--ring-bytes", "5000", "--catch-ups", "2"]).await;
    let mut witness = witness(&app).await;
    let mut log = Vec::new();
    let place = |event: &Event| event.id.parse::<Position>().expect("a position").log;
    while log.is_empty() || store.changes(place(&log[0])).await.is_ok() {
        write(store, 50, 1_000).await;
        log.extend(resources_of(&mut witness, 50).await);
    }
    let (mut lost, held) = (1, log.len() - 40);
    while store.changes(place(&log[lost])).await.is_err() {
        lost += 1;
    }
    assert!(lost < held);
    let clients = (0..30).map(|n| {
        let from = if n % 3 == 0 { n % lost } else { held + n };
        let (url, log) = (app.url(QUERY), &log);
        async move {
            let mut stream = EventStream::open(&url, Some(&log[from].id)).await;
            if from < held {
                assert_eq!(stream.event().await.expect("an event").event, "reset", "{from}");
            } else {
                let got = resources(&mut stream, log.len() - from - 1).await;
                let expected = log[from + 1..].iter().map(kept);
                assert!(got.iter().map(kept).eq(expected), "{from}");
            }
        }
    });
    join_all(clients).await;
}

/// A defect in the tail is none of the streams: they go on, with nothing lost or repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_breaks_starts_again() {
    let bench = support::embedded();
    let (store, seen) = Watched::over(&bench.store);
    write(bench.store.as_ref(), 3, 100).await;
    let app = App::with(store, &[]).await;
    let mut witness = witness(&app).await;
    let mut texts = Vec::new();
    for round in 0..3 {
        seen.breaks.store(1, SeqCst);
        write(bench.store.as_ref(), 40, 100).await;
        texts.extend(resources_of(&mut witness, 40).await.into_iter().map(|event| event.data));
        // What was read at once may all be here before the tail reads on, and breaks.
        let broken = async {
            while seen.breaks.load(SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, broken).await.unwrap_or_else(|_| panic!("{round}"));
    }
    let all = texts.iter().collect::<std::collections::HashSet<_>>();
    assert_eq!(all.len(), 120, "each once");
    let late = EventStream::open(&app.url(QUERY), None).await.until("caught-up").await;
    assert_eq!(late.len(), 20 + 1);
}

/// The answer to who asks for the log's end first is passed on to those who asked after, though
/// the first is not at its turn to go on: else each of thousands would wait for all turns before.
#[tokio::test]
async fn an_answer_waits_for_nobodys_turn() {
    let bench = support::embedded();
    write(bench.store.as_ref(), 3, 100).await;
    let (store, seen) = Watched::over(&bench.store);
    let stop = CancellationToken::new();
    let (options, tasks) = (HubOptions::default(), TaskTracker::new());
    let hub = Hub::start(store.clone(), options, tasks, stop.clone()).await.expect("a hub");
    let basic = ResourceType::parse("Basic").expect("a type");
    let window = Window::default();
    let plan = Plan::new(Scope::System, Some(&[basic]), window, true, Grant::Everything);
    let plan = Arc::new(plan);
    let log = store.head().await.expect("the log's end");
    let start = Position { epoch: store.epoch(), log, members: None, scan: None };
    let session = || {
        let (store, hub) = (store.clone(), hub.clone());
        Session::new(plan.clone(), store, hub, Format::Sse, Some(start.clone()))
    };
    let (mut first, mut second) = (session(), session());
    let gate = seen.gate.lock().await;
    let before = seen.asked.load(SeqCst);
    let mut waits = Box::pin(first.step());
    assert!(waits.as_mut().now_or_never().is_none(), "it asks");
    while seen.asked.load(SeqCst) == before {
        tokio::task::yield_now().await;
    }
    let mut waits_too = Box::pin(second.step());
    assert!(waits_too.as_mut().now_or_never().is_none(), "it asks after it");
    drop(gate);
    let answered = tokio::time::timeout(PATIENCE, waits_too).await;
    answered.expect("without the first going on").expect("the log's end");
    drop(waits);
    stop.cancel();
}

/// A slot is free only once the server holds nothing open for who had it.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_reader_leaves_no_change_stream_behind() {
    let Some(bench) = support::mongo().await else { return };
    write(bench.store.as_ref(), 3, 100).await;
    let client = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
    let database = client.default_database().expect("a database").name().to_owned();
    let start = bench.store.head().await.expect("the log's end");
    for _ in 0..10 {
        let mut reader = bench.store.changes(start).await.expect("a reader");
        reader.next().await.expect("a batch");
        // A cursor that is being taken up is in neither of the server's lists for a moment.
        let open = async { while mongod::change_streams(&client, &database).await.len() != 1 {} };
        tokio::time::timeout(PATIENCE, open).await.expect("one that is open");
        reader.close().await;
        assert!(mongod::change_streams(&client, &database).await.is_empty());
    }
}

/// Requests that wait for MongoDB take every connection that they may have. None of those is one
/// of the log's readers.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_does_not_wait_behind_requests() {
    let Some(set) = mongod::ReplicaSet::start(1, &[]).await else { return };
    let bench = support::mongo_in(&set).await;
    let writer = MongoStore::connect(&bench.name, MongoOptions::default()).await.expect("a store");
    write(writer.as_ref(), 3, 100).await;
    let app = App::with(bench.store.clone(), &[]).await;
    let mut stream = EventStream::open(&app.url(QUERY), None).await;
    resources(&mut stream, 3).await;
    let database = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
    let database = database.default_database().expect("a database").name().to_owned();
    let block = doc! {
        "failCommands": ["find"], "namespace": format!("{database}.Patient"),
        "blockConnection": true, "blockTimeMS": 60_000,
    };
    let always = doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": block};
    set.admin(always).await;
    let asking: Vec<_> = (0..300)
        .map(|n| {
            let asked = client().get(app.url(&format!("/fhir/Patient/p{n}"))).send();
            AbortOnDropHandle::new(tokio::spawn(asked))
        })
        .collect();
    // As many as there are connections.
    set.admin(doc! {"waitForFailPoint": "failCommand", "timesEntered": 64, "maxTimeMS": 30_000})
        .await;
    write(writer.as_ref(), 5, 100).await;
    let live = resources_of(&mut stream, 5).await;
    let mut late = EventStream::open(&app.url(QUERY), Some(&live[0].id)).await;
    resources(&mut late, 4).await;
    assert!(asking.iter().all(|asked| !asked.is_finished()), "none was answered meanwhile");
}
