//! Who speaks something else than HTTP, or HTTP in two tongues at once.

use std::net::SocketAddr;

use futures_util::future::join_all;
use support::chaos::Dice;

use crate::{
    bear,
    raw::{ask, connect, hear, request, say},
};

#[tokio::test(flavor = "multi_thread")]
async fn say_anything() {
    bear("garbage, HTTP/2, TLS", async |server: SocketAddr| {
        let clients = (0..200).map(|seed| async move {
            let mut dice = Dice(seed);
            let length = 1 + dice.below(2_000);
            let noise = (0..length).map(|_| u8::try_from(dice.roll(256)).expect("a byte"));
            let mut said: Vec<u8> = match seed % 4 {
                0 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
                1 => b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
                2 => b"GET /fhir/Patient/a HTTP/1.1\r\nHost: x\r\n".to_vec(),
                _ => Vec::new(),
            };
            said.extend(noise);
            ask(server, &said).await;
        });
        join_all(clients).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ask_much_at_once() {
    bear("pipelined requests", async |server: SocketAddr| {
        let one = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        let clients = (0..20).map(|n| async move {
            let all = one.repeat(300)
                + std::str::from_utf8(&request("GET /livez", "", "")).expect("text");
            assert_eq!(ask(server, all.as_bytes()).await, [200; 301]);
            // A stream has the connection to itself: nobody answers what is behind it.
            let stream =
                "GET /fhir/$export HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
            let mut socket = connect(server).await;
            say(&mut socket, (stream.to_owned() + &one.repeat(1 + 2_500 * (n % 2))).as_bytes())
                .await;
            if n % 2 == 1 {
                hear(&mut socket).await;
            }
        });
        join_all(clients).await;
    })
    .await;
}

/// Requests of whose length there may be two opinions. `GET /inner` would be a second request.
const TWO_TONGUES: [&str; 24] = [
    "POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 33\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 33\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: +33\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: 0x21\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551617\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nContent-Length : 0\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\n Content-Length: 0\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
    "POST /fhir HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;x=\ny\r\n",
    "POST /fhir HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET /livez\r\n\r\n",
    "GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
    "G\0T /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /li\rvez HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /livez HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn speak_in_two_tongues() {
    bear("smuggling", async |server: SocketAddr| {
        let clients = TWO_TONGUES.iter().cycle().take(120).map(|outer| async move {
            let inner = "GET /inner HTTP/1.1\r\nHost: x\r\n\r\n";
            let statuses = ask(server, format!("{outer}{inner}").as_bytes()).await;
            assert!(statuses.iter().all(|status| *status != 404), "{outer}: {statuses:?}");
        });
        join_all(clients).await;
    })
    .await;
}
