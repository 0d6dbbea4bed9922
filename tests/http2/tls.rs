//! TLS itself: who does not finish its handshake, who speaks in the clear, HTTP/1.1 inside, and a
//! certificate that is renewed.

use std::{
    fs::OpenOptions,
    process::Command,
    time::{Duration, Instant},
};

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use support::{
    App, Bench,
    certificate::Issued,
    embedded,
    http2::Http2,
    logged::Logged,
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{PATIENTS, populate, until_open_of};

/// In seconds.
const DEADLINE: f64 = 0.5;

async fn serve(bench: &Bench, issued: &Issued, more: &[&str]) -> App {
    let arguments = issued.arguments();
    let arguments = arguments.iter().map(String::as_str).chain(more.iter().copied());
    App::with(bench.store.clone(), &arguments.collect::<Vec<_>>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_without_end() {
    let (bench, issued) = (embedded(), Issued::fresh());
    let app = serve(&bench, &issued, &["--read-deadline", &DEADLINE.to_string()]).await;
    // A ClientHello of which the rest never comes.
    for said in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let start = Instant::now();
        let mut socket = TcpStream::connect(app.address).await.expect("a connection");
        socket.write_all(said).await.expect("written");
        let mut heard = Vec::new();
        // It may be reset, since it was not read to its end.
        let _ = timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("let go");
        assert!(heard.is_empty() && start.elapsed().as_secs_f64() >= DEADLINE, "{heard:?}");
    }
    // Nor does one that is done and asks nothing, or half a head.
    for (protocol, said) in [("h2", &b""[..]), ("http/1.1", b""), ("http/1.1", b"GET / HTT")] {
        // Who was too slow for that comes again.
        let began = Instant::now();
        let (start, mut stream) = loop {
            let start = Instant::now();
            match issued.connect(app.address, &[protocol]).await {
                Ok(stream) => break (start, stream),
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
        };
        stream.write_all(said).await.expect("written");
        stream.flush().await.expect("written");
        let mut heard = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("let go");
        assert!(start.elapsed().as_secs_f64() >= DEADLINE, "{protocol}: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_in_the_clear_is_told() {
    let (bench, issued) = (embedded(), Issued::fresh());
    let app = serve(&bench, &issued, &[]).await;
    for said in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut socket = TcpStream::connect(app.address).await.expect("a connection");
        socket.write_all(said.as_bytes()).await.expect("written");
        let mut heard = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("let go");
        let heard = String::from_utf8(heard).expect("text");
        let (head, body) = heard.split_once("\r\n\r\n").expect("a body");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        let outcome: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(outcome["resourceType"], "OperationOutcome");
        let why = outcome["issue"][0]["diagnostics"].as_str().expect("text");
        assert!(why.contains("https://"), "{why}");
    }
}

/// An HTTP/1.1 client that trusts anybody.
fn trusting() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().expect("a client")
}

async fn open(url: &str, encoding: &str) -> EventStream {
    let request = trusting().get(url).header("accept", "text/event-stream");
    let request = request.header("accept-encoding", encoding).send();
    let answer = timeout(PATIENCE, request).await.expect("in time").expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_11));
    EventStream::of(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_inside() {
    let (bench, issued) = (embedded(), Issued::fresh());
    populate(&bench.store, 3, 10_000).await;
    let app = serve(&bench, &issued, &["--keep-alive", "0.1"]).await;
    let mut streams =
        [open(&app.url(PATIENTS), "identity").await, open(&app.url(PATIENTS), "gzip").await];
    for stream in &mut streams {
        assert_eq!(stream.until("caught-up").await.len(), 4);
    }
    for stream in &mut streams {
        commit(bench.store.as_ref(), vec![put(&patient(9, "y"))]).await;
        commit(bench.store.as_ref(), vec![put(&patient(9, "x"))]).await;
        stream.until_that(|event| event.data.contains("\"x\"")).await;
    }
    app.stop().await;
    for stream in &mut streams {
        while stream.item().await.is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_inside_that_takes_nothing() {
    let (bench, issued) = (embedded(), Issued::fresh());
    populate(&bench.store, 24, 1 << 20).await;
    let app = serve(&bench, &issued, &["--write-deadline", "0.5"]).await;
    for accept in ["text/event-stream", "application/fhir+ndjson"] {
        let mut stream = issued.connect(app.address, &[]).await.expect("a handshake");
        let request = format!("GET {PATIENTS} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        stream.flush().await.expect("written");
        stream.read_u8().await.expect("an answer");
        until_open_of(&app, &issued, 0).await;
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is cut");
        assert!(rest.len() < 24 << 20);
    }
}

/// What the server shows to who connects now.
async fn shown(address: std::net::SocketAddr, issued: &Issued) -> Option<CertificateDer<'static>> {
    let stream = issued.connect(address, &["h2"]).await.ok()?;
    stream.get_ref().1.peer_certificates()?.first().cloned().map(CertificateDer::into_owned)
}

/// As a disk does that no longer answers: the server ends all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_hangs_does_not_hold_up_the_end() {
    let bench = embedded();
    bench.store.close().await;
    let issued = Issued::fresh();
    let arguments = issued.arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut server = Logged::serve(&bench.name, &arguments);
    std::fs::remove_file(issued.key()).expect("removed");
    assert!(Command::new("mkfifo").arg(issued.key()).status().expect("mkfifo").success());
    // Which waits until somebody reads it.
    let opened = spawn_blocking(move || OpenOptions::new().write(true).open(issued.key()));
    let _silent = timeout(PATIENCE, opened).await.expect("it is read").expect("no panic");
    server.signal("-TERM");
    let end = async {
        while server.end().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, end).await.expect("it ends");
}

/// Whoever is connected stays so, whoever comes gets the new one; what is of no use is told, and
/// changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_renewed() {
    let bench = embedded();
    populate(&bench.store, 1, 10).await;
    bench.store.close().await;
    let mut issued = Issued::fresh();
    let arguments = issued.arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut server = Logged::serve(&bench.name, &arguments);
    let address = server.address();
    assert!(server.base.starts_with("https://"), "{}", server.base);
    let (client, ended) = Http2::encrypted(address, &issued).await;
    let mut stream = client.open(PATIENTS, &[]).await;
    stream.until("caught-up").await;

    let first = issued.der.clone();
    std::fs::write(issued.key(), "no key").expect("a file");
    let said = server.says("the TLS certificate can't be renewed");
    let why = said["error"].as_str().expect("text");
    assert!(why.contains("--tls-key") && why.contains("unencrypted private key"), "{said}");
    assert_eq!(shown(address, &issued).await, Some(first.clone()));
    let (_, metrics) = client.text("/metrics").await;
    assert!(metrics.contains("\nfhirtail_tls_certificate_refused 1\n"), "{metrics}");

    issued.renew();
    server.says("the TLS certificate is renewed");
    assert_ne!(issued.der, first);
    let (_, metrics) = client.text("/metrics").await;
    assert!(metrics.contains("\nfhirtail_tls_certificate_refused 0\n"), "{metrics}");
    assert_eq!(shown(address, &issued).await, Some(issued.der.clone()));

    let json = [("content-type", "application/fhir+json")];
    let request = client.request(axum::http::Method::PUT, "/fhir/Patient/new", &json);
    let (answer, mut sends) = client.ask(request, false).await.expect("a stream");
    sends.send_data(r#"{"resourceType":"Patient","id":"new"}"#.into(), true).expect("a body");
    assert_eq!(answer.await.expect("an answer").status(), 201);
    assert_eq!(stream.event().await.expect("a change").event, "Patient");
    assert!(!ended.is_finished());
}
