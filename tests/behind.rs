//! Behind the ring: who lags or comes back late is served by few readers, in turn.
#![allow(clippy::expect_used, reason = "a test that meets the unexpected fails")]

use std::sync::Arc;

use fhirtail::store::Store;
use support::{
    App,
    chaos::stamp,
    replica::{Replica, contents},
    stream::{EventStream, PATIENCE},
    writes::{commit, put},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

const QUERY: &str = "/fhir/$export?_type=Basic";

async fn write(store: &dyn Store, count: usize) {
    for n in 0..count {
        let text = format!("{} {}", stamp(), "x".repeat(10_000));
        let code = serde_json::json!({"text": text});
        let basic = serde_json::json!({"resourceType": "Basic", "id": format!("b{}", n % 20), "code": code});
        commit(store, vec![put(&basic)]).await;
    }
}

/// Opens a stream that resumes, reads its first bytes, and nothing more. Its socket holds little, where
/// the system's own limit may be tens of megabytes.
async fn stalled(app: &App, id: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("a small buffer");
    let mut socket = socket.connect(app.address).await.expect("a connection");
    let request = format!(
        "GET {QUERY} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nLast-Event-ID: {id}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("written");
    socket.read_exact(&mut [0; 64]).await.expect("an answer");
    socket
}

/// One reader for all: clients that take nothing must not keep it from one that does.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_clients_give_way() {
    let bench = support::embedded();
    write(bench.store.as_ref(), 20).await;
    let arguments = ["--ring-bytes", "50000", "--catch-ups", "1"];
    let app = App::with(bench.store.clone(), &arguments).await;
    let mut first = EventStream::open(&app.url(QUERY), None).await;
    let history = first.until("caught-up").await;
    drop(first);
    let id = &history.last().expect("caught-up").id;
    // More than the sockets between server and client hold.
    write(bench.store.as_ref(), 3_000).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(stalled(&app, id).await);
    }
    let mut replica = Replica::default();
    history.iter().for_each(|event| replica.take(event));
    replica.caught_up = false;
    let mut stream = EventStream::open(&app.url(QUERY), Some(id)).await;
    while !replica.caught_up {
        replica.take(&stream.event().await.expect("the stream goes on"));
    }
    assert_eq!(replica.copy, contents(bench.store.as_ref(), &["Basic"]).await);

    // The stalled come back to life: they lost nothing.
    for socket in &mut sockets {
        let mut read = Vec::new();
        let mut part = vec![0; 1 << 16];
        while !read.windows(16).any(|part| part == b"event: caught-up") {
            let count = tokio::time::timeout(PATIENCE, socket.read(&mut part));
            let count = count.await.expect("in time").expect("bytes");
            assert!(count > 0, "the stream ended");
            let keep = read.len().saturating_sub(32);
            read.drain(..keep);
            read.extend_from_slice(&part[..count]);
        }
    }
}

/// A client that is slower than the ring is long hears so, and hears when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_hears_fell_behind_and_caught_up() {
    let bench = support::embedded();
    write(bench.store.as_ref(), 1).await;
    let app = App::with(bench.store.clone(), &["--ring-bytes", "50000"]).await;
    let mut stream = EventStream::open(&app.url(QUERY), None).await;
    stream.until("caught-up").await;
    let store: Arc<dyn Store> = bench.store.clone();
    // Written while nothing is read, until nothing is sent any more: the sockets are full, and what was
    // written since is more than the ring holds.
    let (mut written, mut sent) = (0, None);
    loop {
        write(store.as_ref(), 300).await;
        written += 300;
        let now = app.stream().await["bytes"].as_u64().expect("a count");
        if sent.replace(now) == Some(now) {
            break;
        }
    }
    // Each word of falling behind is followed by one of being back, be that before the last change,
    // where the ring gets it only then.
    let (mut changes, mut words) = (0, Vec::new());
    while changes < written || words.len() % 2 == 1 {
        match stream.event().await.expect("the stream goes on").event.as_str() {
            "Basic" => changes += 1,
            word => words.push(word.to_owned()),
        }
    }
    assert_eq!(changes, written);
    assert!(!words.is_empty());
    assert!(words.chunks(2).all(|pair| pair == ["fell-behind", "caught-up"]), "{words:?}");
}

/// However many stream: one change stream on the server's side.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_streams_are_one_change_stream() {
    let Some(bench) = support::mongo().await else { return };
    write(bench.store.as_ref(), 3).await;
    let app = App::start(bench.store.clone()).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = EventStream::open(&app.url(QUERY), None).await;
        stream.until("caught-up").await;
        streams.push(stream);
    }
    write(bench.store.as_ref(), 1).await;
    for stream in &mut streams {
        stream.until("Basic").await;
    }
    let client = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
    let database = client.default_database().expect("a database").name().to_owned();
    let streams = async || support::mongod::change_streams(&client, &database).await.len();
    let one = async {
        loop {
            // One that is being taken up is in neither of the server's lists for a moment.
            match streams().await {
                0 => {}
                count => break assert_eq!(count, 1),
            }
        }
    };
    tokio::time::timeout(PATIENCE, one).await.expect("one that is open");
}
