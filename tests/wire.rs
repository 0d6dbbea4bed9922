//! The wire: frames byte by byte, headers, an independent client, and what is refused.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::time::Duration;

use eventsource_client::{Client as _, ClientBuilder, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use reqwest::{StatusCode, header};
use serde_json::{Value, json};
use support::{
    App, Bench, client,
    stream::{EventStream, PATIENCE},
    writes::{commit, delete, group, observation, patient, put},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SSE_TYPE: &str = "text/event-stream";
const NDJSON: &str = "application/fhir+ndjson";

/// A Patient whose text is hard on careless framing: multi-byte characters, line separators
/// that are none in SSE, quotes, and more than any buffer holds.
fn hard_text() -> String {
    format!("ü\u{2028}\u{2029}\u{85}😀\r\n\t\"\\{}", "€".repeat(200_000))
}

async fn served() -> (Bench, App) {
    let bench = support::embedded();
    let mut hard = patient(1, "x");
    hard["name"][0]["family"] = hard_text().into();
    let writes = vec![put(&hard), put(&observation(1, 1, "v")), put(&group("g", &[1]))];
    commit(bench.store.as_ref(), writes).await;
    let app = App::with(bench.store.clone(), &["--keep-alive", "0.05"]).await;
    (bench, app)
}

async fn get(app: &App, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = client().get(app.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    tokio::time::timeout(PATIENCE, request.send()).await.expect("in time").expect("an answer")
}

/// The body of an event stream as it stands on the wire, up to the keep-alive after `caught-up`.
async fn raw_body(app: &App, path: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(app.address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {SSE_TYPE}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut wire = Vec::new();
    let ends = |wire: &[u8]| {
        let level = wire.windows(16).rposition(|part| part == b"event: caught-up");
        level.is_some_and(|at| wire[at..].windows(14).any(|part| part == b": keep-alive\n\n"))
    };
    while !ends(&wire[wire.len().saturating_sub(4_096)..]) {
        let mut part = vec![0; 1 << 16];
        let read = tokio::time::timeout(PATIENCE, socket.read(&mut part)).await;
        let read = read.expect("in time").expect("bytes");
        assert!(read > 0, "the stream ended");
        wire.extend_from_slice(&part[..read]);
    }
    unchunked(&wire)
}

/// Undoes HTTP/1.1's chunked transfer coding.
fn unchunked(wire: &[u8]) -> Vec<u8> {
    let head = wire.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
    let (mut rest, mut body) = (&wire[head..], Vec::new());
    while let Some(line) = rest.windows(2).position(|part| part == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let end = (line + 2 + size).min(rest.len());
        body.extend_from_slice(&rest[line + 2..end]);
        rest = rest.get(end + 2..).unwrap_or_default();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_stand_on_the_wire_as_promised() {
    let (bench, app) = served().await;
    let body = raw_body(&app, "/fhir/$export?_type=Patient").await;
    let body = String::from_utf8(body).expect("UTF-8");
    let mut blocks = body.split("\n\n").filter(|block| *block != ": keep-alive");
    assert_eq!(blocks.next(), Some("retry: 3000"));
    let lines: Vec<_> = blocks.next().expect("a resource").split('\n').collect();
    assert_eq!(lines.len(), 3, "{lines:.100?}");
    assert_eq!(lines[0], "event: Patient");
    let id = lines[1].strip_prefix("id: ").expect("an id");
    assert!(
        id.len() <= 128 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
    );
    let data = lines[2].strip_prefix("data: ").expect("data");
    let stored: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(stored["name"][0]["family"], hard_text());
    let caught_up: Vec<_> = blocks.next().expect("caught-up").split('\n').collect();
    assert_eq!(caught_up[0], "event: caught-up");
    assert!(caught_up[2].contains("transactionTime"), "{caught_up:?}");
    drop(bench);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_client_reads_the_same() {
    let (bench, app) = served().await;
    let url = app.url("/fhir/$export?_type=Patient");
    let transport = HyperTransport::new().expect("a transport");
    let client = ClientBuilder::for_url(&url).expect("a URL").build_with_transport(transport);
    let mut stream = Box::pin(client.stream());
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let item = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time");
        match item.expect("the stream goes on").expect("no error") {
            SSE::Event(event) => {
                seen.push((event.event_type, event.data, event.id.expect("an id")));
                if seen.len() == 2 {
                    commit(bench.store.as_ref(), vec![delete("Patient", "p1")]).await;
                }
            }
            SSE::Comment(_) | SSE::Connected(_) => {}
        }
    }
    let names: Vec<_> = seen.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["Patient", "caught-up", "deleted"]);
    let stored: Value = serde_json::from_str(&seen[0].1).expect("JSON");
    assert_eq!(stored["name"][0]["family"], hard_text());
    let deleted: Value = serde_json::from_str(&seen[2].1).expect("JSON");
    assert_eq!(deleted["entry"][0]["request"], json!({"method": "DELETE", "url": "Patient/p1"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_say_what_the_stream_is() {
    let (_bench, app) = served().await;
    let path = "/fhir/$export?_type=Observation";
    let preferred = get(&app, path, &[("prefer", "respond-eventsource")]).await;
    let head = |name: &str| preferred.headers().get(name).map(|v| v.to_str().expect("ASCII"));
    assert_eq!(head("content-type"), Some(SSE_TYPE));
    assert_eq!(head("cache-control"), Some("no-store, no-transform"));
    assert_eq!(head("x-accel-buffering"), Some("no"));
    assert_eq!(head("preference-applied"), Some("respond-eventsource"));
    let accepted = get(&app, path, &[("accept", SSE_TYPE)]).await;
    assert_eq!(accepted.headers().get("preference-applied"), None);
    for accept in [NDJSON, "application/ndjson", "application/x-ndjson", "*/*"] {
        let lines = get(&app, path, &[("accept", accept)]).await;
        assert_eq!(lines.headers()[header::CONTENT_TYPE], NDJSON);
        let body = lines.text().await.expect("a stream that ends");
        assert_eq!(body.lines().count(), 1, "{body}");
        assert!(body.ends_with("}\n"), "{body}");
    }
}

/// Every event is readable as soon as it is sent, though a compressor lies in between.
#[tokio::test(flavor = "multi_thread")]
async fn compression_holds_nothing_back() {
    let (bench, app) = served().await;
    for coding in ["gzip", "zstd"] {
        let headers = [("accept", SSE_TYPE), ("accept-encoding", coding)];
        let response = get(&app, "/fhir/$export?_type=Observation", &headers).await;
        assert_eq!(response.headers()["content-encoding"], coding);
        let mut chunks = response.bytes_stream();
        let mut encoded = Vec::new();
        let mut wanted = "event: caught-up";
        for round in 0..2 {
            while !decoded(coding, &encoded).contains(wanted) {
                let chunk = tokio::time::timeout(PATIENCE, chunks.next()).await;
                encoded.extend(chunk.expect("in time").expect("a chunk").expect("bytes"));
            }
            if round == 0 {
                let text = format!("after {coding}");
                commit(bench.store.as_ref(), vec![put(&observation(2, 1, &text))]).await;
                wanted = if coding == "gzip" { "after gzip" } else { "after zstd" };
            }
        }
    }
}

fn decoded(coding: &str, encoded: &[u8]) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    // Both end before their coding does: what came before is what counts.
    let _ = match coding {
        "gzip" => flate2::read::GzDecoder::new(encoded).read_to_end(&mut text),
        _ => zstd::stream::read::Decoder::new(encoded).expect("zstd").read_to_end(&mut text),
    };
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn since_and_until_bound_the_history() {
    let (bench, app) = served().await;
    let instant = |json: &Value| {
        json["meta"]["lastUpdated"].as_str().expect("lastUpdated").replace('+', "%2B")
    };
    let first: Value = get(&app, "/fhir/Patient/p1", &[]).await.json_of().await;
    let first = instant(&first);
    let mut second = first.clone();
    while second == first {
        commit(bench.store.as_ref(), vec![put(&patient(2, &second))]).await;
        second = instant(&get(&app, "/fhir/Patient/p2", &[]).await.json_of().await);
    }
    let count = async |query: String| {
        let path = format!("/fhir/Patient/$export?_type=Patient&{query}");
        get(&app, &path, &[("accept", NDJSON)]).await.text().await.expect("lines").lines().count()
    };
    assert_eq!(count(format!("_since={first}")).await, 1, "strictly later");
    assert_eq!(count(format!("_until={second}")).await, 1, "strictly earlier");
    assert_eq!(count(format!("_since={second}")).await, 0);
    assert_eq!(count(format!("_since=1970-01-01T00:00:00Z&_until={first}")).await, 0);

    // With _until an event stream ends, and a browser that comes again is told to stay away.
    let url = app.url(&format!("/fhir/$export?_type=Patient&_until={second}"));
    let mut stream = EventStream::open(&url, None).await;
    let events = stream.until("caught-up").await;
    assert_eq!(events.len(), 2);
    assert!(stream.event().await.is_none(), "the stream ends");
    let last = &events.last().expect("caught-up").id;
    assert_eq!(EventStream::request(&url, Some(last)).await.status(), StatusCode::NO_CONTENT);
}

trait JsonOf {
    async fn json_of(self) -> Value;
}

impl JsonOf for reqwest::Response {
    async fn json_of(self) -> Value {
        serde_json::from_str(&self.text().await.expect("a body")).expect("JSON")
    }
}

/// Path, headers, status, and what the outcome must name.
type Refusal = (&'static str, &'static [(&'static str, &'static str)], u16, &'static str);

const REFUSALS: &[Refusal] = &[
    ("/fhir/$export?_since=2024", &[], 400, "_since"),
    ("/fhir/$export?_since=2024-02-30T00:00:00Z", &[], 400, "_since"),
    ("/fhir/$export?_since=2024-02-03T00:00:00", &[], 400, "_since"),
    ("/fhir/$export?_since=", &[], 400, "_since"),
    ("/fhir/$export?_until=yesterday", &[], 400, "_until"),
    ("/fhir/$export?_since=2024-02-03T00:00:00Z&_since=2024-02-03T00:00:00Z", &[], 400, "_since"),
    ("/fhir/$export?_type=Patent", &[], 400, "_type"),
    ("/fhir/$export?_type=Patient,", &[], 400, "_type"),
    ("/fhir/$export?_typo=Patient", &[], 400, "_typo"),
    ("/fhir/Patient/$export?_type=ValueSet", &[], 400, "_type"),
    ("/fhir/Observation/$export?_type=Patient", &[], 400, "_type"),
    ("/fhir/$export?_outputFormat=text/csv", &[], 400, "_outputFormat"),
    ("/fhir/$export", &[("accept", "application/fhir+json")], 406, "Accept"),
    ("/fhir/$export", &[("accept", "application/xml, image/*;q=0.5")], 406, "Accept"),
    ("/fhir/$export", &[("accept", "text/event-stream;q=0")], 406, "Accept"),
    ("/fhir/$export", &[("accept", SSE_TYPE), ("last-event-id", "5")], 400, "Last-Event-ID"),
    ("/fhir/$export", &[("accept", SSE_TYPE), ("last-event-id", "1l~~~")], 400, "Last-Event-ID"),
    ("/fhir/$export", &[("accept", SSE_TYPE), ("last-event-id", "\u{fc}")], 400, "Last-Event-ID"),
    ("/fhir/$export?lastEventId=1x~a~1.1.1", &[("accept", SSE_TYPE)], 400, "lastEventId"),
    ("/fhir/$export?lastEventId=1l~a~1.1.1", &[("accept", NDJSON)], 400, "lastEventId"),
    ("/fhir/Group/nobody/$export", &[("accept", SSE_TYPE)], 404, "id"),
    ("/fhir/Group/a_b/$export", &[], 400, "id"),
    ("/fhir/Group/%FF/$export", &[], 400, "path"),
    ("/fhir/%FF/$export", &[], 400, "path"),
    ("/fhir/Patent/$export", &[], 404, ""),
    ("/fhir/$export/more", &[], 404, ""),
    ("/nothing", &[], 404, ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let (_bench, app) = served().await;
    for (path, headers, status, named) in REFUSALS {
        let response = get(&app, path, headers).await;
        assert_eq!(response.status(), *status, "{path} {headers:?}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/fhir+json", "{path}");
        let outcome = response.json_of().await;
        assert_eq!(outcome["resourceType"], "OperationOutcome", "{path}");
        let issue = &outcome["issue"][0];
        let expression = issue["expression"][0].as_str().unwrap_or_default();
        assert_eq!(expression, *named, "{path}: {outcome}");
        assert!(issue["diagnostics"].as_str().is_some_and(|text| text.len() > 10), "{outcome}");
        // It goes on serving.
        let lines = get(&app, "/fhir/Observation/$export", &[("accept", NDJSON)]).await;
        assert_eq!(lines.text().await.expect("lines").lines().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_named_origins_may_read() {
    let cases = [
        (None, None),
        (Some("https://a.example,https://b.example"), Some("https://b.example")),
        (Some("*"), Some("*")),
        (Some("https://a.example,*"), Some("*")),
    ];
    for (origins, allowed) in cases {
        let bench = support::embedded();
        let arguments: Vec<_> = origins.into_iter().flat_map(|o| ["--cors-origins", o]).collect();
        let app = App::with(bench.store.clone(), &arguments).await;
        let response = get(&app, "/fhir/$export", &[("origin", "https://b.example")]).await;
        assert_eq!(response.status(), 200, "{origins:?}");
        let told = response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(told.map(|told| told.to_str().expect("text")), allowed, "{origins:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lenient_handling_ignores_and_says_so() {
    let (_bench, app) = served().await;
    let headers = [("prefer", "handling=lenient"), ("accept", NDJSON)];
    let path = "/fhir/Patient/$export?_typo=x&_type=Patient,ValueSet";
    let response = get(&app, path, &headers).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-ignored-parameters"], "_type=ValueSet,_typo");
    assert_eq!(response.text().await.expect("lines").lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_in_another_querys_history_is_refused() {
    let (_bench, app) = served().await;
    let mut stream = EventStream::open(&app.url("/fhir/$export?_type=Patient"), None).await;
    let position = stream.event().await.expect("a resource").id;
    for query in ["", "?_type=Observation", "?_type=Patient&_since=2020-01-01T00:00:00Z"] {
        let response =
            EventStream::request(&app.url(&format!("/fhir/$export{query}")), Some(&position)).await;
        assert_eq!(response.status(), 400, "{query}");
        assert!(response.json_of().await.to_string().contains("Last-Event-ID"));
    }
    let same = app.url("/fhir/$export?_type=Patient,Patient");
    assert_eq!(EventStream::request(&same, Some(&position)).await.status(), 200);
}

/// Writes patients, which a narrow client has not asked for.
fn write_on(bench: &Bench) -> tokio::task::JoinHandle<()> {
    let store = bench.store.clone();
    tokio::spawn(async move {
        for n in 0.. {
            commit(store.as_ref(), vec![put(&patient(2, &n.to_string()))]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// What nobody asked for still moves a narrow client's position.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_checkpoint_moves_the_position() {
    use fhirtail::client::sse::Item;
    let (bench, app) = served().await;
    let mut stream = EventStream::open(&app.url("/fhir/Basic/$export"), None).await;
    let start = stream.until("caught-up").await.pop().expect("caught-up").id;
    let writer = write_on(&bench);
    let moved = loop {
        match stream.item().await.expect("the stream goes on") {
            Item::Checkpoint(id) => break id,
            Item::Event(event) => panic!("{event:?}"),
            Item::Retry(_) => {}
        }
    };
    writer.abort();
    assert_ne!(moved, start);
    let mut resumed = EventStream::open(&app.url("/fhir/Basic/$export"), Some(&moved)).await;
    assert_eq!(resumed.event().await.expect("an event").event, "caught-up");
}

/// A compressed stream is never the crowd's: its own session tells it.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_checkpoint_comes_compressed_too() {
    let (bench, app) = served().await;
    let headers = [("accept", SSE_TYPE), ("accept-encoding", "gzip")];
    let response = get(&app, "/fhir/Basic/$export", &headers).await;
    let mut chunks = response.bytes_stream();
    let writer = write_on(&bench);
    let is_told = |text: &str| {
        let blocks: Vec<_> = text.split("\n\n").collect();
        blocks[..blocks.len() - 1].iter().any(|block| block.starts_with("id: "))
    };
    let mut encoded = Vec::new();
    let told = async {
        while !is_told(&decoded("gzip", &encoded)) {
            encoded.extend(chunks.next().await.expect("a chunk").expect("bytes"));
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("in time");
    writer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_streams_so_that_clients_come_again() {
    use fhirtail::client::sse::Item;
    let (bench, app) = served().await;
    let mut stream = EventStream::open(&app.url("/fhir/$export?_type=Observation"), None).await;
    let position = stream.until("caught-up").await.pop().expect("caught-up").id;
    app.stop().await;
    let farewell = stream.item().await;
    assert!(matches!(farewell, Some(Item::Retry(_))), "{farewell:?}");
    assert!(stream.item().await.is_none());
    drop((bench, position));
}
