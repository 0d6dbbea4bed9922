//! Behind real proxies with the settings of `docker/`: a stream opens at once, nothing is held back,
//! what is silent stays, and a replica that is rolled while many follow costs nobody anything.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]
#![allow(clippy::print_stdout, reason = "figures")]

#[path = "proxies/again.rs"]
mod again;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fhirtail::{client::sse::Item, store::Store};
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{
    Bench, client,
    front::{CADDY, Front, HAPROXY, Kind, NGINX},
    process::Process,
    replica::{Replica, contents},
    stream::{EventStream, PATIENCE},
    writes::{commit, patient, put},
};
use tokio_util::sync::CancellationToken;

const QUERY: &str = "/fhir/$export?_type=Patient";
/// What is written last.
const LAST: usize = 100_000;
/// How long the proxies wait for a word here, and a quarter of it, as in `docker/`.
const IDLE: Duration = Duration::from_secs(4);
const KEEP_ALIVE: &str = "1";
/// What waits in a proxy for more to come waits for longer, or for ever.
const AT_ONCE: Duration = Duration::from_millis(100);

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
    totals(replica).await["streams"].as_u64().expect("a count")
}

/// All the streams of a replica.
async fn totals(replica: &Process) -> Value {
    let answer = client().get(replica.url("/streams.json?limit=1")).send().await;
    let text = answer.expect("an answer").text().await.expect("text");
    let told: Value = serde_json::from_str(&text).expect("JSON");
    told["totals"].clone()
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
async fn nginx() {
    behind(&NGINX, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy() {
    behind(&HAPROXY, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy() {
    behind(&CADDY, 60).await;
}

async fn behind(kind: &Kind, clients: usize) {
    let Some(bench) = support::mongo().await else { return };
    commit(&*bench.store, (0..50).map(|n| put(&patient(n, "before"))).collect()).await;
    let options = ["--retry", "0.5", "--drain", "2", "--keep-alive", KEEP_ALIVE];
    let mut replicas = [0, 1].map(|_| Process::serve(&bench.name, &options));
    let front = kind.start([replicas[0].port(), replicas[1].port()]);
    for replica in &replicas {
        until_ready(&replica.url("/readyz")).await;
    }
    until_ready(&front.url("/livez")).await;

    let start = Instant::now();
    operators_keep_theirs(&front).await;
    nobody_is_named(kind, &front).await;
    again::writes_are_answered(&front).await;
    let silent = tokio::spawn(stays(front.url("/fhir/$export?_type=Account")));
    nothing_is_held_back(kind, &front, &bench).await;
    silent.await.expect("a client");
    let dropped = Instant::now();
    let gone = async {
        while streams(&replicas[0]).await + streams(&replicas[1]).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(IDLE, gone).await.expect("who goes is gone at the replica too, by itself");
    println!("{}: gone after {:?}", kind.name, dropped.elapsed());
    who_stalls_is_felt(kind, &front, &bench, &replicas).await;
    println!("{}: {:?} without a roll", kind.name, start.elapsed());

    let start = Instant::now();
    let url = front.url(QUERY);
    let following: Vec<_> = (0..clients).map(|_| tokio::spawn(follow(url.clone()))).collect();
    let all = async {
        while streams(&replicas[0]).await + streams(&replicas[1]).await < clients as u64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("all come");
    let done = CancellationToken::new();
    let writing = tokio::spawn(write_until(bench.store.clone(), done.clone()));
    let mut rolls = Vec::new();
    for replica in &mut replicas {
        rolls.push(Instant::now());
        let address = replica.url("").trim_start_matches("http://").to_owned();
        replica.signal("-TERM");
        assert!(replica.wait().success());
        *replica = Process::serve_at(&address, &bench.name, &options);
        until_ready(&replica.url("/readyz")).await;
    }
    done.cancel();
    writing.await.expect("a writer");
    commit(&*bench.store, vec![put(&patient(LAST, "the last"))]).await;
    let expected = contents(&*bench.store, &["Patient"]).await;
    let followed =
        tokio::time::timeout(2 * PATIENCE, join_all(following)).await.expect("all have all");
    let mut came_again = Vec::new();
    for followed in followed {
        // A version that came twice would have been met on the way.
        let Followed { replica, came_again: again, refused } = followed.expect("a client");
        // An EventSource would have given up.
        assert_eq!(refused, [0u16; 0]);
        assert_eq!((replica.resets, &replica.copy), (0, &expected));
        came_again.extend(again);
    }
    println!("{}: {:?} for the rolls of {clients} clients", kind.name, start.elapsed());
    assert!(came_again.len() >= clients, "each was cut at least once: {}", came_again.len());
    let (first, second) = came_again.into_iter().partition(|at: &Instant| *at < rolls[1]);
    for came_again in [first, second] {
        they_come_spread(kind, came_again);
    }
}

/// A roll's clients come again over more than two seconds: the drain, and what each is told to wait.
/// The fullest half of a second has about half of them, for many come to the replica that drains, and are
/// told to come again once more. Ended all at once, nearly all come within one.
fn they_come_spread(kind: &Kind, mut came_again: Vec<Instant>) {
    let most = most_within(Duration::from_millis(500), &mut came_again);
    let all = came_again.len();
    println!("{}: in a roll {all} came again, at most {most} within 500 ms", kind.name);
    assert!(5 * most < 4 * all, "they come spread: {most} of {all} within 500 ms");
}

/// What is for operators stays with them.
async fn operators_keep_theirs(front: &Front) {
    for path in ["/metrics", "/streams", "/streams.json", "/readyz"] {
        let answer = client().get(front.url(path)).send().await.expect("an answer");
        assert_eq!(answer.status(), 404, "{path}");
    }
}

/// What is logged tells of whom was asked neither id nor query. Caddy logs nothing.
async fn nobody_is_named(kind: &Kind, front: &Front) {
    for path in ["/fhir/Patient/maier-1950?x=maier", "/fhir/Group/maier/$export?_type=Patient"] {
        client().get(front.url(path)).send().await.expect("an answer");
    }
    let is_told = |said: &str| {
        ["GET /fhir/Patient/{id}\"", "GET /fhir/Group/{id}/$export\""]
            .iter()
            .all(|route| said.contains(route))
    };
    let start = Instant::now();
    while kind.name != "caddy" && !is_told(&front.said()) {
        assert!(start.elapsed() < PATIENCE, "not told: {}", front.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!front.said().contains("maier"), "{}", front.said());
}

/// A stream opens though nothing is to come; and what comes, comes; in gzip too, which is fhirtail's.
async fn nothing_is_held_back(kind: &Kind, front: &Front, bench: &Bench) {
    let url = front.url("/fhir/$export?_type=Basic");
    let (mut opened, mut came) = (Duration::MAX, Duration::MAX);
    let mut streams = Vec::new();
    // Of some times the least: others on this machine have none in it.
    for n in 0..8 {
        let start = Instant::now();
        let mut stream = match n % 2 {
            0 => EventStream::open(&url, None).await,
            _ => EventStream::open_encoded(&url).await,
        };
        assert!(matches!(stream.item().await, Some(Item::Retry(_))));
        opened = opened.min(start.elapsed());
        // Where others write to the same MongoDB that waits for the next word of the log.
        stream.until("caught-up").await;
        streams.push(stream);
    }
    for n in 0..8 {
        let basic = json!({"resourceType": "Basic", "id": "b", "code": {"text": n}});
        let start = Instant::now();
        commit(&*bench.store, vec![put(&basic)]).await;
        for stream in &mut streams {
            assert_eq!(stream.event().await.expect("an event").event, "Basic");
        }
        came = came.min(start.elapsed());
    }
    println!("{}: opens within {opened:?}, a change comes within {came:?}", kind.name);
    assert!(opened < AT_ONCE && came < AT_ONCE, "opens {opened:?}, comes {came:?}");
}

/// A stream on which nothing comes but that it lives outlives the proxy's patience.
async fn stays(url: String) {
    let mut answer = EventStream::request(&url, None).await;
    let start = Instant::now();
    while start.elapsed() < IDLE + Duration::from_secs(1) {
        let chunk = tokio::time::timeout(PATIENCE, answer.chunk()).await.expect("a word");
        let chunk = chunk.expect("the stream goes on");
        assert!(chunk.is_some(), "it ended after {:?}", start.elapsed());
    }
}

/// Of a history that nobody takes a proxy does not take much either: fhirtail knows who is slow.
async fn who_stalls_is_felt(kind: &Kind, front: &Front, bench: &Bench, replicas: &[Process; 2]) {
    const LARGE: usize = 32;
    for n in 0..LARGE {
        let text = "x".repeat(1 << 20);
        let large = json!({"resourceType": "Binary", "id": format!("b{n}"), "data": text});
        commit(&*bench.store, vec![put(&large)]).await;
    }
    let url = front.url("/fhir/$export?_type=Binary");
    let _stalled = EventStream::request(&url, None).await;
    let start = Instant::now();
    let mut sent = 0;
    loop {
        let totals = [totals(&replicas[0]).await, totals(&replicas[1]).await];
        let now: u64 = totals.iter().map(|one| one["bytes"].as_u64().expect("bytes")).sum();
        if now > 0 && now == sent {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "it never stands still: {now} bytes");
        sent = now;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("{}: {} KB went to a client that takes nothing", kind.name, sent >> 10);
    assert!(sent < (LARGE as u64) << 20, "{sent} bytes: all of it");
}

/// Somebody who writes, about a hundred times a second.
async fn write_until(store: Arc<dyn Store>, done: CancellationToken) {
    let mut count = 0;
    while !done.is_cancelled() {
        commit(&*store, vec![put(&patient(count % 120, &format!("write {count}")))]).await;
        count += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many of these moments lie closest together.
fn most_within(time: Duration, moments: &mut [Instant]) -> usize {
    moments.sort();
    let from = |first: &Instant| moments.partition_point(|one| *one < *first + time);
    moments.iter().enumerate().map(|(at, first)| from(first) - at).max().unwrap_or(0)
}
