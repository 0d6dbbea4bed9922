//! Who takes nothing, says nothing or does not go on is let go, and nobody else is.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use h2::{Reason, client::Builder};
use support::{
    App, embedded,
    http2::{Ended, Http2, take_all, take_nothing},
    logged::Logged,
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};

use crate::{
    PATIENTS,
    frames::{
        ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, Raw,
        SETTINGS, frame, get, hello,
    },
    populate, until_open,
};

/// In seconds.
const DEADLINE: f64 = 0.5;

async fn server(bench: &support::Bench, more: &[&str]) -> App {
    let deadline = DEADLINE.to_string();
    App::with(bench.store.clone(), &[&["--write-deadline", &deadline], more].concat()).await
}

/// A window of its own is all that a stream has: the connection's is wide.
fn windows(stream: u32) -> Builder {
    let mut builder = Builder::new();
    builder.initial_window_size(stream).initial_connection_window_size(1 << 30);
    builder
}

/// Reads until it has a patient.
async fn until_patient(stream: &mut EventStream, id: &str) {
    let id = format!("\"id\":\"{id}\"");
    stream.until_that(|event| event.data.contains(&id)).await;
}

/// Live streams, one of which takes nothing: it is reset, and the others on its connection go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_beside_others() {
    let bench = embedded();
    populate(&bench.store, 1, 10).await;
    let app = server(&bench, &[]).await;
    let (client, ended) = Http2::with(&windows(100_000), app.address).await;
    let mut healthy = [client.open(PATIENTS, &[]).await, client.open(PATIENTS, &[]).await];
    for stream in &mut healthy {
        stream.until("caught-up").await;
    }
    let stalled = client.get(PATIENTS, &[("accept", "text/event-stream")]).await;
    let stalled = stalled.expect("an answer").into_body();
    until_open(&app, 3).await;
    let start = Instant::now();
    let watched = tokio::spawn(async move { (take_nothing(stalled).await, start.elapsed()) });
    for n in 10..20 {
        commit(bench.store.as_ref(), vec![put(&patient(n, &"y".repeat(50_000)))]).await;
        for stream in &mut healthy {
            until_patient(stream, &format!("p{n}")).await;
        }
    }
    let ((taken, reset), took) = watched.await.expect("no panic");
    assert_eq!(reset, Some(Reason::CANCEL));
    assert_eq!(taken.len(), 100_000, "its window, and no more");
    assert!(took.as_secs_f64() >= DEADLINE, "too soon: {took:?}");
    until_open(&app, 2).await;
    commit(bench.store.as_ref(), vec![put(&patient(30, "z"))]).await;
    for stream in &mut healthy {
        until_patient(stream, "p30").await;
    }
    assert!(!ended.is_finished());
}

/// Whatever an answer is, and however little of a window there is: none of it is kept for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_takes() {
    let bench = embedded();
    populate(&bench.store, 3, 200_000).await;
    let app = server(&bench, &[]).await;
    let asked = [
        ("/fhir/Patient/p1", "*/*"),
        ("/fhir/Patient", "*/*"),
        (PATIENTS, "application/fhir+ndjson"),
        (PATIENTS, "text/event-stream"),
        // As short as it is, it has ended for its handler at once.
        ("/livez", "*/*"),
    ];
    for window in [0, 1, 5] {
        let (client, _) = Http2::with(&windows(window), app.address).await;
        let answers =
            asked.map(|(path, accept)| {
                let client = client.clone();
                async move {
                    client.get(path, &[("accept", accept)]).await.expect("an answer").into_body()
                }
            });
        for (body, (path, _)) in join_all(answers).await.into_iter().zip(asked) {
            let (taken, reset) = take_nothing(body).await;
            let window = usize::try_from(window).expect("a size");
            assert_eq!((taken.len(), reset), (window, Some(Reason::CANCEL)), "{path}");
        }
    }
    until_open(&app, 0).await;
}

/// Who is slow, and takes a little now and then, is served at that pace.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_little_now_and_then() {
    let bench = embedded();
    populate(&bench.store, 1, 10_000).await;
    let app = server(&bench, &[]).await;
    let (client, _) = Http2::with(&windows(1_000), app.address).await;
    let start = Instant::now();
    let mut body = client.get("/fhir/Patient/p0", &[]).await.expect("an answer").into_body();
    let mut taken = 0;
    while let Some(part) = body.data().await {
        let part = part.expect("no reset");
        taken += part.len();
        tokio::time::sleep(Duration::from_secs_f64(DEADLINE / 4.0)).await;
        body.flow_control().release_capacity(part.len()).expect("a window");
    }
    assert!(taken > 10_000 && start.elapsed().as_secs_f64() > 2.0 * DEADLINE, "{taken}");
}

/// A connection so slow that each of its streams waits for its turn for longer than the deadline: as
/// long as bytes go out none of them is stalled.
#[tokio::test(flavor = "multi_thread")]
async fn many_streams_on_a_slow_connection() {
    take_slowly(&[]).await;
}

/// A PING lies behind what is on its way already, for longer than the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_ping_on_a_slow_connection() {
    take_slowly(&["--keep-alive", "0.2"]).await;
}

async fn take_slowly(more: &[&str]) {
    const STREAMS: u32 = 60;
    let bench = embedded();
    populate(&bench.store, 1, 60_000).await;
    let arguments = [&["--write-deadline", "0.5"], more].concat();
    let app = App::with(bench.store.clone(), &arguments).await;
    let mut slow = Raw::connect(app.address).await;
    let ask = |n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get("/fhir/Patient", "*/*"));
    slow.say(&hello().into_iter().chain((0..STREAMS).flat_map(ask)).collect::<Vec<_>>()).await;
    let start = Instant::now();
    let mut read = 0;
    let mut ended = 0;
    while ended < STREAMS {
        let came = slow.frame().await.expect("the connection goes on");
        assert!(![RST_STREAM, GOAWAY].contains(&came.kind), "after {read} bytes: {came:?}");
        if came.kind == PING && came.flags & ACK == 0 {
            slow.say(&frame(PING, ACK, 0, &came.payload)).await;
        }
        ended += u32::from(came.kind == DATA && came.flags & END_STREAM != 0);
        read += came.payload.len();
        // 1 MB a second.
        let due = Duration::from_micros(read as u64);
        tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
    }
    assert!(read > 60_000 * STREAMS as usize, "{read}");
}

/// Who reads nothing at all, though its windows are wide: the connection is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection() {
    let bench = embedded();
    populate(&bench.store, 1, 10).await;
    let app = server(&bench, &[]).await;
    let mut stalled = Raw::connect(app.address).await;
    let ask = |stream| {
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(PATIENTS, "text/event-stream"))
    };
    stalled.say(&[hello(), ask(1), ask(3), ask(5)].concat()).await;
    until_open(&app, 3).await;
    // More than the sockets between server and client hold.
    populate(&bench.store, 24, 1 << 20).await;
    until_open(&app, 0).await;
    stalled.until_end().await;
}

/// Who answers no PING is not there, though its kernel takes whatever is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_ping_that_nobody_answers() {
    let bench = embedded();
    bench.store.close().await;
    let deadline = DEADLINE.to_string();
    let arguments = ["--write-deadline", &deadline, "--keep-alive", "0.2"];
    let mut server = Logged::serve(&bench.name, &arguments);
    let start = Instant::now();
    let mut mute = Raw::connect(server.address()).await;
    let ask = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get(PATIENTS, "text/event-stream"));
    mute.say(&[hello(), ask].concat()).await;
    let frames = mute.until_end().await;
    assert!(start.elapsed().as_secs_f64() >= DEADLINE);
    assert!(frames.iter().any(|frame| frame.kind == PING && frame.flags & ACK == 0), "{frames:?}");
    let line = server.ended();
    assert!(line["why"].as_str().is_some_and(|why| why.contains("took nothing")), "{line}");
}

/// Whoever begins and does not go on is let go after the read deadline.
#[tokio::test(flavor = "multi_thread")]
async fn beginnings_without_end() {
    let bench = embedded();
    let deadline = DEADLINE.to_string();
    let app = server(&bench, &["--read-deadline", &deadline]).await;
    let half_a_head = frame(HEADERS, END_STREAM, 1, &get(PATIENTS, "*/*")[..20]);
    let post = frame(HEADERS, END_HEADERS, 1, &get("/fhir/Patient", "*/*"));
    let beginnings: [(&str, Vec<u8>); 6] = [
        ("half a preface", PREFACE[..18].to_vec()),
        ("a preface", PREFACE.to_vec()),
        ("nothing asked", hello()),
        ("half a frame", [hello(), half_a_head[..12].to_vec()].concat()),
        ("half a head", [hello(), half_a_head].concat()),
        ("an answered request, then nothing", [hello(), post].concat()),
    ];
    let app = &app;
    join_all(beginnings.map(|(name, beginning)| async move {
        let start = Instant::now();
        let mut client = Raw::connect(app.address).await;
        client.say(&beginning).await;
        client.until_end().await;
        assert!(start.elapsed().as_secs_f64() >= DEADLINE, "too soon: {name}");
    }))
    .await;
}

/// Who rests between two requests for longer than that is sent away in order, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_nothing_to_ask_is_sent_away() {
    let bench = embedded();
    let app = server(&bench, &["--read-deadline", "0.3"]).await;
    let mut raw = Raw::connect(app.address).await;
    raw.say(&hello()).await;
    let mut frames = Vec::new();
    // A client that knows its manners acknowledges.
    while let Some(came) = raw.frame().await {
        if came.kind == PING && came.flags & ACK == 0 {
            raw.say(&frame(PING, ACK, 0, &came.payload)).await;
        }
        if came.kind == SETTINGS && came.flags & ACK == 0 {
            raw.say(&frame(SETTINGS, ACK, 0, &[])).await;
        }
        frames.push(came);
    }
    let goodbyes = frames.iter().filter(|frame| frame.kind == GOAWAY);
    assert_eq!(goodbyes.map(|frame| frame.payload[7]).collect::<Vec<_>>(), [0, 0]);

    // While a stream is open it stays, for as long as that takes.
    let ((client, ended), mut stream) = opened(app.address).await;
    stream.until("caught-up").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!ended.is_finished());
    commit(bench.store.as_ref(), vec![put(&patient(1, "x"))]).await;
    assert_eq!(stream.event().await.expect("a change").event, "Patient");
    drop((stream, client));
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
    ended.expect("no panic").expect("in order");
}

/// A connection and a stream on it. Who is sent away before asking, having been too slow, comes again.
async fn opened(server: SocketAddr) -> ((Http2, Ended), EventStream) {
    let start = Instant::now();
    loop {
        let (client, ended) = Http2::connect(server).await;
        match client.stream(PATIENTS, &[]).await {
            Ok((status, stream)) => {
                assert_eq!(status, 200);
                return ((client, ended), stream);
            }
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// Half a body: 408, and the others on the connection go on.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_body() {
    let bench = embedded();
    let app = server(&bench, &["--read-deadline", "0.3"]).await;
    let ((client, _), mut stream) = opened(app.address).await;
    stream.until("caught-up").await;
    let json = [("content-type", "application/fhir+json")];
    let request = client.request(axum::http::Method::PUT, "/fhir/Patient/a", &json);
    let (answer, mut sends) = client.ask(request, false).await.expect("a stream");
    sends.send_data("{\"resourceType\":".into(), false).expect("a part");
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("an answer");
    assert_eq!(answer.status(), 408);
    let (outcome, _) = take_all(answer.into_body()).await;
    assert!(String::from_utf8(outcome).expect("text").contains("timeout"));
    commit(bench.store.as_ref(), vec![put(&patient(1, "x"))]).await;
    assert_eq!(stream.event().await.expect("a change").event, "Patient");
}
