//! What a proxy asks a second time, and what it must not: a write that was sent may be written,
//! though its answer was lost, or was 503.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use support::{
    client,
    front::{CADDY, Front, HAPROXY, Kind, NGINX},
    stream::PATIENCE,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::until_ready;

/// What becomes of one request, once it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its replica is killed.
    Killed,
    /// Its replica answers 503: nobody knows whether it was written.
    Unavailable,
}

/// Stands in for a replica at its worst, which the real one is by chance only.
struct Stub {
    port: u16,
    serving: JoinHandle<()>,
}

/// What the stubs share.
#[derive(Debug, Default)]
struct Asked {
    /// The fate of the next request.
    fate: Option<Fate>,
    methods: Vec<String>,
    /// Which of them has a stream.
    streaming: Option<u16>,
}

impl Stub {
    async fn start(asked: Arc<Mutex<Asked>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                tokio::spawn(answer(socket, port, asked.clone()));
            }
        });
        Self { port, serving }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Reads one request to its end, and does with it what its fate is.
async fn answer(mut socket: TcpStream, port: u16, asked: Arc<Mutex<Asked>>) {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    let (head, method) = loop {
        let Ok(count @ 1..) = socket.read(&mut buffer).await else { return };
        request.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse().expect("a length"))
        });
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), head.split(' ').next().expect("a method").to_owned());
        }
    };
    if head.contains(" /held ") {
        asked.lock().expect("no panic while locked").streaming = Some(port);
        return std::future::pending().await;
    }
    let fate = match head.contains(" /fhir/") {
        true => {
            let mut asked = asked.lock().expect("no panic while locked");
            asked.methods.push(method);
            asked.fate.take()
        }
        false => None,
    };
    let status = match fate {
        Some(Fate::Killed) => return,
        Some(Fate::Unavailable) => "503 Service Unavailable",
        None => "200 OK",
    };
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = socket.write_all(text.as_bytes()).await;
}

/// Whether a proxy asks the other replica then.
fn asks_again(kind: &Kind, method: &Method, fate: Fate) -> bool {
    match (kind.name, method.as_str()) {
        (_, "POST") => false,
        // All that HTTP calls idempotent.
        ("nginx", _) => true,
        ("haproxy", method) => method == "GET",
        (_, method) => method == "GET" && fate == Fate::Killed,
    }
}

async fn ask(front: &Front, method: &Method) -> u16 {
    let mut request = client().request(method.clone(), front.url("/fhir/Patient/1"));
    if [Method::POST, Method::PUT].contains(method) {
        request = request.body("{}");
    }
    let answer = tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer");
    answer.expect("an answer").status().as_u16()
}

async fn asked_again(kind: &Kind, none_is_there: (&[u16], Duration)) {
    let asked = Arc::<Mutex<Asked>>::default();
    let stubs = [Stub::start(asked.clone()).await, Stub::start(asked.clone()).await];
    let front = kind.start([stubs[0].port, stubs[1].port]);
    for fate in [Fate::Killed, Fate::Unavailable] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::GET] {
            // Caddy lets a replica that failed alone for a second.
            until_ready(&front.url("/livez")).await;
            *asked.lock().expect("no panic while locked") =
                Asked { fate: Some(fate), ..Asked::default() };
            let status = ask(&front, &method).await;
            let asked = asked.lock().expect("no panic while locked").methods.clone();
            let case = format!("{} {method} {fate:?}: {status} {asked:?}", kind.name);
            match asks_again(kind, &method, fate) {
                true => assert!(status == 200 && asked == [method.as_str(); 2], "{case}"),
                false => assert!(status >= 502 && asked == [method.as_str()], "{case}"),
            }
        }
    }

    // A connection that is refused took nothing along: then a write too is for the other. It is asked
    // second, since it has a stream. Caddy loses what was to be written (caddyserver/caddy#7546), until
    // it has looked who is there; and all of it holds for longer than it lets alone who has failed.
    until_ready(&front.url("/livez")).await;
    let stream = tokio::spawn(client().get(front.url("/held")).send());
    let stays = loop {
        let streaming = asked.lock().expect("no panic while locked").streaming;
        if let Some(port) = streaming {
            break port;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let stubs: Vec<_> = stubs.into_iter().filter(|stub| stub.port == stays).collect();
    let (start, mut written_since) = (Instant::now(), Instant::now());
    while written_since.elapsed() < Duration::from_secs(3) {
        *asked.lock().expect("no panic while locked") = Asked::default();
        let status = ask(&front, &Method::POST).await;
        let asked = asked.lock().expect("no panic while locked").methods.clone();
        let case = format!("{}: {status} {asked:?} after {:?}", kind.name, start.elapsed());
        if kind.name == "caddy" && status >= 502 && asked.is_empty() {
            assert!(start.elapsed() < PATIENCE / 4, "{case}");
            written_since = Instant::now();
        } else {
            assert!(status == 200 && asked == ["POST"], "{case}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{}: writes are taken after {:?}", kind.name, written_since - start);
    stream.abort();

    // And where both are gone.
    drop(stubs);
    let start = Instant::now();
    let (statuses, at_least) = none_is_there;
    let status = ask(&front, &Method::GET).await;
    assert!(statuses.contains(&status), "{}: {status}", kind.name);
    println!("{}: {status} after {:?} where no replica is there", kind.name, start.elapsed());
    assert!(start.elapsed() >= at_least, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_asks_again() {
    asked_again(&NGINX, (&[502], Duration::ZERO)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_asks_again() {
    asked_again(&HAPROXY, (&[503], Duration::ZERO)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_asks_again() {
    // 503 while it lets both alone.
    asked_again(&CADDY, (&[502, 503], Duration::from_secs(4))).await;
}

/// What is written by way of a proxy is answered, and there.
pub(super) async fn writes_are_answered(front: &Front) {
    let sent = |method: Method, path: &str, id: &str| {
        let body = json!({"resourceType": "Organization", "id": id, "name": "Ward 7"});
        let request = client().request(method, front.url(path));
        request.header("Content-Type", "application/fhir+json").body(body.to_string()).send()
    };
    let put = sent(Method::PUT, "/fhir/Organization/ward", "ward").await.expect("an answer");
    assert_eq!(put.status(), 201);
    let posted = sent(Method::POST, "/fhir/Organization", "none").await.expect("an answer");
    assert_eq!(posted.status(), 201);
    let location = posted.headers()["location"].to_str().expect("text").to_owned();
    let (place, _) = location.split_once("/_history/").expect("a version");
    for place in ["/fhir/Organization/ward", place] {
        let read = client().get(front.url(place)).send().await.expect("an answer");
        let read: Value = serde_json::from_str(&read.text().await.expect("text")).expect("JSON");
        assert_eq!(read["name"], "Ward 7", "{place}");
    }
}
