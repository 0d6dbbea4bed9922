//! `/metrics` says what happened, and `docs/METRICS.md` says what `/metrics` says.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::collections::{BTreeMap, BTreeSet};

use support::{
    Bench, client,
    process::Process,
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const QUERY: &str = "/fhir/$export?_type=Patient";
const COMMIT_TO_SOCKET: &str = "fhirtail_commit_to_socket_seconds";

/// What a server said of itself: each series with its value, each name with its type.
#[derive(Debug)]
struct Metrics {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
    helps: BTreeSet<String>,
}

impl Metrics {
    async fn of(server: &Process) -> Self {
        let answer = client().get(server.url("/metrics")).send().await.expect("an answer");
        Self::parse(&answer.text().await.expect("text"))
    }

    fn parse(text: &str) -> Self {
        let after = |start| text.lines().filter_map(move |line| line.strip_prefix(start));
        let pair = |line: &'_ str, at: Option<(&'_ str, &'_ str)>| {
            at.map(|(name, rest)| (name.to_owned(), rest.to_owned())).expect(line)
        };
        let series = text.lines().filter(|line| line.starts_with("fhirtail_"));
        let series = series.map(|line| pair(line, line.rsplit_once(' ')));
        Self {
            series: series.map(|(name, value)| (name, value.parse().expect("a number"))).collect(),
            types: after("# TYPE ").map(|line| pair(line, line.split_once(' '))).collect(),
            helps: after("# HELP ").map(|line| pair(line, line.split_once(' ')).0).collect(),
        }
    }

    /// A series of labels that stand in the order of the alphabet, or of none.
    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.series))
    }

    /// Open streams of a phase.
    fn in_phase(&self, phase: &str) -> f64 {
        self.value(&format!("fhirtail_streams{{format=\"sse\",phase=\"{phase}\"}}"))
    }

    fn streams(&self) -> f64 {
        let is_count = |name: &String| name.starts_with("fhirtail_streams{");
        self.series.iter().filter(|(name, _)| is_count(name)).map(|(_, value)| value).sum()
    }

    fn names(&self) -> BTreeMap<&str, &str> {
        self.types.iter().map(|(name, kind)| (&**name, &**kind)).collect()
    }
}

/// Asks until it is so; gives the metrics that show it.
async fn until(server: &Process, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
    let asking = async {
        loop {
            let metrics = Metrics::of(server).await;
            if is_so(&metrics) {
                return metrics;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(metrics) => metrics,
        Err(_) => panic!("never {what}: {:#?}", Metrics::of(server).await.series),
    }
}

/// The names in the tables of the documentation, with their types.
fn documented() -> BTreeMap<&'static str, &'static str> {
    let rows = include_str!("../docs/METRICS.md").lines();
    let rows = rows.filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split_once("` | ").expect("a row"));
    cells.map(|(name, rest)| (name, rest.split([' ', ',']).next().expect("a type"))).collect()
}

async fn write(server: &Process, n: usize, name: &str) {
    let put = client().put(server.url(&format!("/fhir/Patient/p{n}")));
    // Of the answer nothing is read.
    let put =
        put.header("Content-Type", "application/fhir+json").header("Prefer", "return=minimal");
    let answer = put.body(patient(n, name).to_string()).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
}

async fn follow(server: &Process) -> EventStream {
    let mut stream = EventStream::open(&server.url(QUERY), None).await;
    stream.until("caught-up").await;
    stream
}

/// An embedded store with two patients, free for another process.
async fn left_alone() -> Bench {
    let bench = support::embedded();
    commit(bench.store.as_ref(), [1, 2].map(|n| put(&patient(n, "x"))).to_vec()).await;
    bench.store.close().await;
    bench
}

/// Opens a stream, reads what there is, and then takes nothing.
async fn stalled(server: &Process) -> TcpStream {
    let address = server.url("").replace("http://", "");
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {QUERY} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut read = Vec::new();
    while !read.ends_with(b"event: caught-up") {
        read.push(socket.read_u8().await.expect("an answer"));
    }
    socket
}

/// What is there is documented, and what is documented is there.
async fn all_is_there(store: &str) {
    let server = Process::serve(store, &[]);
    let documented = documented();
    assert!(documented.len() > 25, "{documented:?}");
    let all = |metrics: &Metrics| metrics.names().len() >= documented.len();
    let metrics = until(&server, "all", all).await;
    assert_eq!(metrics.names(), documented);
    let helps: BTreeSet<&str> = metrics.helps.iter().map(|name| &**name).collect();
    assert_eq!(helps, documented.keys().copied().collect());
    for (name, kind) in documented {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
    }
    assert_eq!(metrics.value(&format!("{COMMIT_TO_SOCKET}_count")), 0.0);
    assert!(metrics.series.contains_key(&format!("{COMMIT_TO_SOCKET}_bucket{{le=\"0.0005\"}}")));
    let capacity = metrics.value("fhirtail_ring_capacity_bytes");
    assert_eq!(capacity, f64::from(32 << 20));
    until(&server, "at rest", |m| m.value("fhirtail_tail_lag_seconds") == 0.0).await;
    assert!(metrics.value("fhirtail_log_headroom_seconds") < 24.0 * 3_600.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    all_is_there(&left_alone().await.name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    let Some(bench) = support::mongo().await else { return };
    commit(bench.store.as_ref(), vec![put(&patient(1, "x"))]).await;
    all_is_there(&bench.name).await;
}

/// Two streams and what they get, to the event.
#[tokio::test(flavor = "multi_thread")]
async fn streams_are_counted_as_they_are() {
    let bench = left_alone().await;
    let server = Process::serve(&bench.name, &["--max-streams", "2"]);
    let first = Metrics::of(&server).await;
    let mut streams = [follow(&server).await, follow(&server).await];
    let level = until(&server, "level", |m| m.in_phase("live") == 2.0 && m.streams() == 2.0).await;
    assert_eq!(level.value("fhirtail_streams_opened_total{format=\"sse\"}"), 2.0);
    // The streams, and whoever asks.
    until(&server, "two and one", |m| m.value("fhirtail_connections") == 3.0).await;

    let refused = client().get(server.url(QUERY)).header("Prefer", "respond-eventsource");
    assert_eq!(refused.send().await.expect("an answer").status(), 503);
    let mut written = 0;
    let recorded = |m: &Metrics| m.value(&format!("{COMMIT_TO_SOCKET}_count"));
    // The first may find them on their way to the crowd.
    while written < 5 || recorded(&Metrics::of(&server).await) == 0.0 {
        written += 1;
        write(&server, 10 + written, "y").await;
        for stream in &mut streams {
            assert_eq!(stream.event().await.expect("the stream goes on").event, "Patient");
        }
        assert!(written < 1_000, "nothing is recorded");
    }
    let events = (2 * (2 + 1 + written)) as f64;
    let sent = "fhirtail_sent_events_total{format=\"sse\"}";
    let last = until(&server, "sent", |m| m.value(sent) >= events).await;
    assert_eq!(last.value(sent), events);
    assert!(last.value("fhirtail_sent_bytes_total{format=\"sse\"}") > 100.0 * events);
    assert_eq!(last.value("fhirtail_streams_refused_total{limit=\"streams\"}"), 1.0);
    assert!(last.value(&format!("{COMMIT_TO_SOCKET}_sum")) < PATIENCE.as_secs_f64());
    assert_eq!(last.value("fhirtail_ring_changes"), (2 + written) as f64);
    assert!(last.value("fhirtail_ring_bytes") > 256.0);
    assert!(last.value("fhirtail_ring_age_seconds") < PATIENCE.as_secs_f64());
    assert!(last.value("fhirtail_tail_lag_seconds") < PATIENCE.as_secs_f64());
    assert!(last.value("fhirtail_log_headroom_seconds") < PATIENCE.as_secs_f64());
    until(&server, "at rest", |m| m.value("fhirtail_tail_lag_seconds") == 0.0).await;
    drop(streams);
    let gone = until(&server, "gone", |m| m.streams() == 0.0).await;
    // No series came that was not there before it had anything to say.
    let measured = ["fhirtail_tail_lag_seconds", "fhirtail_log_headroom_seconds"];
    let known = |name: &&String| !measured.contains(&name.as_str());
    assert!(gone.series.keys().filter(known).eq(first.series.keys().filter(known)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_counted() {
    let bench = left_alone().await;
    let server = Process::serve(&bench.name, &["--write-deadline", "0.3"]);
    let socket = stalled(&server).await;
    // More than the sockets between server and client hold.
    for n in 0..24 {
        write(&server, n, &"x".repeat(1 << 20)).await;
    }
    let dropped = |m: &Metrics| m.value("fhirtail_slow_clients_dropped_total") > 0.0;
    let metrics = until(&server, "dropped", |m| dropped(m) && m.streams() == 0.0).await;
    assert_eq!(metrics.value("fhirtail_slow_clients_dropped_total"), 1.0);
    drop(socket);
}

/// One history is read while another waits.
#[tokio::test(flavor = "multi_thread")]
async fn histories_are_counted_while_they_are_read_and_wait() {
    let bench = support::embedded();
    for n in 0..24 {
        let large = patient(n, &"x".repeat(1 << 20));
        commit(bench.store.as_ref(), vec![put(&large)]).await;
    }
    bench.store.close().await;
    let server = Process::serve(&bench.name, &["--max-scans", "1"]);
    let url = server.url(QUERY);
    let reading = EventStream::open(&url, None).await;
    let waiting = EventStream::open(&url, None).await;
    let busy =
        |m: &Metrics| m.value("fhirtail_scans") == 1.0 && m.value("fhirtail_scans_waiting") == 1.0;
    let metrics = until(&server, "busy", busy).await;
    assert_eq!(metrics.in_phase("history"), 2.0);
    drop((reading, waiting));
    let idle = |m: &Metrics| {
        m.value("fhirtail_scans") + m.value("fhirtail_scans_waiting") + m.streams() == 0.0
    };
    until(&server, "idle", idle).await;
}
