//! Who sends too much of anything.

use std::net::SocketAddr;

use futures_util::future::join_all;

use crate::{
    bear, bear_within,
    raw::{ask, ask_for_head, connect, hear, request, say},
};

#[tokio::test(flavor = "multi_thread")]
async fn flood_with_headers() {
    bear("header floods", async |server: SocketAddr| {
        let many: String = (0..5_000).map(|n| format!("X-{n}: y\r\n")).collect();
        let large = format!("X: {}\r\n", "y".repeat(1 << 20));
        let floods = [many, large];
        let finite = floods.iter().cycle().take(40).map(|headers| async move {
            let statuses = ask(server, &request("GET /livez", headers, "")).await;
            assert!(statuses.is_empty() || statuses == [431], "{statuses:?}");
        });
        let endless =
            ["X: y\r\n", "yyyyyyyyyyyyyyyy"].iter().cycle().take(20).map(|part| async move {
                let mut socket = connect(server).await;
                say(&mut socket, b"GET /livez HTTP/1.1\r\nHost: x\r\nX:").await;
                let part = part.repeat(4096);
                let mut sent = 0;
                while say(&mut socket, part.as_bytes()).await {
                    sent += part.len();
                    assert!(sent < 64 << 20, "it goes on and on");
                }
            });
        tokio::join!(join_all(finite), join_all(endless));
    })
    .await;
}

/// Requests of which everything is too large, each with what it is to be told.
fn oversized() -> Vec<(Vec<u8>, &'static [u16])> {
    let long = "x".repeat(60_000);
    let get = |path: &str, headers: &str| request(&format!("GET {path}"), headers, "");
    let put = |body: &str| request("PUT /fhir/Patient/a", "", body);
    let put_of = |member: &str| {
        put(&format!(r#"{{"resourceType":"Patient","id":"a","extension":{member}}}"#))
    };
    let entry = r#"{"request":{"method":"GET","url":"Patient/nobody"}},"#.repeat(15_000);
    let bundle = |kind: &str| {
        let entries = entry.trim_end_matches(',');
        format!(r#"{{"resourceType":"Bundle","type":"{kind}","entry":[{entries}]}}"#)
    };
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let stream = "Accept: text/event-stream\r\n";
    vec![
        (get(&format!("/fhir/{long}"), ""), &[400, 404, 405, 414]),
        (get(&format!("/fhir/Patient/{long}"), ""), &[400, 404, 414]),
        (get(&format!("/fhir/Group/{long}/$export"), stream), &[400, 404, 414]),
        (get(&format!("/fhir/Patient/$export?{long}={long}"), stream), &[400, 414]),
        (get(&format!("/fhir/$export?{}", "_type=Patient&".repeat(4_000)), stream), &[200, 400]),
        (get(&format!("/fhir/$export?_since={long}"), stream), &[400]),
        (get("/fhir/$export", &format!("{stream}Last-Event-ID: {long}\r\n")), &[400, 431]),
        (get("/fhir/$export", &format!("Accept: {long}\r\n")), &[400, 406, 431]),
        (get("/livez", &format!("Cookie: {long}\r\n")), &[200]),
        (
            put(&format!(r#"{{"resourceType":"Patient","id":"a","x":"{}"}}"#, " ".repeat(2 << 20))),
            &[413],
        ),
        (request("PUT /fhir/Patient/a", "Content-Length: 99999999999\r\n", ""), &[400, 413, 415]),
        (put_of(&format!("{open}{close}")), &[400]),
        (put_of(&open), &[400]),
        (put_of(&format!("[{}]", "9".repeat(100_000))), &[200, 201, 400, 422]),
        (put_of("[1e999999999999]"), &[200, 201, 400, 422]),
        (put_of(&format!("[1.{}]", "0".repeat(100_000))), &[200, 201, 400, 422]),
        (put_of(&format!(r#""{}""#, "\\u0000".repeat(10_000))), &[200, 201, 400, 422]),
        (put(&format!(r#"{{"resourceType":"Patient","id":"{long}"}}"#)), &[400]),
        (request("POST /fhir", "", &bundle("batch")), &[200, 400]),
        (request("POST /fhir", "", &bundle("transaction")), &[200, 400, 404]),
    ]
}

/// A Bundle of 15,000 entries in 800 KB is some 25 MB of values while it is read, and more than one is
/// read at once: what of that the allocator keeps.
const VALUES: usize = 96 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn send_too_much() {
    let requests = oversized();
    bear_within(VALUES, "oversized everything", async |server: SocketAddr| {
        let client = async |(request, expected): &(Vec<u8>, &'static [u16])| {
            let text = String::from_utf8_lossy(request);
            // A stream that is granted goes on: its head is enough.
            let statuses = match expected.contains(&200) && text.contains("event-stream") {
                true => ask_for_head(server, request).await,
                false => ask(server, request).await,
            };
            let fits = matches!(*statuses, [status] if expected.contains(&status));
            assert!(fits, "{}: {statuses:?}", &text[..60]);
        };
        for some in requests.chunks(4).cycle().take(3 * requests.len().div_ceil(4)) {
            join_all(some.iter().map(&client)).await;
        }
    })
    .await;
}

/// Who is refused says on what nobody asked for.
#[tokio::test(flavor = "multi_thread")]
async fn go_on_after_a_refusal() {
    bear("bodies that nobody reads", async |server: SocketAddr| {
        let clients = (0..40).map(|_| async move {
            let mut socket = connect(server).await;
            let head = "POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            say(&mut socket, head.as_bytes()).await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            let mut sent = 0;
            while say(&mut socket, chunk.as_bytes()).await {
                sent += chunk.len();
                assert!(sent < 64 << 20, "it goes on and on");
            }
            hear(&mut socket).await;
        });
        join_all(clients).await;
    })
    .await;
}
