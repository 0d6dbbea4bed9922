//! Who takes nothing, or next to nothing, and who says next to nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{chaos::Dice, stream};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    bear, bear_within,
    lab::until,
    raw::{Ends, PATIENCE, ask, connect, hear, request, say, standing, statuses},
};

const STREAM: &str = "Accept: text/event-stream\r\n";

/// Whatever is large; of a search, where this type is.
fn large(ty: &str) -> [Vec<u8>; 4] {
    let whole = "GET /fhir/$export";
    [
        request(whole, STREAM, ""),
        request(whole, "Accept: text/event-stream\r\nAccept-Encoding: gzip\r\n", ""),
        request(whole, "Accept: application/fhir+ndjson\r\n", ""),
        request(&format!("GET /fhir/{ty}"), "Accept: application/fhir+json\r\n", ""),
    ]
}

/// Many of each of them.
async fn many<T>(count: usize, ty: &str, client: impl AsyncFn(Vec<u8>) -> T) -> Vec<T> {
    join_all(large(ty).iter().cycle().take(count).map(|request| client(request.clone()))).await
}

/// What nobody else reads or writes.
const FILLED: &str = "Basic";

/// Writes resources that are more than all that lies between what is read of a store and a client that
/// takes nothing, packed or not: 3 MB.
async fn fill(server: SocketAddr) {
    let mut dice = Dice(3);
    for some in 0..6 {
        let mut entry = |n: u64| {
            let noise = (0..12_500).map(|_| format!("{:08x}", dice.roll(1 << 32)));
            let (id, text) = (format!("large-{some}{n}"), noise.collect::<String>());
            let resource = json!({"resourceType": FILLED, "id": id, "code": {"text": text}});
            let request = json!({"method": "PUT", "url": format!("{FILLED}/{id}")});
            json!({"resource": resource, "request": request})
        };
        let entries: Vec<Value> = (0..5).map(&mut entry).collect();
        let bundle = json!({"resourceType": "Bundle", "type": "batch", "entry": entries});
        assert_eq!(ask(server, &request("POST /fhir", "", &bundle.to_string())).await, [200]);
    }
}

/// How many clients were let go since they took nothing.
async fn let_go(server: SocketAddr) -> f64 {
    let metrics = stream::client().get(format!("http://{server}/metrics")).send().await;
    let metrics = metrics.expect("an answer").text().await.expect("a text");
    let counts = metrics.lines().filter(|line| line.starts_with("fhirtail_slow_clients_dropped"));
    counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// What is on its way to so many at once, and what of that the allocator keeps.
const FULL: usize = 96 << 20;
const MANY: usize = 24;

/// Clients that have asked for whatever is large, and are answered.
async fn asked(server: SocketAddr) -> Vec<TcpStream> {
    many(MANY, FILLED, async |request| {
        let mut socket = connect(server).await;
        say(&mut socket, &request).await;
        let answered = timeout(PATIENCE, socket.readable()).await;
        answered.expect("an answer").expect("a connection");
        socket
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn never_read() {
    bear_within(FULL, "never read", async |server: SocketAddr| {
        fill(server).await;
        let before = let_go(server).await;
        let sockets = asked(server).await;
        until("the server lets go of all", 60, || standing(&sockets) == 0).await;
        assert!(let_go(server).await >= before + MANY as f64, "for another reason");
    })
    .await;
}

/// Nobody tells the server of single bytes: their kernel has room again only once a good part of its
/// buffer has been read. Whoever reads no faster takes nothing, as far as can be known.
#[tokio::test(flavor = "multi_thread")]
async fn read_a_byte_a_second() {
    bear_within(FULL, "read 1 byte/s", async |server: SocketAddr| {
        fill(server).await;
        let start = Instant::now();
        // Where this looks too seldom they are gone before they have read anything.
        while read_a_byte_each(server).await <= MANY / 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "too few read anything");
        }
    })
    .await;
}

/// Asks, and reads a byte a second until all are let go; how many have read any.
async fn read_a_byte_each(server: SocketAddr) -> usize {
    let before = let_go(server).await;
    let sockets = asked(server).await;
    // When each read last: not before all is full that lies between.
    let mut read = vec![None::<Instant>; sockets.len()];
    let start = Instant::now();
    loop {
        let ends = Ends::now();
        for (socket, read) in sockets.iter().zip(&mut read) {
            let is_time = match *read {
                None => ends.is_full(socket),
                Some(last) => last.elapsed() > Duration::from_secs(1),
            };
            if is_time && ends.stands(socket) && matches!(socket.try_read(&mut [0]), Ok(1)) {
                *read = Some(Instant::now());
            }
        }
        if !sockets.iter().any(|socket| ends.stands(socket)) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "they are served on and on");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(let_go(server).await >= before + MANY as f64, "for another reason");
    read.iter().flatten().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn close_half() {
    bear("half-closed", async |server: SocketAddr| {
        many(100, "Patient", async |request| {
            let mut socket = connect(server).await;
            say(&mut socket, &request).await;
            socket.shutdown().await.expect("half a connection");
            let heard = String::from_utf8_lossy(&hear(&mut socket).await).into_owned();
            // A stream ends, wherever it is: its client has gone, as far as is known.
            if !String::from_utf8_lossy(&request).contains("event-stream") {
                assert!(heard.starts_with("HTTP/1.1 200 "), "{heard:.200}");
                assert!(heard.ends_with("\r\n0\r\n\r\n"), "half an answer of {}", heard.len());
            }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_and_go() {
    bear("2,000 connects and closes", async |server: SocketAddr| {
        for batch in 0..20 {
            let clients = (0..100).map(|n| async move {
                let mut socket = connect(server).await;
                if n % 2 == 0 {
                    let request = request("GET /fhir/$export", STREAM, "");
                    say(&mut socket, &request[..request.len().min(5 * batch)]).await;
                }
                if n % 3 == 0 {
                    socket.set_zero_linger().expect("a reset");
                }
            });
            join_all(clients).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ask_slowly() {
    bear("slow heads and bodies", async |server: SocketAddr| {
        let head = request("GET /livez", "X-Slow: ", "");
        let bodies = ["PUT /fhir/Patient/slow", "POST /fhir/Patient", "POST /fhir"];
        let body = |line: &&str| request(line, "", &format!("{{{}", " ".repeat(1_000)));
        let requests: Vec<Vec<u8>> = bodies.iter().map(body).chain([head]).collect();
        let clients = requests.iter().cycle().take(100).map(|request| async move {
            let mut socket = connect(server).await;
            let (begun, rest) = request.split_at(request.len().min(150) - 10);
            say(&mut socket, begun).await;
            for byte in rest.iter().cycle().take(10) {
                sleep(Duration::from_millis(200)).await;
                if !say(&mut socket, &[*byte]).await {
                    break;
                }
            }
            let statuses = statuses(&hear(&mut socket).await);
            assert!(statuses.is_empty() || statuses == [408], "{statuses:?}");
        });
        join_all(clients).await;
    })
    .await;
}
