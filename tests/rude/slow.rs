//! Who takes nothing, or next to nothing, and who says next to nothing.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::{
    bear,
    lab::until,
    raw::{PATIENCE, connect, hear, request, say, standing, statuses},
};

const STREAM: &str = "Accept: text/event-stream\r\n";
/// Whatever is large.
const LARGE: [(&str, &str); 4] = [
    ("GET /fhir/$export", STREAM),
    ("GET /fhir/$export", "Accept: text/event-stream\r\nAccept-Encoding: gzip\r\n"),
    ("GET /fhir/$export", "Accept: application/fhir+ndjson\r\n"),
    ("GET /fhir/Patient", "Accept: application/fhir+json\r\n"),
];

/// Many of each of them.
async fn many<T>(count: usize, client: impl AsyncFn(Vec<u8>) -> T) -> Vec<T> {
    let requests = LARGE.iter().cycle().take(count);
    join_all(requests.map(|(line, headers)| client(request(line, headers, "")))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn never_read() {
    bear("never read", async |server: SocketAddr| {
        let sockets = many(60, async |request| {
            let mut socket = connect(server).await;
            say(&mut socket, &request).await;
            let answered = timeout(PATIENCE, socket.readable()).await;
            answered.expect("an answer").expect("a connection");
            socket
        })
        .await;
        // What they are sent has to fill their sockets first.
        until("the server lets go of all", 60, || standing(&sockets) == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_a_byte_a_second() {
    bear("read 1 byte/s", async |server: SocketAddr| {
        many(60, async |request| {
            let mut socket = connect(server).await;
            say(&mut socket, &request).await;
            for _ in 0..3 {
                let read = timeout(PATIENCE, socket.read(&mut [0])).await;
                assert_eq!(read.expect("it is served").expect("a connection"), 1);
                sleep(Duration::from_secs(1)).await;
            }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn close_half() {
    bear("half-closed", async |server: SocketAddr| {
        many(100, async |request| {
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
