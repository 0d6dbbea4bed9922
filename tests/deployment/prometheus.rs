//! A real Prometheus with the files of `docker/prometheus/` watches two servers: targets, rules, alerts,
//! and every query of the board.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{
    self, client,
    front::{debian, free_port},
    process::Process,
    proxy::Proxy,
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{board, chosen, expressions, recorded, text};

/// What of the files is otherwise here: seconds for minutes.
const EDITS: [(&str, &str); 5] = [
    ("scrape_interval: 10s", "scrape_interval: 1s"),
    ("evaluation_interval: 10s", "evaluation_interval: 1s"),
    ("fhirtail_tail_silence_seconds > 15\n        for: 1m", "fhirtail_tail_silence_seconds > 2"),
    ("(fhirtail_connections[1d])\n        for: 1m", "(fhirtail_connections[1d])"),
    ("absent(fhirtail_connections)\n        for: 2m", "absent(fhirtail_connections)"),
];

/// A running Prometheus.
struct Prometheus {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Prometheus {
    /// One that watches these servers instead of compose's.
    fn start(servers: [&str; 2]) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let mut files = ["prometheus.yml", "rules.yml"].map(|name| {
            let text = text(&format!("prometheus/{name}"));
            (folder.path().join(name), text)
        });
        let targets = ["fhirtail-a:8080", "fhirtail-b:8080"].into_iter().zip(servers);
        for (old, new) in EDITS.into_iter().chain(targets) {
            let found: usize = files.iter().map(|(_, text)| text.matches(old).count()).sum();
            assert_eq!(found, 1, "{old}");
            files.iter_mut().for_each(|(_, text)| *text = text.replace(old, new));
        }
        for (file, text) in &files {
            fs::write(file, text).expect("written");
        }
        let mut command = debian("prometheus");
        command.arg(format!("--config.file={}", files[0].0.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).current_dir(folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.expect("prometheus"), port, _folder: folder }
    }

    /// What a query gives now: labels and number of each series.
    async fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let url = format!("http://127.0.0.1:{}/api/v1/query?query={query}", self.port);
        // It may not listen yet.
        let Ok(answer) = client().get(url).send().await else { return Vec::new() };
        let text = answer.text().await.expect("text");
        let Ok(answer) = serde_json::from_str::<Value>(&text) else { return Vec::new() };
        assert_eq!(answer["status"], "success", "{answer}");
        let series = answer["data"]["result"].as_array().expect("series").iter();
        series
            .map(|one| {
                let number = one["value"][1].as_str().expect("text").parse().expect("a number");
                (one["metric"].clone(), number)
            })
            .collect()
    }

    /// Waits until a query gives what is wanted.
    async fn until(&self, query: &str, is_so: impl Fn(&[(Value, f64)]) -> bool) {
        let start = Instant::now();
        loop {
            let given = self.query(query).await;
            if is_so(&given) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "never so: {query}: {given:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until these alerts fire, for these servers (or none of them), and no others.
    async fn until_firing(&self, alerts: &[(&str, &str)]) {
        let name =
            |labels: &Value, label: &str| labels[label].as_str().unwrap_or_default().to_owned();
        let wanted: BTreeSet<_> =
            alerts.iter().map(|(alert, on)| ((*alert).to_owned(), (*on).to_owned())).collect();
        let firing = r#"ALERTS{alertstate="firing"}"#;
        self.until(firing, |given| {
            let fire = given.iter().map(|(on, _)| (name(on, "alertname"), name(on, "instance")));
            fire.collect::<BTreeSet<_>>() == wanted
        })
        .await;
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sees_two_servers_and_says_what_is_wrong() {
    let Some(bench) = support::mongo().await else { return };
    let mut whole = Process::serve(&bench.name, &["--max-streams", "1"]);
    // The other one's way to the store can be cut.
    let node = &support::mongod::shared().await.expect("a set").nodes[0];
    let way = Proxy::to(node.port).await;
    let store = bench.name.replace(&format!(":{}/", node.port), &format!(":{}/", way.port));
    let store = store.replace("replicaSet=rs0", "directConnection=true");
    let mut other = Process::serve(&store, &[]);
    let [a, b] = [&whole, &other].map(|one| format!("127.0.0.1:{}", one.port()));
    let prometheus = Prometheus::start([&a, &b]);

    // Somebody writes, and each server has a stream that hears of it.
    let done = CancellationToken::new();
    let writing = tokio::spawn({
        let (store, done) = (bench.store.clone(), done.clone());
        async move {
            for n in 0.. {
                commit(&*store, vec![put(&patient(n % 9, &format!("write {n}")))]).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                if done.is_cancelled() {
                    return;
                }
            }
        }
    });
    let mut streams = Vec::new();
    for server in [&whole, &other] {
        let url = server.url("/fhir/$export?_type=Patient");
        let mut stream = EventStream::open(&url, None).await;
        streams.push(tokio::spawn(async move { while stream.item().await.is_some() {} }));
    }

    let start = Instant::now();
    let all = |given: &[(Value, f64)]| given.iter().filter(|(_, number)| *number == 1.0).count();
    prometheus.until(r#"up{job="fhirtail"}"#, |given| all(given) == 2).await;
    let has_values = |given: &[(Value, f64)]| {
        !given.is_empty() && given.iter().all(|(_, number)| number.is_finite())
    };
    for name in recorded(&text("prometheus/rules.yml")) {
        prometheus.until(&name, has_values).await;
    }
    for query in expressions(&board()) {
        let query = chosen(&query);
        let query = match query.strip_prefix("label_values(") {
            Some(of) => of.rsplit_once(", ").expect("a label").0.to_owned(),
            None => query,
        };
        prometheus.until(&query, has_values).await;
    }
    println!("all is seen after {:?}", start.elapsed());
    prometheus.until_firing(&[]).await;

    // A stream more than there may be; a store that does not answer; a server that is gone.
    let start = Instant::now();
    let mut refused = EventStream::open(&whole.url("/fhir/$export?_type=Basic"), None).await;
    assert_eq!(refused.event().await.expect("an event").event, "OperationOutcome");
    let refusing = ("FhirtailStreamsRefused", a.as_str());
    prometheus.until_firing(&[refusing]).await;
    way.swallow();
    let silent = ("FhirtailStoreSilent", b.as_str());
    prometheus.until_firing(&[refusing, silent]).await;
    whole.kill();
    prometheus.until_firing(&[refusing, silent, ("FhirtailDown", &a)]).await;
    way.clear();
    prometheus.until_firing(&[refusing, ("FhirtailDown", &a)]).await;
    other.kill();
    let down = [("FhirtailDown", a.as_str()), ("FhirtailDown", &b), ("FhirtailGone", "")];
    prometheus.until_firing(&[refusing, down[0], down[1], down[2]]).await;
    println!("all alerts within {:?}", start.elapsed());
    done.cancel();
    writing.await.expect("a writer");
    streams.iter().for_each(tokio::task::JoinHandle::abort);
}
