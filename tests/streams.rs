//! `/streams` says who is open, for whom, and where each is.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    App, Bench, client,
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PATIENTS: &str = "/fhir/$export?_type=Patient";

async fn told(app: &App, query: &str) -> Value {
    let url = app.url(&format!("/streams.json{query}"));
    let answer = client().get(url).send().await.expect("an answer");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    serde_json::from_str(&answer.text().await.expect("text")).expect("JSON")
}

/// Asks until it is so; gives what was told then.
async fn until(app: &App, query: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let view = told(app, query).await;
            if is_so(&view) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(view) => view,
        Err(_) => panic!("never so: {:#}", told(app, query).await),
    }
}

/// A client that asks, and takes no more of the answer than comes by itself.
async fn asks(app: &App, request: &str) -> TcpStream {
    let mut socket = TcpStream::connect(app.address).await.expect("a connection");
    socket.write_all(request.as_bytes()).await.expect("written");
    socket
}

/// Follows a stream, and counts the bytes of its blocks, but for comments and what is to be waited.
async fn count(url: String, counted: Arc<AtomicU64>) {
    let mut answer = EventStream::request(&url, None).await;
    let mut text = String::new();
    while let Some(chunk) = answer.chunk().await.expect("the stream goes on") {
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        while let Some(end) = text.find("\n\n") {
            let block: String = text.drain(..end + 2).collect();
            if !block.starts_with(':') && !block.starts_with("retry:") {
                counted.fetch_add(block.len() as u64, Ordering::Relaxed);
            }
        }
    }
}

fn in_phase(view: &Value, phase: &str) -> u64 {
    view["totals"]["phases"][phase].as_u64().expect("a count")
}

async fn each_is_told(bench: Bench, level: Value) {
    let store = bench.store.as_ref();
    commit(store, [1, 2, 3].map(|n| put(&patient(n, "x"))).to_vec()).await;
    let app = App::start(bench.store.clone()).await;
    let nobody = told(&app, "").await;
    assert_eq!((&nobody["totals"]["streams"], &nobody["streams"]), (&json!(0), &json!([])));

    let mut stream = EventStream::open(&app.url(PATIENTS), None).await;
    let caught_up = stream.until("caught-up").await.pop().expect("events").id;
    let narrow = format!("{PATIENTS}&_since=2020-01-01T00:00:00Z&lastEventId={caught_up}");
    let mut other = EventStream::open(&app.url(&narrow), None).await;
    other.until("caught-up").await;
    let view = until(&app, "?sort=number", |view| in_phase(view, "live") == 2).await;
    let [first, second] = [&view["streams"][0], &view["streams"][1]];
    assert_eq!((first["query"].as_str(), first["events"].as_u64()), (Some(PATIENTS), Some(4)));
    assert_eq!(second["query"], format!("{PATIENTS}&_since=2020-01-01T00:00:00Z"));
    assert_eq!((second["events"].as_u64(), &second["format"]), (Some(1), &json!("sse")));
    assert!(first["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{first}");
    assert_ne!(first["peer"], second["peer"]);

    // What is told to have been sent is what came, to the byte.
    let (counted, came) = (Arc::<AtomicU64>::default(), app.url(PATIENTS));
    let reading = tokio::spawn(count(came, counted.clone()));
    let both = |view: &Value| {
        let last = &view["streams"][2];
        last["events"] == 4 && last["bytes"] == counted.load(Ordering::Relaxed)
    };
    until(&app, "?sort=number", both).await;
    commit(store, vec![put(&patient(0, "before"))]).await;
    for stream in [&mut stream, &mut other] {
        stream.event().await.expect("an event");
    }
    let one_more = |view: &Value| {
        let last = &view["streams"][2];
        last["events"] == 5 && last["bytes"] == counted.load(Ordering::Relaxed)
    };
    until(&app, "?sort=number", one_more).await;
    reading.abort();
    until(&app, "", |view| view["totals"]["streams"] == 2).await;

    // A change moves both, and what they are told to have sent is what came.
    commit(store, vec![put(&patient(4, "y"))]).await;
    let id = stream.event().await.expect("an event").id;
    assert_eq!(other.event().await.expect("an event").id, id);
    let moved = |view: &Value| view["totals"]["events"] == 9;
    let view = until(&app, "?sort=-events", moved).await;
    for one in view["streams"].as_array().expect("a list") {
        let place = |id: &str| id.parse::<fhirtail::position::Position>().expect("a position").log;
        assert!(place(one["position"].as_str().expect("a position")) >= place(&id), "{one}");
    }
    let are_level =
        |view: &Value| [0, 1].iter().all(|at: &usize| view["streams"][*at]["behind"] == level);
    let view = until(&app, "", are_level).await;
    let bytes = |view: &Value| view["bytes"].as_u64().expect("bytes");
    let sum: u64 = view["streams"].as_array().expect("a list").iter().map(bytes).sum();
    assert_eq!(bytes(&view["totals"]), sum);

    // How old a position still works.
    let measured = |view: &Value| view["log"]["positionWorksForSeconds"].is_number();
    let view = until(&app, "", measured).await;
    assert!(view["log"]["begins"].is_string() && view["log"]["silentSeconds"].is_number());

    drop(stream);
    until(&app, "", |view| view["totals"]["streams"] == 1).await;
    drop(other);
    until(&app, "", |view| view["streams"] == json!([])).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    each_is_told(support::embedded(), json!({"changes": 0})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    let Some(bench) = support::mongo().await else { return };
    each_is_told(bench, json!({"seconds": 0})).await;
}

/// Who takes nothing is behind, by how much is said, and comes first.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_behind_is_first() {
    let bench = support::embedded();
    commit(bench.store.as_ref(), vec![put(&patient(1, "x"))]).await;
    let app = App::start(bench.store.clone()).await;
    let mut keeps_up = EventStream::open(&app.url(PATIENTS), None).await;
    keeps_up.until("caught-up").await;
    let request =
        format!("GET {PATIENTS} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
    let mut stalled = asks(&app, &request).await;
    let mut read = Vec::new();
    while !read.ends_with(b"event: caught-up") {
        read.push(stalled.read_u8().await.expect("an answer"));
    }
    // More than the sockets between server and client hold.
    for n in 0..24 {
        commit(bench.store.as_ref(), vec![put(&patient(n, &"x".repeat(1 << 20)))]).await;
        keeps_up.event().await.expect("an event");
    }
    let far = |view: &Value| {
        let behind = |at: usize| view["streams"][at]["behind"]["changes"].as_u64();
        behind(0) > Some(0) && behind(1) == Some(0) && in_phase(view, "live") == 1
    };
    let view = until(&app, "", far).await;
    assert_eq!(view["streams"][0]["phase"], "behind");
    let only = told(&app, "?phase=behind&limit=1").await;
    assert_eq!((&only["found"], &only["totals"]["streams"]), (&json!(1), &json!(2)));
    let none = told(&app, "?phase=live&offset=1").await;
    assert_eq!((&none["found"], &none["streams"]), (&json!(1), &json!([])));
    app.stop().await;
}

/// Histories and searches are streams too; what a form asks for is its caller's affair.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_told_and_no_form_is() {
    let bench = support::embedded();
    for n in 0..24 {
        commit(bench.store.as_ref(), vec![put(&patient(n, &"x".repeat(1 << 20)))]).await;
    }
    let app = App::start(bench.store.clone()).await;
    const LINES: &str = "Accept: application/fhir+ndjson\r\n";
    let _history = asks(&app, &format!("GET {PATIENTS} HTTP/1.1\r\nHost: x\r\n{LINES}\r\n")).await;
    let form = "name=x";
    let _search = asks(
        &app,
        &format!(
            "POST /fhir/Patient/_search HTTP/1.1\r\nHost: x\r\n{LINES}Content-Type: \
             application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        ),
    )
    .await;
    let both = |view: &Value| {
        let events = |at: usize| view["streams"][at]["events"].as_u64() > Some(0);
        events(0) && events(1)
    };
    let view = until(&app, "?sort=query", both).await;
    let [history, search] = [&view["streams"][0], &view["streams"][1]];
    assert_eq!((&history["format"], &history["reading"]), (&json!("ndjson"), &json!("Patient")));
    assert_eq!((&history["phase"], &history["query"]), (&json!("history"), &json!(PATIENTS)));
    assert!(history["position"].as_str().is_some_and(|position| position.starts_with("1l~")));
    assert_eq!(search["query"], "/fhir/Patient/_search");
    assert_eq!((&search["position"], &search["behind"]), (&Value::Null, &Value::Null));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_needs_no_script_and_makes_no_text_markup() {
    const HOSTILE: &str = "<script>owned()</script>\"'";
    let bench = support::embedded();
    let app = App::start(bench.store.clone()).await;
    let request = client().get(app.url(PATIENTS)).header("Accept", "text/event-stream");
    let answer = request.header("X-Forwarded-For", HOSTILE).send().await.expect("an answer");
    let mut stream = EventStream::of(answer);
    stream.until("caught-up").await;
    let view = until(&app, "", |view| in_phase(view, "live") == 1).await;
    assert_eq!(view["streams"][0]["forwarded"], HOSTILE);
    let url = format!("/streams?q={}", "%3Cscript%3Eowned");
    let page = client().get(app.url(&url)).send().await.expect("a page");
    let rules = page.headers()["content-security-policy"].to_str().expect("ASCII").to_owned();
    assert!(rules.starts_with("default-src 'none'; script-src 'self';"), "{rules}");
    assert!(!rules.contains("unsafe") && !rules.contains('*'), "{rules}");
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let text = page.text().await.expect("text");
    assert!(text.contains("&lt;script&gt;owned()&lt;/script&gt;&quot;&#39;"), "{text}");
    assert_eq!(text.matches("<script").count(), 1, "its own: {text}");
    assert!(text.contains("<code>/fhir/$export?_type=Patient</code>"), "{text}");
    assert!(!text.contains(" style=") && !text.contains(" on"), "{text}");
    for wrong in ["/streams?sort=shoe", "/streams.json?limit=few", "/streams?lmit=1"] {
        let refused = client().get(app.url(wrong)).send().await.expect("an answer");
        assert_eq!(refused.status(), 400, "{wrong}");
        assert!(refused.text().await.expect("text").contains("OperationOutcome"));
    }
    drop(stream);
    app.stop().await;
}
