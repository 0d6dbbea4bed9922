//! Behind a real nginx with the settings of `docker/nginx.conf`: nothing is held back, and a replica
//! that is rolled while many follow costs nobody anything.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod support;

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fhirtail::client::sse::Item;
use futures_util::future::join_all;
use support::{
    client,
    process::Process,
    replica::{Replica, contents},
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};

const QUERY: &str = "/fhir/$export?_type=Patient";
const CLIENTS: usize = 200;
/// What is written last.
const LAST: usize = 100_000;

/// nginx as `docker/nginx.conf` has it, in front of servers on this machine.
struct Nginx {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Nginx {
    fn start(replicas: [u16; 2]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.expect("a free port").port();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|part| format!("{part}_temp_path {}/{part};", folder.path().display()));
        let edits = [
            ("fhirtail-a:8080".to_owned(), format!("127.0.0.1:{}", replicas[0])),
            ("fhirtail-b:8080".to_owned(), format!("127.0.0.1:{}", replicas[1])),
            ("listen 8080".to_owned(), format!("listen 127.0.0.1:{port}")),
            ("access_log /dev/stdout path;".to_owned(), "access_log off;".to_owned()),
            ("http {".to_owned(), format!("http {{ {}", temporary.concat())),
        ];
        let conf = edits.iter().fold(
            include_str!("../docker/nginx.conf").to_owned(),
            |text, (old, new)| {
                assert_eq!(text.matches(old.as_str()).count(), 1, "{old}");
                text.replace(old.as_str(), new)
            },
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, conf).expect("written");
        let globals = format!("daemon off; pid {}/pid; error_log stderr;", folder.path().display());
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(folder.path()).args(["-g", &globals]);
        let child = command.stderr(Stdio::null()).spawn();
        let child = child.expect("nginx (Debian: nginx-light; tests/run installs it)");
        Self { child, port, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

async fn until_ready(url: &str) {
    let start = Instant::now();
    loop {
        let answer = client().get(url).send().await;
        if answer.is_ok_and(|answer| answer.status() == 200) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "never ready: {url}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many streams a replica has.
async fn streams(replica: &Process) -> u64 {
    let answer = client().get(replica.url("/streams.json?limit=1")).send().await;
    let text = answer.expect("an answer").text().await.expect("text");
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    told["totals"]["streams"].as_u64().expect("a count")
}

/// What a client ends with: its copy, when it came again, and what status it was refused with.
struct Followed {
    replica: Replica,
    came_again: Vec<Instant>,
    refused: Vec<u16>,
}

/// Follows as an EventSource does, until the last resource has come.
async fn follow(url: String) -> Followed {
    let (mut replica, mut came_again, mut refused) = (Replica::default(), Vec::new(), Vec::new());
    let (mut id, mut retry) = (None::<String>, Duration::from_secs(3));
    loop {
        let response = EventStream::request(&url, id.as_deref()).await;
        if response.status() != 200 {
            refused.push(response.status().as_u16());
        } else {
            let mut stream = EventStream::of(response);
            while let Some(item) = stream.item().await {
                match item {
                    Item::Retry(time) => retry = time,
                    Item::Checkpoint(at) => id = Some(at),
                    // Why the stream ends: it has no id of its own.
                    Item::Event(event) if event.event == "OperationOutcome" => {}
                    Item::Event(event) => {
                        id = Some(event.id.clone());
                        replica.take(&event);
                    }
                }
                if replica.caught_up && replica.copy.contains_key(&format!("Patient/p{LAST}")) {
                    return Followed { replica, came_again, refused };
                }
            }
        }
        tokio::time::sleep(retry).await;
        came_again.push(Instant::now());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_holds_nothing_back_and_a_rolled_replica_costs_nothing() {
    let Some(bench) = support::mongo().await else { return };
    let store = bench.store.clone();
    commit(&*store, (0..50).map(|n| put(&patient(n, "before"))).collect()).await;
    let options = ["--retry", "0.5", "--drain", "1"];
    let mut replicas = [0, 1].map(|_| Process::serve(&bench.name, &options));
    let nginx = Nginx::start([replicas[0].port(), replicas[1].port()]);
    for replica in &replicas {
        until_ready(&replica.url("/readyz")).await;
    }
    until_ready(&nginx.url("/livez")).await;

    // It opens at once, though nothing is to come; and what comes, comes, in gzip too.
    let nothing = nginx.url("/fhir/$export?_type=Basic");
    let start = Instant::now();
    let mut plain = EventStream::open(&nothing, None).await;
    let mut encoded = EventStream::open_encoded(&nothing).await;
    for stream in [&mut plain, &mut encoded] {
        assert!(matches!(stream.item().await, Some(Item::Retry(_))));
        stream.until("caught-up").await;
    }
    let opened = start.elapsed();
    let basic = serde_json::json!({"resourceType": "Basic", "id": "b", "code": {"text": "x"}});
    let start = Instant::now();
    commit(&*store, vec![put(&basic)]).await;
    for stream in [&mut plain, &mut encoded] {
        assert_eq!(stream.event().await.expect("an event").event, "Basic");
    }
    println!("opened within {opened:?}, a change came within {:?}", start.elapsed());
    drop((plain, encoded));

    // What is for operators stays with them.
    for path in ["/metrics", "/streams", "/streams.json", "/readyz"] {
        let answer = client().get(nginx.url(path)).send().await.expect("an answer");
        assert_eq!(answer.status(), 404, "{path}");
    }

    // Many follow, somebody writes, and each replica in turn is stopped and comes back.
    let url = nginx.url(QUERY);
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(follow(url.clone()))).collect();
    let start = Instant::now();
    while streams(&replicas[0]).await + streams(&replicas[1]).await < CLIENTS as u64 {
        assert!(start.elapsed() < PATIENCE, "not all have come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..600 {
                commit(&*store, vec![put(&patient(n % 120, &format!("write {n}")))]).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    for replica in &mut replicas {
        let address = replica.url("").trim_start_matches("http://").to_owned();
        replica.signal("-TERM");
        assert!(replica.wait().success());
        *replica = Process::serve_at(&address, &bench.name, &options);
        until_ready(&replica.url("/readyz")).await;
    }
    writing.await.expect("a writer");
    commit(&*store, vec![put(&patient(LAST, "the last"))]).await;
    let expected = contents(&*store, &["Patient"]).await;
    let followed =
        tokio::time::timeout(2 * PATIENCE, join_all(clients)).await.expect("all have all");
    let mut came_again = Vec::new();
    for followed in followed {
        // A version that came twice would have been met on the way.
        let Followed { replica, came_again: again, refused } = followed.expect("a client");
        // An EventSource would have given up.
        assert_eq!(refused, [0u16; 0]);
        assert_eq!((replica.resets, &replica.copy), (0, &expected));
        came_again.extend(again);
    }
    came_again.sort();
    let most = came_again
        .iter()
        .map(|at| {
            came_again
                .iter()
                .filter(|other| **other >= *at && **other < *at + Duration::from_millis(100))
                .count()
        })
        .max();
    println!(
        "{CLIENTS} clients came again {} times, at most {most:?} within 100 ms",
        came_again.len()
    );
    assert!(came_again.len() >= CLIENTS, "each was cut at least once: {}", came_again.len());
    assert!(most.is_some_and(|most| most < CLIENTS), "they come spread: {most:?}");
}
