//! Clients behind the ring: few readers of the log, and many who need one.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod support;

use support::{
    App,
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Reads the first event after an id, then nothing more; the connection stays.
async fn stalled(app: &App, path: &str, id: &str) -> TcpStream {
    let mut socket = TcpStream::connect(app.address).await.expect("a connection");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nLast-Event-ID: {id}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut start = Vec::new();
    while !String::from_utf8_lossy(&start).contains("event: Patient") {
        let read = tokio::time::timeout(PATIENCE, socket.read_buf(&mut start)).await;
        assert_ne!(read.expect("an event").expect("bytes"), 0);
    }
    socket
}

/// One reader for all, and its client has stopped to read: the next gets its turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_keeps_nobody_waiting() {
    const PATH: &str = "/fhir/$export?_type=Patient";
    let bench = support::embedded();
    let store = bench.store.as_ref();
    commit(store, vec![put(&patient(0, "first"))]).await;
    let app = App::with(bench.store.clone(), &["--ring-bytes", "5000", "--catch-ups", "1"]).await;
    let id = EventStream::open(&app.url(PATH), None).await.until("caught-up").await;
    let id = &id.last().expect("caught-up").id;
    // More than sockets hold.
    let text = "x".repeat(100_000);
    for n in 0..40 {
        commit(store, (0..10).map(|m| put(&patient(10 * n + m, &text))).collect()).await;
    }
    let stalled = stalled(&app, PATH, id).await;
    let mut behind = EventStream::open(&app.url(PATH), Some(id)).await;
    let events = tokio::time::timeout(PATIENCE, behind.until("caught-up")).await;
    assert_eq!(events.expect("its turn comes").len(), 400 + 1);
    drop(stalled);
}
