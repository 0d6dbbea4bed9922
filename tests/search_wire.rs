//! A search over HTTP: what is written, and what is refused.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{
    io::{ErrorKind, Write},
    time::{Duration, Instant},
};

use flate2::write::GzDecoder;
use reqwest::{Response, StatusCode, header};
use serde_json::{Value, json};
use support::{
    App, Bench, client,
    sparse::{Says, Sparse},
    stream::PATIENCE,
    writes,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// 300 patients, every third a Maier.
async fn with_patients(bench: Bench) -> (App, Bench) {
    let name = |n: usize| if n.is_multiple_of(3) { "Maier" } else { "Huber" };
    let patients: Vec<_> = (0..300).map(|n| writes::put(&writes::patient(n, name(n)))).collect();
    writes::commit(&*bench.store, patients).await;
    (App::start(bench.store.clone()).await, bench)
}

async fn get(app: &App, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = client().get(app.url(path));
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().await.expect("an answer")
}

async fn bundle(app: &App, path: &str) -> Value {
    let response = get(app, path, &[]).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/fhir+json");
    serde_json::from_str(&response.text().await.expect("all of it")).expect("JSON")
}

fn entries(bundle: &Value) -> &[Value] {
    bundle["entry"].as_array().map_or(&[], Vec::as_slice)
}

/// The refusal of a request: its status and its words.
async fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let outcome: Value =
        serde_json::from_str(&response.text().await.expect("a body")).expect("an OperationOutcome");
    assert_eq!(outcome["resourceType"], "OperationOutcome");
    (status, outcome["issue"][0]["diagnostics"].as_str().expect("words").to_owned())
}

async fn answers(bench: Bench) {
    let (app, _bench) = with_patients(bench).await;
    let all = bundle(&app, "/fhir/Patient").await;
    assert_eq!((&all["type"], entries(&all).len()), (&json!("searchset"), 300));

    let maiers = bundle(&app, "/fhir/Patient?name=MAI&_sort=_id").await;
    assert_eq!(entries(&maiers).len(), 100);
    let link = app.url("/fhir/Patient?name=MAI&_sort=_id");
    assert_eq!(maiers["link"], json!([{"relation": "self", "url": link}]));
    for entry in entries(&maiers) {
        let id = entry["resource"]["id"].as_str().expect("an id");
        assert_eq!(entry["fullUrl"], app.url(&format!("/fhir/Patient/{id}")));
        assert_eq!(entry["search"], json!({"mode": "match"}));
    }

    let none = bundle(&app, "/fhir/Observation?code=x").await;
    assert_eq!(none.get("entry"), None, "an empty array is not FHIR's JSON");
    assert_eq!(entries(&bundle(&app, "/fhir/Patient?name=mai&_count=7").await).len(), 7);
    let formats =
        ["application/fhir%2Bjson;fhirVersion=4.0", "application/fhir+json; charset=utf-8"];
    for format in formats {
        let found = bundle(&app, &format!("/fhir/Patient?_id=p1&_format={format}")).await;
        assert_eq!(entries(&found).len(), 1, "{format}");
    }
    for counting in ["_summary=count", "_count=0", "_summary=count&_count=5"] {
        let counted = bundle(&app, &format!("/fhir/Patient?name=mai&{counting}")).await;
        assert_eq!((&counted["total"], counted.get("entry")), (&json!(100), None));
    }
    let part = bundle(&app, "/fhir/Patient?_elements=gender&_count=1").await;
    let part = &part["entry"][0]["resource"];
    assert_eq!((part.get("name"), &part["resourceType"]), (None, &json!("Patient")));
    assert_eq!(part["meta"]["tag"][0]["code"], "SUBSETTED");

    let lines = get(&app, "/fhir/Patient?name=mai", &[("Accept", "application/fhir+ndjson")]).await;
    assert_eq!(lines.headers()[header::CONTENT_TYPE], "application/fhir+ndjson");
    assert_eq!(lines.text().await.expect("all of it").lines().count(), 100);

    let form = client().post(app.url("/fhir/Patient/_search?_count=5"));
    let form = form.header("Content-Type", "application/x-www-form-urlencoded").body("name=mai");
    let found = form.send().await.expect("an answer").text().await.expect("all of it");
    assert_eq!(entries(&serde_json::from_str(&found).expect("JSON")).len(), 5);
}

/// The resources of a search, in order: when each was changed, and its id.
async fn order(app: &App, query: &str) -> Vec<(String, String)> {
    let found = bundle(app, &format!("/fhir/Patient?{query}")).await;
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let key = |entry: &Value| {
        let resource = &entry["resource"];
        (text(&resource["meta"]["lastUpdated"]), text(&resource["id"]))
    };
    entries(&found).iter().map(key).collect()
}

async fn are_sorted(bench: Bench) {
    // Some at one instant, each of some at its own.
    let (app, bench) = with_patients(bench).await;
    for n in [7, 250, 3, 99, 30, 120] {
        let patient = writes::put(&writes::patient(n, "Maier the Younger"));
        writes::commit(&*bench.store, vec![patient]).await;
    }
    let mut all = order(&app, "").await;
    assert!(all.iter().map(|(_, id)| id).is_sorted() && all.len() == 300);
    let maiers = order(&app, "name=mai").await;
    all.sort();
    let up = all.clone();
    assert_ne!(up[0].0, up[299].0, "there are instants to sort by");
    all.reverse();
    for (query, expected) in [
        ("_sort=_lastUpdated", &up),
        ("_sort=_lastUpdated,_id", &up),
        ("_sort=-_lastUpdated", &all),
        ("_sort=-_lastUpdated,-_id", &all),
    ] {
        assert_eq!(order(&app, query).await, *expected, "{query}");
        let some = order(&app, &format!("{query}&_count=5")).await;
        assert_eq!(some, expected[..5], "{query}, the first");
        let mut found = expected.clone();
        found.retain(|key| maiers.contains(key));
        assert_eq!(order(&app, &format!("{query}&name=mai")).await, found, "{query}, of some");
    }
    let mut by_id = all.clone();
    by_id.sort_by(|(_, one), (_, other)| other.cmp(one));
    for query in ["_sort=-_id", "_sort=-_id,_lastUpdated"] {
        assert_eq!(order(&app, query).await, by_id, "{query}");
    }
    let ids = |sort: &str| format!("_id=p5,p250,none,p30&{sort}");
    let named = |keys: &[(String, String)]| {
        let is_one = |key: &&(String, String)| ["p5", "p250", "p30"].contains(&&*key.1);
        keys.iter().filter(is_one).cloned().collect::<Vec<_>>()
    };
    assert_eq!(order(&app, &ids("_sort=-_id")).await, named(&by_id));
    assert_eq!(order(&app, &ids("_sort=-_lastUpdated")).await, named(&all));
    // Several commits may fall into one millisecond: all of it is found.
    let instant = &up[297].0;
    let late = up.partition_point(|(at, _)| at < instant);
    let since = format!("_lastUpdated=ge{instant}&_sort=_lastUpdated");
    assert_eq!(order(&app, &since).await, up[late..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_sorts() {
    are_sorted(support::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_sorts() {
    let Some(bench) = support::mongo().await else { return };
    are_sorted(bench).await;
}

/// How many cursors on a database are open.
async fn cursors(client: &mongodb::Client, database: &str) -> usize {
    let namespace = format!("{database}.Patient");
    support::mongod::cursors(client, mongodb::bson::doc! {"ns": namespace}).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_its_cursor() {
    let Some(bench) = support::mongo().await else { return };
    let text = "x".repeat(100_000);
    for hundred in 0..4 {
        let patient = |n| writes::put(&writes::patient(n, &text));
        let some = (hundred * 100..hundred * 100 + 100).map(patient).collect();
        writes::commit(&*bench.store, some).await;
    }
    let app = App::start(bench.store.clone()).await;
    let client = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
    let database = client.default_database().expect("a database").name().to_owned();
    for query in ["", "_sort=-_id", "_sort=_lastUpdated", "name=x"] {
        let mut response = get(&app, &format!("/fhir/Patient?{query}"), &[]).await;
        response.chunk().await.expect("a chunk");
        let start = Instant::now();
        while cursors(&client, &database).await != 1 {
            assert!(start.elapsed() < Duration::from_secs(20), "{query}: there is a cursor");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(response);
        while cursors(&client, &database).await > 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "{query}: the cursor stays open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    answers(support::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    let Some(bench) = support::mongo().await else { return };
    answers(bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lenient_handling_says_what_it_ignored() {
    let (app, _bench) = with_patients(support::embedded()).await;
    let path = "/fhir/Patient?nonsense=1&name=mai&organization.name=x&_count=2";
    let (status, words) = refusal(get(&app, path, &[]).await).await;
    assert!(status == 400 && words.contains("'nonsense'"), "{words}");
    let response = get(&app, path, &[("Prefer", "handling=lenient")]).await;
    assert_eq!(response.headers()["x-ignored-parameters"], "nonsense,organization.name");
    let bundle: Value = serde_json::from_str(&response.text().await.expect("all")).expect("JSON");
    assert_eq!(entries(&bundle).len(), 3);
    assert_eq!(bundle["entry"][0]["search"]["mode"], "outcome");
    let outcome = &bundle["entry"][0]["resource"];
    assert_eq!(outcome["issue"][0]["severity"], "warning");
    assert!(outcome.to_string().contains("nonsense, organization.name"), "{outcome}");
    let link = bundle["link"][0]["url"].as_str().expect("a link");
    assert_eq!(link, app.url("/fhir/Patient?name=mai&_count=2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_an_operation_outcome() {
    let (app, _bench) = with_patients(support::embedded()).await;
    let many = format!("/fhir/Patient?_id={}", vec!["a"; 10_000].join(","));
    let cases = [
        ("/fhir/Patient?birthdate=zz2000", 400, "is no date"),
        ("/fhir/Patient?birthdate=2000-13", 400, "is no date"),
        ("/fhir/Patient?name:sounds=x", 400, ":exact"),
        ("/fhir/Patient?organization.name=x", 400, "a chain"),
        ("/fhir/Patient?_include=Patient:link", 400, "not supported"),
        ("/fhir/Patient?_sort=-_lastUpdated,_id", 400, "in one direction"),
        ("/fhir/Patient?_sort=_id,-_id", 400, "Name each once"),
        ("/fhir/Patient?_format=xml", 406, "application/fhir+ndjson"),
        ("/fhir/Patent?name=x", 404, "no resource type"),
        ("/fhir/Patient?name=%ff", 400, "UTF-8"),
        ("/fhir/Patient?name=a%00", 400, "the control character %00"),
        ("/fhir/Patient?_id%1f=a", 400, "the control character %1F"),
        (&many, 400, "1000 is the most"),
    ];
    for (path, status, part) in cases {
        let refused = refusal(get(&app, path, &[]).await).await;
        assert!(refused.0 == status && refused.1.contains(part), "{path:.60}: {refused:?}");
    }
    let refused = refusal(get(&app, "/fhir/Patient", &[("Accept", "text/html")]).await).await;
    assert_eq!(refused.0, 406);
    let form = |kind: &str, body: String| {
        let request = client().post(app.url("/fhir/Patient/_search"));
        request.header("Content-Type", kind).body(body).send()
    };
    let long = form("application/x-www-form-urlencoded", format!("name={}", "x".repeat(100_000)));
    let refused = refusal(long.await.expect("an answer")).await;
    assert!(refused.0 == 400 && refused.1.contains("longer than"), "{refused:?}");
    let refused = refusal(form("application/json", "{}".into()).await.expect("an answer")).await;
    assert_eq!(refused.0, 415);
    let zipped = client().post(app.url("/fhir/Patient/_search")).body("name=mai");
    let zipped = zipped.header("Content-Type", "application/x-www-form-urlencoded");
    let zipped = zipped.header("Content-Encoding", "gzip").send().await.expect("an answer");
    assert_eq!(refusal(zipped).await.0, 415);
    let refused = refusal(get(&app, "/fhir/Patient", &[("Host", &"x".repeat(300))]).await).await;
    assert!(refused.0 == 400 && refused.1.contains("Host"), "{refused:?}");
    let refused = refusal(get(&app, "/fhir/Patient?_count=0&_format=ndjson", &[]).await).await;
    assert!(refused.0 == 400 && refused.1.contains("_count=0: lines"), "{refused:?}");
    // hyper itself refuses a URL of such a length, in its own way; and the server goes on.
    let head = format!("GET /fhir/Patient?name={} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let mut socket = TcpStream::connect(app.address).await.expect("a connection");
    socket.write_all(head.as_bytes()).await.expect("written");
    let mut status = [0; 12];
    socket.read_exact(&mut status).await.expect("a status");
    assert_eq!(&status, b"HTTP/1.1 414");
    assert_eq!(bundle(&app, "/fhir/Patient?_summary=count").await["total"], 300);
}

/// A form is no URL: what ends one, or has no place in one, is a character like others.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_read_to_its_end() {
    let (app, _bench) = with_patients(support::embedded()).await;
    for (body, count) in [
        ("name=mai", 100),
        ("name:contains=#&name=mai", 0),
        ("name=mai,#\"<ü>&_id=p3,p4", 1),
        ("name=mai&_id=p3,p4\r\n", 1),
    ] {
        let form = client().post(app.url("/fhir/Patient/_search")).body(body);
        let form = form.header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
        let text = form.send().await.expect("an answer").text().await.expect("all of it");
        let found: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(found["type"], "searchset", "{body}: {text}");
        assert_eq!(entries(&found).len(), count, "{body}");
    }
}

const BUNDLE: &str = "application/fhir+json";
const NDJSON: &str = "application/fhir+ndjson";

/// Whatever is written while it is read.
const READS: [(&str, &str); 3] =
    [("/fhir/Patient", BUNDLE), ("/fhir/Patient", NDJSON), ("/fhir/$export?_type=Patient", NDJSON)];

/// A store with more than sockets hold.
async fn with_much() -> Bench {
    let (bench, text) = (support::embedded(), "x".repeat(100_000));
    let patient = |n: usize| writes::put(&writes::patient(n, &text));
    for hundred in 0..4 {
        let some = (hundred * 100..hundred * 100 + 100).map(patient).collect();
        writes::commit(&*bench.store, some).await;
    }
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_is_cut_short_has_no_end() {
    for accept in [BUNDLE, NDJSON] {
        let bench = with_much().await;
        let app = App::start(bench.store.clone()).await;
        // Its head, and no more than sockets hold; then the server stops.
        let response = get(&app, "/fhir/Patient", &[("Accept", accept)]).await;
        assert_eq!(response.status(), StatusCode::OK);
        app.stop().await;
        assert!(response.bytes().await.is_err(), "{accept}: half a result has no end");
    }
}

/// An answer whose status is 200, and of which no more is read.
async fn granted(app: &App, path: &str, accept: &str, version: &str) -> TcpStream {
    let request = format!("GET {path} HTTP/{version}\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    let ask = async {
        loop {
            let mut socket = TcpStream::connect(app.address).await.expect("a connection");
            socket.write_all(request.as_bytes()).await.expect("written");
            let mut status = [0; 12];
            socket.read_exact(&mut status).await.expect("a status");
            if status.ends_with(b" 200") {
                return socket;
            }
            assert!(status.ends_with(b" 503"), "{}", String::from_utf8_lossy(&status));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.expect("a place, in time")
}

/// HTTP/1.0 has no chunks: an answer ends with its connection.
#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_of_http_1_0_ends_by_a_reset() {
    let bench = with_much().await;
    let app = App::start(bench.store.clone()).await;
    let mut halves = Vec::new();
    for (path, accept) in READS {
        halves.push(granted(&app, path, accept, "1.0").await);
    }
    app.stop().await;
    for (mut half, read) in halves.into_iter().zip(READS) {
        let ended = half.read_to_end(&mut Vec::new()).await;
        let error = ended.expect_err("half an answer has no end in order");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_of_http_1_0_ends_in_order() {
    let (app, _bench) = with_patients(support::embedded()).await;
    for (path, accept) in READS {
        let (mut socket, mut text) = (granted(&app, path, accept, "1.0").await, String::new());
        socket.read_to_string(&mut text).await.expect("an end in order");
        assert_eq!(text.matches("\"resourceType\":\"Patient\"").count(), 300, "{path}, {accept}");
        assert!(text.ends_with(if accept == NDJSON { "}\n" } else { "}]}" }), "{path}, {accept}");
    }
}

/// One patient, and scans that find nothing for long.
async fn finding_nothing(says: Says) -> (App, tokio::sync::watch::Sender<bool>, Bench) {
    let bench = support::embedded();
    writes::commit(&*bench.store, vec![writes::put(&writes::patient(1, "Maier"))]).await;
    let (sparse, find) = Sparse::over(&bench.store, says);
    (App::with(sparse, &["--max-scans", "1", "--keep-alive", "0.2"]).await, find, bench)
}

/// Who has gone is heard of by writing alone.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_while_nothing_is_found_leaves_its_turn() {
    for says in [Says::Stretches, Says::Nothing] {
        let (app, _find, _bench) = finding_nothing(says).await;
        for version in ["1.1", "1.0"] {
            for (path, accept) in READS {
                drop(granted(&app, path, accept, version).await);
            }
        }
        granted(&app, "/fhir/Patient", NDJSON, "1.1").await;
    }
}

/// Reads until it ends with two blank lines; or to its end.
async fn read_on(response: &mut Response, decoded: &mut GzDecoder<Vec<u8>>, gzip: bool, all: bool) {
    while all || !decoded.get_ref().ends_with(b"\n\n") {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.expect("it goes on");
        let Some(chunk) = chunk.expect("no end before its end") else { return };
        match gzip {
            true => decoded.write_all(&chunk).and_then(|()| decoded.flush()).expect("gzip"),
            false => decoded.get_mut().extend_from_slice(&chunk),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stays_while_nothing_is_found_hears_blank_lines() {
    for says in [Says::Stretches, Says::Nothing] {
        let (app, find, _bench) = finding_nothing(says).await;
        for ((path, accept), gzip) in
            READS.into_iter().flat_map(|read| [false, true].map(|gzip| (read, gzip)))
        {
            find.send_replace(false);
            let coding = if gzip { "gzip" } else { "identity" };
            let headers = [("Accept", accept), ("Accept-Encoding", coding)];
            let mut response = get(&app, path, &headers).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}, {accept}");
            assert_eq!(response.headers().contains_key(header::CONTENT_ENCODING), gzip);
            let mut decoded = GzDecoder::new(Vec::new());
            read_on(&mut response, &mut decoded, gzip, false).await;
            find.send_replace(true);
            read_on(&mut response, &mut decoded, gzip, true).await;
            let text = String::from_utf8(std::mem::take(decoded.get_mut())).expect("text");
            let found = match accept {
                BUNDLE => {
                    serde_json::from_str::<Value>(&text).expect("JSON")["entry"][0]["resource"]
                        .clone()
                }
                _ => {
                    let mut lines = text.lines().filter(|line| !line.is_empty());
                    let line = serde_json::from_str(lines.next().expect("a line")).expect("JSON");
                    assert_eq!(lines.next(), None, "{text}");
                    line
                }
            };
            assert_eq!(found["id"], "p1", "{path}, {accept}: {text}");
        }
    }
}
