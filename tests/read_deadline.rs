//! Whoever begins a request and does not go on is let go.
#![allow(clippy::expect_used, reason = "a test that meets the unexpected fails")]

use std::io::ErrorKind;

use futures_util::future::join_all;
use support::{App, stream::PATIENCE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

/// In seconds.
const DEADLINE: f64 = 1.0;

/// Sends the beginning of a request, and gives all that comes until the connection is closed.
async fn begin(app: &App, beginning: &str) -> String {
    let start = Instant::now();
    let mut socket = TcpStream::connect(app.address).await.expect("a connection");
    socket.write_all(beginning.as_bytes()).await.expect("written");
    let mut answer = String::new();
    let read = timeout(PATIENCE, socket.read_to_string(&mut answer));
    if let Err(error) = read.await.expect("the connection is closed") {
        // So it ends where the server had not read what was sent.
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert!(start.elapsed().as_secs_f64() >= DEADLINE, "too soon: {answer}");
    answer
}

async fn server() -> (App, support::Bench) {
    let bench = support::embedded();
    let deadline = DEADLINE.to_string();
    (App::with(bench.store.clone(), &["--read-deadline", &deadline]).await, bench)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_body() {
    let (app, _bench) = server().await;
    let head = "Host: x\r\nContent-Type: application/fhir+json";
    let lengths = [
        ("Content-Length: 100", "{\"resourceType\":"),
        ("Transfer-Encoding: chunked", "1\r\n{\r\n4\r\n\"re"),
    ];
    let requests = ["PUT /fhir/Patient/a", "POST /fhir/Patient", "POST /fhir"];
    let beginnings = requests.into_iter().flat_map(|request| {
        lengths
            .map(|(length, body)| format!("{request} HTTP/1.1\r\n{head}\r\n{length}\r\n\r\n{body}"))
    });
    let app = &app;
    let answers = beginnings.map(|beginning| async move { begin(app, &beginning).await });
    for answer in join_all(answers).await {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
        let (_, outcome) = answer.split_once("\r\n\r\n").expect("a body");
        let outcome: serde_json::Value = serde_json::from_str(outcome).expect("JSON");
        assert_eq!(outcome["resourceType"], "OperationOutcome");
        assert_eq!(outcome["issue"][0]["code"], "timeout");
    }
}

/// One that comes in parts, none of them late, may take longer than the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body() {
    let (app, _bench) = server().await;
    let mut socket = TcpStream::connect(app.address).await.expect("a connection");
    let body = r#"{"resourceType":"Patient","id":"a"}"#;
    let head = "Host: x\r\nContent-Type: application/fhir+json\r\nConnection: close";
    let head =
        format!("PUT /fhir/Patient/a HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await.expect("written");
    let start = Instant::now();
    for part in body.as_bytes().chunks(4) {
        socket.write_all(part).await.expect("written");
        tokio::time::sleep(std::time::Duration::from_secs_f64(DEADLINE / 6.0)).await;
    }
    assert!(start.elapsed().as_secs_f64() > DEADLINE);
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

/// No part of it is late, and it never ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_a_byte_now_and_then() {
    let bench = support::embedded();
    let app = App::with(bench.store.clone(), &["--read-deadline", "0.2"]).await;
    let mut socket = TcpStream::connect(app.address).await.expect("a connection");
    let head = "Host: x\r\nContent-Type: application/fhir+json\r\nContent-Length: 1000000";
    let head = format!("PUT /fhir/Patient/a HTTP/1.1\r\n{head}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("written");
    let (mut answers, mut asks) = socket.split();
    let mut answer = String::new();
    let dribble = async {
        while asks.write_all(b" ").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let read = async { answers.read_to_string(&mut answer).await };
    let both = async { tokio::join!(dribble, read) };
    // The connection may be reset behind the answer.
    let _ = timeout(PATIENCE, both).await.expect("the connection is closed");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

/// Who ends its side has said all, and gets what it asked for. A stream has no end: its client,
/// that has hung up for all that can be known, gets what is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_is_closed() {
    let (app, _bench) = server().await;
    let get = |path: &str, accept: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")
    };
    let body = r#"{"resourceType":"Patient","id":"a"}"#;
    let put = format!(
        "PUT /fhir/Patient/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/fhir+json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let asked = [
        (put, "201 ", "\"Patient\""),
        (get("/fhir/Patient/a", "*/*"), "200 ", "\"Patient\""),
        (get("/fhir/$export", "application/fhir+ndjson"), "200 ", "}\n\r\n0\r\n\r\n"),
        (get("/fhir/Patient", "*/*"), "200 ", "]}\r\n0\r\n\r\n"),
        (get("/fhir/$export", "text/event-stream"), "200 ", "text/event-stream"),
    ];
    for (request, status, holds) in asked {
        let mut socket = TcpStream::connect(app.address).await.expect("a connection");
        socket.write_all(request.as_bytes()).await.expect("written");
        socket.shutdown().await.expect("closed");
        let mut answer = String::new();
        let read = timeout(PATIENCE, socket.read_to_string(&mut answer)).await;
        read.expect("the connection is closed").expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        assert!(answer.contains(holds), "{request}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head() {
    let (app, _bench) = server().await;
    // The last could become HTTP/2.
    let heads = ["", "GET /fhir/Patient/a HTTP/1.1\r\nHos", "G", "PR"];
    for answer in join_all(heads.map(|head| begin(&app, head))).await {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}
