//! What the server logs: one line for each stream, once it has ended, with its why.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{
    io::{BufRead, BufReader},
    process::{ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use support::{
    client,
    http2::Http2,
    logged::{Logged, fill_log, left_alone},
    process::Ended,
    stream::EventStream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const QUERY: &str = "/fhir/$export?_type=Patient&_since=2020-01-01T00:00:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn each_end_of_a_stream_is_one_line_with_its_why() {
    let bench = left_alone(24, 1 << 20).await;
    let mut server = Logged::serve(&bench.name, &["--drain", "0.1"]);

    let whole = client().get(server.url(QUERY)).header("Accept", "application/fhir+ndjson");
    let lines = whole.send().await.expect("an answer").text().await.expect("text");
    let line = server.ended();
    assert_eq!((&line["format"], &line["why"]), (&"ndjson".into(), &"all is sent".into()));
    assert_eq!((&line["stream"], &line["events"]), (&1.into(), &24.into()));
    assert_eq!(line["bytes"], lines.len());
    // Of what was asked for the path is told: the query may name people.
    assert_eq!((&line["path"], &line["level"]), (&"/fhir/$export".into(), &"INFO".into()));
    assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
    assert!(!line.to_string().contains("_since"), "{line}");

    let mut stream = EventStream::open(&server.url(QUERY), None).await;
    stream.until("caught-up").await;
    drop(stream);
    let line = server.ended();
    assert_eq!((&line["stream"], &line["why"]), (&2.into(), &"the client went".into()));
    assert_eq!((&line["format"], &line["events"]), (&"sse".into(), &25.into()));
    assert!(line["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{line}");

    let mut stream = EventStream::open(&server.url(QUERY), None).await;
    stream.until("caught-up").await;
    server.signal("-TERM");
    let line = server.ended();
    assert_eq!((&line["stream"], &line["why"]), (&3.into(), &"the server is stopping".into()));
    let more = std::iter::from_fn(|| server.lines.next()).map(|line| line.expect("text"));
    assert!(!more.into_iter().any(|line| line.contains("stream ended")), "one line each");

    // Who takes nothing of a history that is longer than what sockets hold.
    let mut server = Logged::serve(&bench.name, &["--write-deadline", "0.3"]);
    let mut stalled = TcpStream::connect(server.base.trim_start_matches("http://")).await;
    let request = format!("GET {QUERY} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
    let socket = stalled.as_mut().expect("a connection");
    socket.write_all(request.as_bytes()).await.expect("written");
    socket.read_u8().await.expect("an answer");
    let line = server.ended();
    let why = line["why"].as_str().expect("text");
    assert!(why.contains("took nothing"), "{line}");
    assert_eq!((&line["stream"], &line["phase"]), (&1.into(), &"history".into()));
}

/// Of two streams on one connection only the one that takes nothing is let go, and says why; and it
/// is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_of_http2_says_why() {
    let bench = left_alone(3, 200_000).await;
    let mut server = Logged::serve(&bench.name, &["--write-deadline", "0.3", "--drain", "0.1"]);
    // Or the one would keep the other's window.
    let mut windows = h2::client::Builder::new();
    windows.initial_connection_window_size(1 << 30);
    let (client, _) = Http2::with(&windows, server.address()).await;
    // It has nothing in its history that a window would be needed for.
    let mut healthy = client.open("/fhir/$export?_type=Basic", &[]).await;
    let stalled = client.get(QUERY, &[("accept", "text/event-stream")]).await.expect("an answer");
    healthy.until("caught-up").await;
    let line = server.ended();
    assert!(line["why"].as_str().is_some_and(|why| why.contains("took nothing")), "{line}");
    assert_eq!((&line["stream"], &line["phase"]), (&2.into(), &"history".into()));
    drop(stalled);
    let (_, metrics) = client.text("/metrics").await;
    assert!(metrics.contains("\nfhirtail_slow_clients_dropped_total 1\n"), "{metrics}");
    server.signal("-TERM");
    assert_eq!(server.ended()["why"], "the server is stopping");
}

/// What people read, on the terminal that `script` makes.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_is_text() {
    let bench = left_alone(1, 10).await;
    let binary = env!("CARGO_BIN_EXE_fhirtail");
    let serve = format!("{binary} serve --listen 127.0.0.1:0 --store {}", bench.name);
    // Its terminal goes with it, and what runs there hears of that even where whoever runs the tests
    // does not (nohup).
    let command = format!("exec env --default-signal=HUP {serve}");
    let script = Command::new("script")
        .args(["--quiet", "--flush", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut script = Ended(script.expect("script (Debian: bsdutils)"));
    let out: ChildStdout = script.0.stdout.take().expect("stdout");
    for line in BufReader::new(out).lines() {
        let line = line.expect("text");
        assert!(!line.starts_with('{'), "{line}");
        if line.contains("fhirtail serves") {
            assert!(line.contains("INFO"), "{line}");
            return;
        }
    }
    panic!("it never said where it is");
}

/// As many streams as there is room for is no fault where nobody asked for more.
#[test]
fn few_open_files_are_a_warning_to_who_asked_for_many() {
    for (arguments, level) in [
        (&[] as &[&str], "INFO"),
        (&["--max-streams", "5000"], "WARN"),
        (&["--max-streams", "700"], ""),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", r#"ulimit -n 1000; exec "$@""#, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_fhirtail"));
        let logged = Logged::told(command, &folder.path().display().to_string(), arguments);
        let said = logged.before.iter().find(|line| line["max_streams"] == 1000 - 256);
        let said = said.map_or("", |line| line["level"].as_str().expect("a level"));
        assert_eq!(said, level, "{arguments:?}: {:?}", logged.before);
    }
}

/// Who asks for traces of a binary that has none is told so.
#[cfg(not(feature = "otel"))]
#[tokio::test]
async fn traces_that_were_not_built_in() {
    let bench = left_alone(0, 0).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_fhirtail"));
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    let logged = Logged::told(command, &bench.name, &[]);
    let said = logged.before.iter().find(|line| line["level"] == "WARN").expect("a warning");
    assert!(
        said["message"].as_str().is_some_and(|said| said.contains("--features otel")),
        "{said}"
    );
}

/// A pager that was left open, a collector that hangs: the lines alone wait for it, and are counted
/// where they are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_up_nobody() {
    let bench = left_alone(1, 0).await;
    let mut server = Logged::serve(&bench.name, &[]);
    let client = client();
    let get = async |path: &str| {
        let asked = client.get(server.url(path)).header("Accept", "application/fhir+ndjson");
        let answer = asked.timeout(Duration::from_secs(30)).send().await.expect("an answer");
        answer.text().await.expect("a body")
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let lost = async || {
        let metrics = get("/metrics").await;
        let value = |line: &str| line.strip_prefix("fhirtail_log_lines_lost_total ")?.parse().ok();
        metrics.lines().find_map(value).unwrap_or(0_u64)
    };
    while lost().await == 0 {
        assert!(Instant::now() < deadline, "no line is lost");
        for _ in 0..20 {
            futures_util::future::join_all((0..10).map(|_| get("/fhir/$export"))).await;
        }
    }
    assert!(get("/fhir/$export").await.contains("Patient"));
    // Nor its end, where there is no room for a byte. Standard output goes there as well.
    fill_log(server.pid());
    server.signal("-TERM");
    assert_eq!(end_of(|| server.end()).await.code(), Some(0));
}

/// How a process ends by itself.
async fn end_of(mut look: impl FnMut() -> Option<ExitStatus>) -> ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = look() {
            return status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whoever starts it again and again, into the pipe that nobody reads, hears by its status that it
/// does not start.
#[tokio::test]
async fn a_refusal_that_nobody_reads_ends_the_process() {
    let (_log, end) = std::io::pipe().expect("a pipe");
    let mut sleeper = Command::new("sleep");
    let sleeper = sleeper.arg("600").stderr(end.try_clone().expect("a pipe")).spawn();
    let sleeper = Ended(sleeper.expect("sleep"));
    fill_log(sleeper.0.id());
    let mut command = Command::new(env!("CARGO_BIN_EXE_fhirtail"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--store", "/dev/null"]);
    let server = command.stdout(end.try_clone().expect("a pipe")).stderr(end).spawn();
    let mut server = Ended(server.expect("the binary"));
    let status = end_of(|| server.0.try_wait().expect("its state")).await;
    assert_eq!(status.code(), Some(1));
}
