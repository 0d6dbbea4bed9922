//! `load` against the embedded store: straight, and through a server.
#![allow(clippy::expect_used, reason = "helpers of tests are no #[test] themselves")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use fhirtail::{
    client::{
        Failure,
        load::{LoadArgs, Sink, Target, run},
    },
    fhir::ResourceType,
    store::{
        Lookup, Store,
        embedded::{EmbeddedOptions, EmbeddedStore},
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: LoadArgs,
}

fn args(paths: &[&Path], more: &[&str]) -> LoadArgs {
    let words = paths.iter().map(|path| path.as_os_str().to_owned());
    let words = ["load".into()].into_iter().chain(words).chain(more.iter().map(Into::into));
    Cli::try_parse_from(words).expect("arguments").args
}

/// A store in a folder of its own, and a folder for files.
struct World {
    store: Arc<EmbeddedStore>,
    folder: TempDir,
    _store_folder: TempDir,
    server: Option<support::App>,
}

impl World {
    fn new() -> Self {
        let folder = || tempfile::tempdir().expect("a folder");
        let (folder, store_folder) = (folder(), folder());
        let options = EmbeddedOptions::default();
        let store = EmbeddedStore::open(store_folder.path(), options).expect("a store");
        Self { store, folder, _store_folder: store_folder, server: None }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("writes");
        path
    }

    fn straight(&self) -> Sink {
        Sink::Store(Arc::<EmbeddedStore>::clone(&self.store))
    }

    /// A server over the store, as a sink.
    async fn server(&mut self) -> Sink {
        let app = support::App::start(Arc::<EmbeddedStore>::clone(&self.store)).await;
        let base = app.url("/fhir").parse().expect("a URL");
        self.server = Some(app);
        Sink::server(base).expect("a client")
    }

    /// The resource under `Type/id` without its `meta`, and its version.
    async fn read(&self, name: &str) -> Option<(String, u64)> {
        let (ty, id) = name.split_once('/').expect("Type/id");
        let ty = ResourceType::parse(ty).expect("a type");
        let Lookup::Found { json, version } = self.store.read(ty, id).await.expect("read") else {
            return None;
        };
        let text = String::from_utf8(json.to_vec()).expect("UTF-8");
        let (before, meta) = text.split_once(r#","meta":{"#).expect("a meta");
        let (_, after) = meta.split_once('}').expect("a meta");
        Some((format!("{before}{after}"), version))
    }

    async fn log_end(&self) -> u64 {
        self.store.head().await.expect("a head").time
    }

    async fn close(self) {
        if let Some(server) = self.server {
            server.stop().await;
        }
        self.store.close().await;
    }
}

fn is(result: Result<ExitCode, Failure>, code: u8) {
    let result = result.map(|code| format!("{code:?}"));
    assert_eq!(result, Ok(format!("{:?}", ExitCode::from(code))));
}

const URN: &str = "urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9";

/// 700 Patients in NDJSON, the 650th line broken, and a transaction that refers within itself.
fn files(world: &World) -> [PathBuf; 2] {
    let mut lines = String::new();
    for n in 0..700 {
        if n == 650 {
            lines += "{\"resourceType\":\"Patient\",\"id\":\"cut\n";
        }
        writeln!(lines, r#"{{"resourceType":"Patient","id":"p{n}","x":[1.50,1E2]}}"#)
            .expect("text");
    }
    let bundle = format!(
        r#"{{"resourceType":"Bundle","type":"transaction","entry":[
        {{"fullUrl":"{URN}","resource":{{"resourceType":"Patient"}},"request":{{"method":"POST","url":"Patient"}}}},
        {{"fullUrl":"urn:uuid:o","resource":{{"resourceType":"Observation","subject":{{"reference":"{URN}"}}}},"request":{{"method":"POST","url":"Observation"}}}},
        {{"request":{{"method":"DELETE","url":"Patient/p7"}}}}]}}"#
    );
    [world.file("a.ndjson", &lines), world.file("b.json", &bundle)]
}

async fn loads(world: &World, sink: Sink) {
    let [lines, bundle] = files(world);
    is(run(args(&[&lines, &bundle], &[]), sink.clone()).await, 1);
    let (patient, version) = world.read("Patient/p699").await.expect("loaded");
    assert_eq!(patient, r#"{"resourceType":"Patient","id":"p699","x":[1.50,1E2]}"#);
    assert_eq!(version, 1);
    let (observation, _) = world.read("Observation/o").await.expect("loaded");
    assert!(observation.contains(&format!(r#"{{"reference":"Patient/{}"}}"#, &URN[9..])));
    assert!(world.read("Patient/p7").await.is_none());

    // Again without the broken line: nothing is written but what the Bundle deletes.
    let end = world.log_end().await;
    let rest =
        world.file("again.ndjson", r#"{"resourceType":"Patient","id":"p699","x":[1.50,1E2]}"#);
    is(run(args(&[&rest, &bundle], &[]), sink).await, 0);
    assert_eq!(world.log_end().await, end);
    assert_eq!(world.read("Patient/p699").await.expect("there").1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_straight_into_a_store_and_again_without_a_change() {
    let world = World::new();
    loads(&world, world.straight()).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_through_a_server_and_again_without_a_change() {
    let mut world = World::new();
    let sink = world.server().await;
    loads(&world, sink).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_with_one_id_the_later_wins() {
    let mut world = World::new();
    let sink = world.server().await;
    let line = |n: u32| format!("{{\"resourceType\":\"Basic\",\"id\":\"b\",\"x\":{n}}}\n");
    let file = world.file("a.ndjson", &(1..=40).map(line).collect::<String>());
    is(run(args(&[&file], &["--parallel", "8"]), sink).await, 0);
    let (text, version) = world.read("Basic/b").await.expect("loaded");
    assert_eq!((text.as_str(), version), (r#"{"resourceType":"Basic","id":"b","x":40}"#, 40));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_takes_no_other_with_it() {
    let mut world = World::new();
    let sink = world.server().await;
    // The server takes no conditional references.
    let bad = r#""subject":{"reference":"Patient?identifier=1"}"#;
    let line = |n: u32| {
        let member = if n == 17 { bad } else { r#""x":1"# };
        format!("{{\"resourceType\":\"Basic\",\"id\":\"b{n}\",{member}}}\n")
    };
    let file = world.file("a.ndjson", &(0..50).map(line).collect::<String>());
    is(run(args(&[&file], &[]), sink).await, 1);
    for n in 0..50 {
        assert_eq!(world.read(&format!("Basic/b{n}")).await.is_some(), n != 17, "{n}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_given_up() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/fhir", listener.local_addr().expect("an address"));
    drop(listener);
    let [lines, _] = files(&world);
    let sink = Sink::server(base.parse().expect("a URL")).expect("a client");
    let given_up = run(args(&[&lines], &["--retry-for", "0"]), sink).await.expect_err("nobody");
    assert!(given_up.0.starts_with("given up after 0 s: ") && given_up.0.contains("refused"));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_more_time_than_there_is_is_given_up() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/fhir", listener.local_addr().expect("an address"));
    let answering = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        // The second is more than there is only beside the first.
        for seconds in [1, u64::MAX] {
            let mut asked = Vec::new();
            while !String::from_utf8_lossy(&asked).contains(r#""id":"b""#) {
                socket.read_buf(&mut asked).await.expect("a request");
            }
            let later = format!("HTTP/1.1 503 Later\r\nRetry-After: {seconds}\r\n");
            let answer = format!("{later}Content-Length: 0\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.expect("written");
        }
    });
    let file = world.file("a.ndjson", r#"{"resourceType":"Basic","id":"b"}"#);
    let sink = Sink::server(base.parse().expect("a URL")).expect("a client");
    let given_up = run(args(&[&file], &[]), sink).await.expect_err("never");
    assert!(
        given_up.0.starts_with("given up after ") && given_up.0.contains(" s: 503"),
        "{given_up}"
    );
    answering.await.expect("no panic");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_connection_cut_off_is_sent_again() {
    let mut world = World::new();
    world.server().await;
    let behind = world.server.as_ref().expect("a server").address;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    // The first connection is cut off, the others come through.
    let between = tokio::spawn(async move {
        drop(listener.accept().await.expect("a connection"));
        loop {
            let (mut client, _) = listener.accept().await.expect("a connection");
            let mut server = TcpStream::connect(behind).await.expect("the server");
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let file = world.file("a.ndjson", r#"{"resourceType":"Basic","id":"b"}"#);
    let base = format!("http://{address}/fhir").parse().expect("a URL");
    let loading = run(args(&[&file], &[]), Sink::server(base).expect("a client"));
    let loaded = tokio::time::timeout(Duration::from_secs(30), loading).await;
    is(loaded.expect("in time"), 0);
    assert!(world.read("Basic/b").await.is_some());
    between.abort();
    world.close().await;
}

#[tokio::test]
async fn what_can_not_be_loaded_is_a_usage_error() {
    let world = World::new();
    let text = world.file("a.txt", "{}");
    is(run(args(&[&text], &[]), world.straight()).await, 2);
    is(run(args(&[Path::new("/nonexistent")], &[]), world.straight()).await, 2);
    assert!(Cli::try_parse_from(["load"]).is_err());
    let to = |to: &str| args(&[&text], &["--to", to]).to;
    assert!(matches!(to("http://h/fhir"), Target::Server(_)));
    assert_eq!(to("./data"), Target::Store("./data".into()));
    world.close().await;
}
