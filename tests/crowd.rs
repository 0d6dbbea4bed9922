//! Many streams on few tasks: who is carried, who is let go, who is told to come again.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{sync::Arc, time::Duration};

use fhirtail::{client::sse::Item, store::Store};
use futures_util::future::join_all;
use reqwest::{Response, header};
use serde_json::Value;
use support::{
    App, client,
    replica::{Copy, Replica, contents},
    stream::{EventStream, PATIENCE},
    writes::{commit, delete, group, observation, patient, put},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const ALL: &str = "/fhir/$export?_type=Patient,Observation";

/// Follows until it has the last patient.
async fn replicate(mut stream: EventStream, mut replica: Replica) -> Replica {
    while !replica.copy.contains_key("Patient/p99") {
        replica.take(&stream.event().await.expect("the stream goes on"));
    }
    replica
}

async fn write_much(store: Arc<dyn Store>) {
    for n in 0..300 {
        let mut writes = vec![put(&observation(n % 20, n % 3, &n.to_string()))];
        if n % 7 == 0 {
            writes.push(delete("Observation", &format!("o{}", (n + 5) % 20)));
        }
        commit(store.as_ref(), writes).await;
    }
    commit(store.as_ref(), vec![put(&patient(99, "last"))]).await;
}

/// What a query finds, by a look at the resources themselves.
fn found(query: &str, all: &Copy) -> Copy {
    let holds = |(url, json): &(&String, &String)| {
        let of_one = url.as_str() == "Patient/p1" || json.contains("\"Patient/p1\"");
        let last = url.as_str() == "Patient/p99";
        match query {
            ALL => true,
            PATIENTS => url.starts_with("Patient"),
            _ => of_one || last,
        }
    };
    all.iter().filter(holds).map(|(url, json)| (url.clone(), json.clone())).collect()
}

const PATIENTS: &str = "/fhir/$export?_type=Patient";
const GROUP: &str = "/fhir/Group/g/$export?_type=Patient,Observation";

/// Streams of several queries, all level, then changes: each gets its own, once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn each_level_stream_gets_what_is_its_own() {
    let bench = support::embedded();
    let people = [1, 2].map(|n| put(&patient(n, "x"))).to_vec();
    commit(bench.store.as_ref(), people).await;
    commit(bench.store.as_ref(), vec![put(&group("g", &[1, 99]))]).await;
    let app = App::start(bench.store.clone()).await;
    let mut clients = Vec::new();
    for (n, query) in [ALL, PATIENTS, GROUP].into_iter().cycle().take(30).enumerate() {
        let mut stream = match n % 2 {
            0 => EventStream::open(&app.url(query), None).await,
            _ => EventStream::open_encoded(&app.url(query)).await,
        };
        let mut replica = Replica::default();
        stream.until("caught-up").await.iter().for_each(|event| replica.take(event));
        clients.push((query, tokio::spawn(replicate(stream, replica))));
    }
    write_much(bench.store.clone()).await;
    let all = contents(bench.store.as_ref(), &["Patient", "Observation"]).await;
    for (query, client) in clients {
        let replica = client.await.expect("a client");
        assert_eq!(replica.copy, found(query, &all), "{query}");
        assert_eq!(replica.resets, 0);
    }
}

/// A stream in gzip that was carried with others is whole to its last byte.
#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_stream_ends_well() {
    let bench = support::embedded();
    let app = App::with(bench.store.clone(), &["--keep-alive", "0.05"]).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = EventStream::open_encoded(&app.url(ALL)).await;
        stream.until("caught-up").await;
        streams.push(stream);
    }
    for n in 0..50 {
        let (text, few) = ("x".repeat(n * 100), vec![put(&patient(n, "y"))]);
        commit(bench.store.as_ref(), few).await;
        commit(bench.store.as_ref(), vec![put(&patient(99, &text))]).await;
    }
    for stream in &mut streams {
        for _ in 0..100 {
            stream.event().await.expect("an event");
        }
    }
    app.stop().await;
    for stream in &mut streams {
        // The stream's own end holds the sum of all, and is checked.
        assert!(stream.event().await.is_none());
    }
}

/// Asks by hand as soon as there is a place, reads up to some bytes, and then nothing.
async fn silent(app: &App, query: &str, accept: &str, until: &[u8]) -> TcpStream {
    let request = format!("GET {query} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    let holds = |read: &[u8], part: &[u8]| read.windows(part.len()).any(|at| at == part);
    let ask = async {
        loop {
            let mut socket = TcpStream::connect(app.address).await.expect("a connection");
            socket.write_all(request.as_bytes()).await.expect("written");
            let mut read = Vec::new();
            while !holds(&read, b"throttled") {
                read.push(socket.read_u8().await.expect("an answer"));
                if holds(&read, until) {
                    return socket;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.expect("an answer in time")
}

/// Reads on until the other side has ended the connection.
async fn until_cut(mut socket: TcpStream) {
    let mut part = vec![0; 1 << 16];
    let cut = async { while matches!(socket.read(&mut part).await, Ok(1..)) {} };
    tokio::time::timeout(PATIENCE, cut).await.expect("the connection ends");
}

/// Asks for a history of nothing until there is a place for it; it is free again afterwards.
async fn once_free(app: &App) {
    let nothing = app.url("/fhir/$export?_type=Group");
    let again = async {
        while client().get(&nothing).send().await.expect("an answer").status() != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("a place becomes free");
}

/// Who takes nothing is let go, while live, in the history and in NDJSON: its place is free.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_is_let_go() {
    let bench = support::embedded();
    let arguments = ["--write-deadline", "0.3", "--max-streams", "1"];
    let app = App::with(bench.store.clone(), &arguments).await;
    let stalled = silent(&app, PATIENTS, SSE, b"event: caught-up").await;
    // More than the sockets between server and client hold.
    for n in 0..24 {
        let large = format!("{n} {}", "x".repeat(1 << 20));
        commit(bench.store.as_ref(), vec![put(&patient(n, &large))]).await;
    }
    once_free(&app).await;
    until_cut(stalled).await;
    for accept in [SSE, NDJSON] {
        let stalled = silent(&app, PATIENTS, accept, b"\"Patient\"").await;
        once_free(&app).await;
        until_cut(stalled).await;
    }
}

/// Who takes little at a time is not let go, in the history and in NDJSON, though in all the time
/// that the deadline gives it takes less than makes the kernel say that there is room.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_little_is_not_let_go() {
    let bench = support::embedded();
    for n in 0..24 {
        let large = format!("{n} {}", "x".repeat(1 << 20));
        commit(bench.store.as_ref(), vec![put(&patient(n, &large))]).await;
    }
    let app = App::with(bench.store.clone(), &["--write-deadline", "1.5"]).await;
    let slow = [SSE, NDJSON].map(async |accept| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
        // As on a network: one segment of the loopback is larger than that buffer.
        socket2::SockRef::from(&socket).set_tcp_mss(1_400).expect("small segments");
        let mut socket = socket.connect(app.address).await.expect("a connection");
        let request = format!("GET {PATIENTS} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("written");
        let mut part = vec![0; 6 << 10];
        for taken in 0..60 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let read = socket.read_exact(&mut part).await;
            assert!(read.is_ok(), "{accept} cut off after {taken} parts: {read:?}");
        }
    });
    join_all(slow).await;
}

/// A stream's client has nothing to say: what it says is not read for ever.
#[tokio::test(flavor = "multi_thread")]
async fn who_talks_on_and_on_is_let_go() {
    let bench = support::embedded();
    let app = App::with(bench.store.clone(), &["--max-streams", "1"]).await;
    let mut talks = silent(&app, PATIENTS, SSE, b"event: caught-up").await;
    let talk = async { while talks.write_all(&[b'x'; 4096]).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, talk).await.expect("the connection ends");
    once_free(&app).await;
}

const SSE: &str = "text/event-stream";
const NDJSON: &str = "application/fhir+ndjson";

async fn ask(app: &App, name: &str, value: &str) -> Response {
    let request = client().get(app.url(ALL)).header(name, value);
    tokio::time::timeout(PATIENCE, request.send()).await.expect("in time").expect("an answer")
}

/// Who is turned away, again and again, would else keep a connection for each time.
fn assert_closes(response: &Response) {
    assert_eq!(response.headers()[header::CONNECTION], "close");
}

async fn assert_refused(response: Response, status: u16) {
    assert_eq!(response.status(), status);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    assert_closes(&response);
    let text = response.text().await.expect("text");
    let outcome: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(outcome["resourceType"], "OperationOutcome");
    assert_eq!(outcome["issue"][0]["code"], "throttled");
}

/// A stream that has the socket to itself ends with it: a proxy shall put nobody else's request
/// there.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_that_its_connection_ends_with_it() {
    let bench = support::embedded();
    let app = App::start(bench.store.clone()).await;
    for query in [ALL, "/fhir/$export?_until=2020-01-01T00:00:00Z"] {
        let stream = EventStream::open(&app.url(query), None).await;
        assert_eq!(stream.response_headers[header::CONNECTION], "close", "{query}");
        assert_eq!(stream.response_headers[header::TRANSFER_ENCODING], "chunked", "{query}");
    }
}

/// A browser hears in the stream that there is no place, others by the status; whoever goes
/// leaves a place.
#[tokio::test(flavor = "multi_thread")]
async fn one_stream_more_than_there_may_be() {
    for (limit, status) in [("--max-streams", 503), ("--max-streams-per-address", 429)] {
        // A server that ends closes its store.
        let bench = support::embedded();
        let app = App::with(bench.store.clone(), &[limit, "1"]).await;
        let first = silent(&app, ALL, SSE, b"event: caught-up").await;
        let mut browser = EventStream::open(&app.url(ALL), None).await;
        let event = browser.event().await.expect("a word");
        assert_eq!((&*event.event, &*event.id), ("OperationOutcome", ""));
        assert!(event.data.contains(limit), "{}", event.data);
        assert!(matches!(browser.item().await, Some(Item::Retry(_))));
        assert!(browser.item().await.is_none());
        assert_closes(&ask(&app, "Accept", SSE).await);
        assert_refused(ask(&app, "Prefer", "respond-eventsource").await, status).await;
        assert_refused(ask(&app, "Accept", NDJSON).await, status).await;
        drop(first);
        once_free(&app).await;
    }
}

/// Histories wait for their turn, where the client can be kept waiting.
#[tokio::test(flavor = "multi_thread")]
async fn one_history_more_than_are_read_at_once() {
    let bench = support::embedded();
    for n in 0..24 {
        let large = format!("{n} {}", "x".repeat(1 << 20));
        commit(bench.store.as_ref(), vec![put(&patient(n, &large))]).await;
    }
    let app = App::with(bench.store.clone(), &["--max-scans", "1", "--keep-alive", "0.05"]).await;
    let slow = silent(&app, PATIENTS, SSE, b"event: Patient").await;
    let waiting = silent(&app, ALL, SSE, b": keep-alive").await;
    assert_refused(ask(&app, "Accept", NDJSON).await, 503).await;
    drop(slow);
    let mut stream = EventStream::open(&app.url(PATIENTS), None).await;
    drop(waiting);
    stream.until("caught-up").await;
}

/// While streams end, whoever comes is told so and not turned away at the door.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_tells_to_come_again() {
    let bench = support::embedded();
    let app = App::with(bench.store.clone(), &["--drain", "60"]).await;
    let (url, ready) = (app.url(ALL), app.url("/readyz"));
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = EventStream::open(&url, None).await;
        stream.until("caught-up").await;
        streams.push(stream);
    }
    let stopping = tokio::spawn(app.stop());
    let drains =
        async { while client().get(&ready).send().await.expect("an answer").status() == 200 {} };
    tokio::time::timeout(PATIENCE, drains).await.expect("it says that it is not ready");
    let mut late = EventStream::open(&url, None).await;
    assert_eq!(late.event().await.expect("a word").event, "OperationOutcome");
    assert!(matches!(late.item().await, Some(Item::Retry(_))));
    drop(streams);
    tokio::time::timeout(PATIENCE, stopping).await.expect("it stops").expect("it stops");
}
