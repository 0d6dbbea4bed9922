//! How much of everything one client may want, and how it is told to go.

use axum::http::Method;
use fhirtail::client::sse::Item;
use h2::Reason;
use support::{
    App, embedded,
    http2::{Http2, take_all},
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};

use crate::{
    PATIENTS,
    frames::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, frame, get, gives_up, hello},
    populate, until_open,
};

const ENHANCE_YOUR_CALM: u32 = 11;

/// Requests that are taken back as soon as they are made (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets() {
    let bench = embedded();
    let app = App::start(bench.store.clone()).await;
    let mut rapid = Raw::connect(app.address).await;
    let head = get("/fhir/Patient", "*/*");
    let requests = (0..1_000).flat_map(|n| {
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &head);
        [ask, frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()
    });
    let said: Vec<u8> = hello().into_iter().chain(requests).collect();
    rapid.say(&said).await;
    let frames = rapid.until_end().await;
    assert_eq!(gives_up(&frames), Some(ENHANCE_YOUR_CALM), "{frames:?}");
    let (client, _) = Http2::connect(app.address).await;
    assert_eq!(client.text("/livez").await.1, "alive\n");
}

/// A query may be as long as it may on HTTP/1.1; a head beyond that is refused, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn long_heads() {
    let bench = embedded();
    let app = App::start(bench.store.clone()).await;
    let (client, _) = Http2::connect(app.address).await;
    let long = format!("/fhir/Patient?name={}", "x".repeat(60_000));
    client.text(&long).await;
    let name = "x".repeat(1 << 10);
    let headers: Vec<_> = (0..140).map(|n| (format!("x-{n}"), name.as_str())).collect();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    match client.get("/livez", &headers).await {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    assert_eq!(client.text("/livez").await.1, "alive\n");
}

/// A connection has so many streams at once and no more; the next one waits at its client.
#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection() {
    let bench = embedded();
    let app = App::start(bench.store.clone()).await;
    let (client, _) = Http2::connect(app.address).await;
    client.text("/livez").await;
    assert_eq!(client.most_streams(), 128);
    let ask = |stream| {
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(PATIENTS, "text/event-stream"))
    };
    let mut raw = Raw::connect(app.address).await;
    raw.say(&hello()).await;
    for n in 0..129 {
        raw.say(&ask(2 * n + 1)).await;
    }
    let refused = loop {
        let frame = raw.frame().await.expect("the connection goes on");
        if frame.kind == RST_STREAM {
            break frame;
        }
    };
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    assert_eq!((refused.stream, &refused.payload[..]), (257, &REFUSED_STREAM[..]));
    until_open(&app, 128).await;
    drop(raw);
    until_open(&app, 0).await;
}

/// Places are streams', not connections'.
#[tokio::test(flavor = "multi_thread")]
async fn places_are_those_of_streams() {
    for limit in ["--max-streams", "--max-streams-per-address"] {
        let bench = embedded();
        let app = App::with(bench.store.clone(), &[limit, "3"]).await;
        let (client, _) = Http2::connect(app.address).await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = client.open(PATIENTS, &[]).await;
            stream.until("caught-up").await;
            streams.push(stream);
        }
        let mut browser = client.open(PATIENTS, &[]).await;
        let told = browser.event().await.expect("a word");
        assert!(told.data.contains(&format!("({limit})")), "{told:?}");
        assert!(matches!(browser.item().await, Some(Item::Retry(_))));
        assert!(browser.item().await.is_none());
        drop(streams.pop());
        until_open(&app, 2).await;
        client.open(PATIENTS, &[]).await.until("caught-up").await;
    }
}

/// GOAWAY, and who comes while streams end gets an answer. How each stream ends, see `streams.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains() {
    let bench = embedded();
    populate(&bench.store, 2, 10).await;
    let app = App::with(bench.store.clone(), &["--drain", "60"]).await;
    let address = app.address;
    let (client, ended) = Http2::connect(address).await;
    let (idle, idle_ended) = Http2::connect(address).await;
    idle.text("/livez").await;
    let mut streams = Vec::new();
    for _ in 0..30 {
        let mut stream = client.open(PATIENTS, &[]).await;
        stream.until("caught-up").await;
        streams.push(stream);
    }
    let stopping = tokio::spawn(app.stop());
    let idle_ended = tokio::time::timeout(PATIENCE, idle_ended).await.expect("it is let go");
    idle_ended.expect("no panic").expect("in order");
    // What is open has GOAWAY, and goes on. Until that is here, who asks is told to come again.
    let refused = loop {
        match client.get(PATIENTS, &[]).await {
            Ok(answer) => assert_eq!(answer.status(), 503),
            Err(refused) => break refused,
        }
    };
    assert!(refused.is_go_away(), "{refused}");
    commit(bench.store.as_ref(), vec![put(&patient(9, "late"))]).await;
    let (late, late_ended) = Http2::connect(address).await;
    let mut told = late.open(PATIENTS, &[]).await;
    assert_eq!(told.event().await.expect("a word").event, "OperationOutcome");
    // Each ends at a moment of its own, some before that was written.
    let hears_of_late = async |stream: &mut EventStream| loop {
        match stream.item().await {
            Some(Item::Event(event)) if event.data.contains("late") => return true,
            Some(_) => {}
            None => return false,
        }
    };
    let mut heard = 0;
    for stream in &mut streams {
        heard += usize::from(hears_of_late(stream).await);
    }
    assert!(heard > 0, "somebody was still there");
    drop((streams, client, told, late));
    for ended in [ended, late_ended] {
        let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
        ended.expect("no panic").expect("in order");
    }
    stopping.await.expect("the server stops");
}

/// A client that goes away takes its streams with it, and one that resets one, that one.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_leaves_a_place() {
    let bench = embedded();
    let app = App::start(bench.store.clone()).await;
    let (client, ended) = Http2::connect(app.address).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = client.open(PATIENTS, &[]).await;
        stream.until("caught-up").await;
        streams.push(stream);
    }
    until_open(&app, 5).await;
    drop(streams.split_off(3));
    until_open(&app, 3).await;
    let request = client.request(Method::GET, PATIENTS, &[("accept", "text/event-stream")]);
    let (answer, mut sends) = client.ask(request, false).await.expect("a stream");
    let answer = answer.await.expect("an answer");
    until_open(&app, 4).await;
    sends.send_reset(Reason::CANCEL);
    take_all(answer.into_body()).await;
    until_open(&app, 3).await;
    ended.abort();
    until_open(&app, 0).await;
}
