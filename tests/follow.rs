//! `follow` against a server that plays exact bytes, one answer per connection; and against the
//! real one, stopped and started again and again.
#![allow(clippy::expect_used, reason = "helpers of tests are no #[test] themselves")]

#[path = "follow/output.rs"]
mod output;
#[path = "follow/pipe.rs"]
mod pipe;

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    mem,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use fhirtail::{
    client::{
        Failure,
        follow::{FollowArgs, follow},
    },
    demo::{Population, populate, pulse},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// One answer: what is written, and whether the connection then stays open until the test ends.
struct Play {
    bytes: Vec<u8>,
    hold: bool,
}

fn cut(bytes: impl AsRef<[u8]>) -> Play {
    Play { bytes: bytes.as_ref().to_vec(), hold: false }
}

fn hold(bytes: impl AsRef<[u8]>) -> Play {
    Play { bytes: bytes.as_ref().to_vec(), hold: true }
}

fn sse(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n{body}")
}

fn status(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {line}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )
}

/// A server that plays, and what it has been asked. Bytes sent to `more` go out on the
/// connection that is held.
struct Server {
    address: SocketAddr,
    heads: UnboundedReceiver<String>,
    more: UnboundedSender<String>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn play(plays: Vec<Play>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, heads) = mpsc::unbounded_channel();
        let (more, mut rest) = mpsc::unbounded_channel::<String>();
        let task = tokio::spawn(async move {
            for play in plays {
                let (mut socket, _) = listener.accept().await.expect("a connection");
                let _ = asked.send(head(&mut socket).await);
                socket.write_all(&play.bytes).await.expect("written");
                while play.hold
                    && let Some(text) = rest.recv().await
                {
                    let _ = socket.write_all(text.as_bytes()).await;
                }
            }
        });
        Self { address, heads, more, task }
    }

    fn url(&self) -> String {
        format!("http://{}/fhir/$export", self.address)
    }

    /// The `Last-Event-ID` of the next request; empty without one.
    async fn next_id(&mut self) -> String {
        let head = self.heads.recv().await.expect("a request");
        assert!(head.starts_with("GET /fhir/$export HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("accept: text/event-stream\r\n"), "{head}");
        let id = head.lines().find_map(|line| line.strip_prefix("last-event-id: "));
        id.unwrap_or_default().to_owned()
    }
}

async fn head(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(socket.read_u8().await.expect("a request"));
    }
    String::from_utf8(bytes).expect("a head of UTF-8")
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: FollowArgs,
}

fn args(url: &str, more: &[&str]) -> FollowArgs {
    let words = ["follow", url].into_iter().chain(more.iter().copied());
    Cli::try_parse_from(words).expect("arguments").args
}

/// A folder with the output and the state.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn out(&self) -> String {
        fs::read_to_string(self.folder.path().join("out")).unwrap_or_default()
    }

    fn with_state(&self, url: &str, more: &[&str]) -> FollowArgs {
        FollowArgs { state: Some(self.state()), ..args(url, more) }
    }

    fn create_out(&self) -> File {
        File::create(self.folder.path().join("out")).expect("a file")
    }

    /// As a shell opens it for `>>`.
    fn append_out(&self) -> File {
        let out = self.folder.path().join("out");
        File::options().create(true).append(true).open(out).expect("a file")
    }

    async fn follow(&self, args: FollowArgs) -> Result<(), Failure> {
        follow(args, self.create_out(), CancellationToken::new()).await
    }
}

fn saved(state: &Path) -> String {
    let text = fs::read(state).unwrap_or_default();
    let json: Value = serde_json::from_slice(&text).unwrap_or_default();
    json["lastEventId"].as_str().unwrap_or_default().to_owned()
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the condition holds");
}

#[tokio::test]
async fn goes_on_where_the_last_whole_block_ended() {
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nid: 2\n\n\r\n40\r\nda";
    let mut server = Server::play(vec![
        cut(sse("retry: 20\n\nevent: Patient\nid: 1\ndata: {\"a\":1.50}\n\nevent: Patient\nid: x\ndata: {\"cut")),
        cut(chunked),
        cut(sse("event: deleted\nid: 3\ndata: {\"type\":\ndata: \"transaction\"}\n\n: keep-alive\n\nevent: reset\nid: 4\ndata: {\"r\":0}\n\n")),
        hold(sse("event: caught-up\nid: 5\ndata: {}\n\nevent: Patient\nid: 6\ndata: {\"late\":1}\n\n")),
    ])
    .await;
    let files = Files::new();
    files.follow(files.with_state(&server.url(), &["--until-caught-up"])).await.expect("caught up");

    for id in ["", "1", "2", "4"] {
        assert_eq!(server.next_id().await, id);
    }
    assert_eq!(files.out(), "{\"a\":1.50}\n{\"type\": \"transaction\"}\n{\"r\":0}\n");
    assert_eq!(saved(&files.state()), "5");
}

#[tokio::test]
async fn a_new_process_goes_on_and_another_url_is_refused() {
    let mut server = Server::play(vec![
        cut(sse("retry: 10\n\nevent: Patient\nid: é~1\ndata: {}\n\n")),
        cut(status("204 No Content", "", "")),
        cut(status("204 No Content", "", "")),
    ])
    .await;
    let files = Files::new();
    let url = server.url();
    files.follow(files.with_state(&url, &[])).await.expect("204 ends");
    assert_eq!(files.out(), "{}\n");
    files.follow(files.with_state(&url, &[])).await.expect("204 ends");
    assert_eq!(server.next_id().await, "");
    assert_eq!(server.next_id().await, "é~1");
    assert_eq!(server.next_id().await, "é~1");

    let other = format!("{url}?_type=Patient");
    let refused = files.follow(files.with_state(&other, &[])).await.expect_err("another URL");
    assert!(refused.0.contains(&url) && refused.0.contains("another state file"), "{refused}");
    assert_eq!(saved(&files.state()), "é~1");
}

#[tokio::test]
async fn a_reset_takes_the_position_from_the_state_too() {
    let mut server = Server::play(vec![
        hold(sse("event: Patient\nid: 1\ndata: {\"n\":1}\n\n")),
        cut(status("204 No Content", "", "")),
    ])
    .await;
    let files = Files::new();
    let stop = CancellationToken::new();
    let arguments = files.with_state(&server.url(), &[]);
    let running = tokio::spawn(follow(arguments, files.append_out(), stop.clone()));
    until(|| saved(&files.state()) == "1").await;
    server.more.send("event: reset\nid:\ndata: {\"r\":1}\n\n".into()).expect("sent");
    until(|| files.out().ends_with("{\"r\":1}\n")).await;
    stop.cancel();
    running.await.expect("no panic").expect("stopped");
    assert!(files.state().exists());
    assert_eq!(saved(&files.state()), "");

    // The new history has not begun.
    drop(mem::replace(&mut server.more, mpsc::unbounded_channel().0));
    let arguments = files.with_state(&server.url(), &[]);
    follow(arguments, files.append_out(), CancellationToken::new()).await.expect("204 ends");
    assert_eq!(server.next_id().await, "");
    assert_eq!(server.next_id().await, "");
}

#[tokio::test]
async fn waits_for_a_server_that_may_come_back() {
    let again = "Retry-After: 0\r\n";
    let mut server = Server::play(vec![
        cut(status("503 Service Unavailable", again, "")),
        cut(status("429 Too Many Requests", again, "")),
        cut(status("425 Too Early", again, "")),
        cut(sse("retry: 1\n\n")),
        cut(""),
        cut(status("500 Internal Server Error", "", "")),
        cut(status("204 No Content", "", "")),
    ])
    .await;
    Files::new().follow(args(&server.url(), &[])).await.expect("204 ends");
    for _ in 0..7 {
        assert_eq!(server.next_id().await, "");
    }
}

#[tokio::test]
async fn says_why_it_is_refused() {
    let outcome = r#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"value","diagnostics":"_since is no instant:\n send one"}]}"#;
    let json = "Content-Type: application/fhir+json\r\n";
    let server = Server::play(vec![cut(status("400 Bad Request", json, outcome))]).await;
    let refused = Files::new().follow(args(&server.url(), &[])).await.expect_err("refused");
    assert_eq!(refused.0, "400 Bad Request: _since is no instant: send one");

    let server = Server::play(vec![cut(status("200 OK", json, "{}"))]).await;
    let refused = Files::new().follow(args(&server.url(), &[])).await.expect_err("refused");
    assert!(refused.0.contains("application/fhir+json, which is no event stream"), "{refused}");
}

#[tokio::test]
async fn writes_only_the_chosen_events_and_moves_past_the_others() {
    let server = Server::play(vec![
        cut(sse("retry: 1\n\nevent: Patient\nid: 1\ndata: {\"p\":1}\n\nevent: Group\nid: 2\ndata: {}\n\nevent: deleted\nid: 3\ndata: {}\n\nevent: reset\nid: 4\ndata: {\"r\":1}\n\nevent: Group\nid: 5\ndata: {}\n\n")),
        cut(status("204 No Content", "", "")),
    ])
    .await;
    let files = Files::new();
    let chosen = files.with_state(&server.url(), &["--event-types", "Patient,Observation"]);
    files.follow(chosen).await.expect("204 ends");
    assert_eq!(files.out(), "{\"p\":1}\n{\"r\":1}\n");
    assert_eq!(saved(&files.state()), "5");
}

#[tokio::test]
async fn the_state_follows_while_the_stream_is_open_and_is_whole_when_it_is_stopped() {
    let server = Server::play(vec![hold(sse("event: Patient\nid: 1\ndata: {}\n\n"))]).await;
    let files = Files::new();
    let stop = CancellationToken::new();
    let arguments = files.with_state(&server.url(), &[]);
    let running = tokio::spawn(follow(arguments, files.create_out(), stop.clone()));
    until(|| saved(&files.state()) == "1").await;
    server.more.send("id: 2\n\n".into()).expect("sent");
    until(|| saved(&files.state()) == "2").await;

    server.more.send("event: Patient\nid: 3\ndata: {\"n\":3}\n\n".into()).expect("sent");
    until(|| files.out().ends_with("{\"n\":3}\n")).await;
    stop.cancel();
    running.await.expect("no panic").expect("stopped");
    assert_eq!(saved(&files.state()), "3");
}

#[tokio::test]
async fn a_closed_output_is_an_orderly_end_at_the_last_line_written() {
    let server = Server::play(vec![hold(sse("event: Patient\nid: 1\ndata: {\"n\":1}\n\n"))]).await;
    let files = Files::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let out = File::from(std::os::fd::OwnedFd::from(writer));
    let arguments = files.with_state(&server.url(), &[]);
    let running = tokio::spawn(follow(arguments, out, CancellationToken::new()));

    let mut line = String::new();
    let line = tokio::task::spawn_blocking(move || {
        BufReader::new(reader).read_line(&mut line).expect("a line");
        line
    });
    assert_eq!(line.await.expect("read"), "{\"n\":1}\n");
    server.more.send("event: Patient\nid: 2\ndata: {\"n\":2}\n\n".into()).expect("sent");
    running.await.expect("no panic").expect("an orderly end");
    assert_eq!(saved(&files.state()), "1");
}

#[tokio::test]
async fn an_output_that_nobody_reads_does_not_hold_up_the_end() {
    let line = "x".repeat(999);
    let flood: String =
        (1..=5000).map(|n| format!("event: Patient\nid: {n}\ndata: {line}\n\n")).collect();
    let server = Server::play(vec![hold(sse(""))]).await;
    server.more.send(flood).expect("sent");
    let files = Files::new();
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let out = File::from(std::os::fd::OwnedFd::from(writer));
    let stop = CancellationToken::new();
    let running = tokio::spawn(follow(files.with_state(&server.url(), &[]), out, stop.clone()));
    let mut first = [0];
    let reader = tokio::task::spawn_blocking(move || {
        reader.read_exact(&mut first).expect("a byte");
        reader
    });
    let mut reader = reader.await.expect("read");

    stop.cancel();
    running.await.expect("no panic").expect("stopped");
    let at: usize = saved(&files.state()).parse().unwrap_or(0);
    let mut held = vec![0; 1 << 16];
    let count = reader.read(&mut held).expect("bytes");
    assert!(at * 1000 <= count + 1, "position {at}, but {count} bytes written");
}

/// What a reader of the lines holds: every resource by its name.
fn applied(lines: &str) -> BTreeMap<String, String> {
    let mut copy = BTreeMap::new();
    for line in lines.lines() {
        let tree: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        match tree["resourceType"].as_str() {
            Some("OperationOutcome") => copy.clear(),
            Some("Bundle") => {
                copy.remove(&text(&tree["entry"][0]["request"]["url"]));
            }
            _ => {
                let name = format!("{}/{}", text(&tree["resourceType"]), text(&tree["id"]));
                copy.insert(name, line.to_owned());
            }
        }
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_stopped_again_and_again_misses_nothing_and_repeats_nothing() {
    let bench = support::embedded();
    let population = Population::new(5, 60);
    populate(&*bench.store, population).await.expect("written");
    let app = support::App::start(Arc::clone(&bench.store)).await;
    let quiet = CancellationToken::new();
    let store = Arc::clone(&bench.store);
    let changing = tokio::spawn(pulse(store, population, 400.0, quiet.clone()));

    let files = Files::new();
    let url = app.url("/fhir/$export");
    for round in 1..=12 {
        let stop = CancellationToken::new();
        let arguments = files.with_state(&url, &[]);
        let following = tokio::spawn(follow(arguments, files.append_out(), stop.clone()));
        let enough = files.out().len() + round * 5000;
        until(|| files.out().len() >= enough).await;
        stop.cancel();
        following.await.expect("no panic").expect("stopped");
    }
    quiet.cancel();
    changing.await.expect("no panic");
    follow(
        files.with_state(&url, &["--until-caught-up"]),
        files.append_out(),
        CancellationToken::new(),
    )
    .await
    .expect("caught up");

    let truth = Files::new();
    truth.follow(args(&url, &["--until-caught-up"])).await.expect("caught up");
    let (lines, truth) = (files.out(), truth.out());
    assert!(applied(&lines) == applied(&truth), "the copy differs from the store");
    let mut seen = HashSet::new();
    let repeated = lines.lines().find(|line| line.contains("\"versionId\"") && !seen.insert(*line));
    assert_eq!(repeated, None);
    app.stop().await;
    bench.store.close().await;
}
