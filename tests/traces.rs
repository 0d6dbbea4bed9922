//! What is traced, as a collector of OTLP gets it from a server. Needs `--features otel`.
#![cfg(feature = "otel")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{
    io::Read,
    process::Command,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use flate2::read::GzDecoder;
use serde_json::Value;
use support::{
    client,
    logged::{Logged, left_alone},
    stream::EventStream,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What OTLP/HTTP is sent to.
struct Collector {
    endpoint: String,
    sent: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
    serving: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let (tell, sent) = mpsc::unbounded_channel();
        let collect = async move |headers: HeaderMap, body: Bytes| {
            let _ = tell.send((headers, body));
            StatusCode::OK
        };
        let routes = Router::new().route("/v1/traces", post(collect));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.expect("it") });
        Self { endpoint, sent, serving }
    }

    /// A server that sends here what it traces, as JSON, at once.
    fn serve(&self, store: &str) -> Logged {
        Logged::told(self.command(Some("http/json"), "50"), store, &["--drain", "0.1"])
    }

    fn command(&self, protocol: Option<&str>, delay: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fhirtail"));
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint);
        command.env("OTEL_BSP_SCHEDULE_DELAY", delay);
        protocol.map(|protocol| command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol));
        command
    }

    /// Spans as they come, until all of these have come.
    async fn until(&mut self, names: &[&str]) -> Spans {
        let mut spans = Spans::default();
        while names.iter().any(|name| spans.find(name).is_none()) {
            let (_, body) = self.sent.recv().await.expect("spans");
            spans.take(&serde_json::from_slice(&body).expect("JSON"));
        }
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Debug, Default)]
struct Spans(Vec<Value>);

impl Spans {
    fn take(&mut self, sent: &Value) {
        for resource in sent["resourceSpans"].as_array().expect("resources") {
            assert_eq!(attribute(&resource["resource"], "service.name"), "fhirtail");
            for scope in resource["scopeSpans"].as_array().expect("scopes") {
                self.0.extend(scope["spans"].as_array().expect("spans").iter().cloned());
            }
        }
    }

    fn find(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|span| span["name"] == name)
    }

    #[track_caller]
    fn one(&self, name: &str) -> &Value {
        let found = self.0.iter().filter(|span| span["name"] == name).count();
        assert_eq!(found, 1, "{name} in {self:#?}");
        self.find(name).expect("found")
    }
}

/// An attribute as text, whatever type it has.
fn attribute(of: &Value, key: &str) -> String {
    let all = of["attributes"].as_array().expect("attributes");
    let found = all.iter().find(|attribute| attribute["key"] == key);
    let value = found.unwrap_or_else(|| panic!("no {key} in {of}"))["value"].as_object();
    let value = value.expect("a value").values().next().expect("one");
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn nanos(span: &Value, key: &str) -> u64 {
    span[key].as_str().expect("a time").parse().expect("nanoseconds")
}

/// Until `caught-up`; then the client goes.
async fn follow(url: &str, traceparent: &str) {
    let request = client().get(url).header("Accept", "text/event-stream");
    let answer = request.header("traceparent", traceparent).send().await.expect("an answer");
    EventStream::of(answer).until("caught-up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_all_its_phases() {
    let mut collector = Collector::start().await;
    let bench = left_alone(3, 10).await;
    let server = collector.serve(&bench.name);
    let asked = "/fhir/$export?_type=Patient&_since=2020-01-01T00:00:00Z";
    follow(&server.url(asked), &format!("00-{TRACE}-{CALLER}-01")).await;

    let spans = collector.until(&["GET /fhir/$export", "stream", "history", "live"]).await;
    let request = spans.one("GET /fhir/$export");
    assert_eq!((&request["traceId"], &request["parentSpanId"]), (&TRACE.into(), &CALLER.into()));
    assert_eq!(request["kind"], 2, "a server's");
    assert_eq!(attribute(request, "http.route"), "/fhir/$export");
    assert_eq!(attribute(request, "http.request.method"), "GET");
    assert_eq!(attribute(request, "http.response.status_code"), "200");

    let stream = spans.one("stream");
    assert_eq!(stream["parentSpanId"], request["spanId"]);
    assert_eq!(attribute(stream, "fhirtail.format"), "sse");
    assert_eq!(attribute(stream, "fhirtail.events"), "4");
    assert_eq!(attribute(stream, "fhirtail.why"), "the client went");
    let end = |span| nanos(span, "endTimeUnixNano");
    assert!(end(request) < end(stream), "the answer's head does not wait for the stream's end");

    let [history, live] = ["history", "live"].map(|name| spans.one(name));
    assert_eq!(
        (&history["parentSpanId"], &live["parentSpanId"]),
        (&stream["spanId"], &stream["spanId"])
    );
    assert!(end(history) <= nanos(live, "startTimeUnixNano") && end(live) <= end(stream));
    assert_eq!(spans.one("scan Patient")["parentSpanId"], history["spanId"]);
    assert!(spans.0.iter().all(|span| span["traceId"] == TRACE), "{spans:#?}");
    assert!(!format!("{spans:?}").contains("2020-01-01"), "no query");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_and_a_read_name_nobody() {
    let mut collector = Collector::start().await;
    let bench = left_alone(0, 0).await;
    let server = collector.serve(&bench.name);
    let url = server.url("/fhir/Patient/maier-1950");
    let body = r#"{"resourceType":"Patient","id":"maier-1950"}"#;
    let write = client().put(&url).header("Content-Type", "application/fhir+json").body(body);
    assert_eq!(write.send().await.expect("an answer").status(), StatusCode::CREATED);
    assert_eq!(client().get(&url).send().await.expect("an answer").status(), StatusCode::OK);
    for probe in ["/livez", "/readyz", "/metrics"] {
        client().get(server.url(probe)).send().await.expect("an answer");
    }
    let nowhere = client().get(server.url("/Maier")).send().await.expect("an answer");
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);

    const ROUTES: [&str; 2] = ["PUT /fhir/{type}/{id}", "GET /fhir/{type}/{id}"];
    let spans = collector.until(&[ROUTES[0], ROUTES[1], "commit", "read", "GET"]).await;
    for (route, work) in ROUTES.into_iter().zip(["commit", "read"]) {
        let (request, work) = (spans.one(route), spans.one(work));
        assert_eq!(work["parentSpanId"], request["spanId"]);
        assert!(request["parentSpanId"].as_str().is_none_or(str::is_empty), "nobody's");
    }
    assert_ne!(spans.one(ROUTES[0])["traceId"], spans.one(ROUTES[1])["traceId"]);
    assert!(!format!("{spans:?}").to_lowercase().contains("maier"), "{spans:#?}");
    let probes = spans.0.iter().filter(|span| span["name"].as_str() == Some("GET")).count();
    assert_eq!(probes, 1, "probes are not traced: {spans:#?}");
    assert!(["/livez", "/readyz", "/metrics"].iter().all(|p| !format!("{spans:?}").contains(p)));
}

/// And by OTLP's own default they are protobuf.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_sent_when_the_server_stops() {
    let mut collector = Collector::start().await;
    let bench = left_alone(1, 10).await;
    let mut command = collector.command(None, "600000");
    command.env("OTEL_SERVICE_NAME", "tail-of-the-ward");
    let mut server = Logged::told(command, &bench.name, &["--drain", "0.1"]);
    let mut stream = EventStream::open(&server.url("/fhir/$export"), None).await;
    stream.until("caught-up").await;
    server.signal("-TERM");
    assert_eq!(server.ended()["why"], "the server is stopping");
    let (headers, body) = collector.sent.recv().await.expect("the rest");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let holds = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("tail-of-the-ward") && holds("history") && holds("the server is stopping"));
    assert!(!holds("unknown_service"));
}

/// By the variables that `docs/TRACES.md` names.
#[tokio::test(flavor = "multi_thread")]
async fn headers_compression_and_attributes_are_as_asked() {
    let mut collector = Collector::start().await;
    let bench = left_alone(1, 10).await;
    let mut command = collector.command(Some("http/json"), "50");
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    let endpoint = format!("{}/v1/traces", collector.endpoint);
    command.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint);
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-ward");
    command.env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    command.env("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=fhirtail-a");
    let server = Logged::told(command, &bench.name, &["--drain", "0.1"]);
    follow(&server.url("/fhir/$export"), "nonsense").await;
    let (headers, body) = collector.sent.recv().await.expect("spans");
    assert_eq!(headers["authorization"], "Bearer of-the-ward");
    assert_eq!(headers["content-encoding"], "gzip");
    let mut text = String::new();
    GzDecoder::new(&*body).read_to_string(&mut text).expect("gzip");
    let sent: Value = serde_json::from_str(&text).expect("JSON");
    Spans::default().take(&sent);
    let resource = &sent["resourceSpans"][0]["resource"];
    assert_eq!(attribute(resource, "service.instance.id"), "fhirtail-a");
}

/// Of those whom nobody traces a tenth is traced; else it is as the caller says.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenth_is_traced_and_who_is_traced_already() {
    const ASKED: usize = 400;
    const CALLED: usize = 20;
    const UNTRACED: &str = "0af7651916cd43dd8448eb211c80319c";
    let mut collector = Collector::start().await;
    let bench = left_alone(1, 10).await;
    let mut command = collector.command(Some("http/json"), "50");
    command.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
    command.env("OTEL_TRACES_SAMPLER_ARG", "0.1");
    let mut server = Logged::told(command, &bench.name, &["--drain", "0.1"]);
    let (http, url) = (client(), server.url("/fhir/Patient/p0"));
    for _ in 0..ASKED {
        assert_eq!(http.get(&url).send().await.expect("an answer").status(), StatusCode::OK);
    }
    for (trace, flags) in [(TRACE, "01"), (UNTRACED, "00")] {
        for _ in 0..CALLED {
            let request =
                http.get(&url).header("traceparent", format!("00-{trace}-{CALLER}-{flags}"));
            request.send().await.expect("an answer");
        }
    }
    server.signal("-TERM");
    while server.lines.next().is_some() {}
    let mut spans = Spans::default();
    while let Ok((_, body)) = collector.sent.try_recv() {
        spans.take(&serde_json::from_slice(&body).expect("JSON"));
    }
    let requests = spans.0.iter().filter(|span| span["name"] == "GET /fhir/{type}/{id}");
    let (called, own): (Vec<_>, Vec<_>) = requests.partition(|span| span["traceId"] == TRACE);
    assert_eq!(called.len(), CALLED);
    assert!(own.iter().all(|span| span["traceId"] != UNTRACED));
    // Of 400 by chance 40, give or take 6: this is beyond five times that.
    assert!((8..=72).contains(&own.len()), "{} of {ASKED}", own.len());
}

/// The time that `docker/` gives a server to end is longer than this.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_is_waited_for_5_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let bench = left_alone(1, 10).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_fhirtail"));
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "50");
    let mut server = Logged::told(command, &bench.name, &["--drain", "0.1"]);
    follow(&server.url("/fhir/$export"), "nonsense").await;
    let _asked = listener.accept().await.expect("it is told of something");
    let start = Instant::now();
    server.signal("-TERM");
    while server.lines.next().is_some() {}
    let took = start.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_holds_nothing_up() {
    let bench = left_alone(1, 10).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_fhirtail"));
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
    let mut server = Logged::told(command, &bench.name, &["--drain", "0.1"]);
    follow(&server.url("/fhir/$export"), "nonsense").await;
    while !server.line()["target"]
        .as_str()
        .is_some_and(|target| target.starts_with("opentelemetry"))
    {}
    follow(&server.url("/fhir/$export"), "nonsense").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_none_gets_none() {
    let mut collector = Collector::start().await;
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
    ] {
        let bench = left_alone(1, 10).await;
        let mut command = collector.command(Some("http/json"), "50");
        command.env(name, value);
        let mut server = Logged::told(command, &bench.name, &["--drain", "0.1"]);
        follow(&server.url("/fhir/$export"), "nonsense").await;
        server.signal("-TERM");
        // To its end: until then something could still be sent.
        while server.lines.next().is_some() {}
        assert!(collector.sent.try_recv().is_err(), "{name}={value}");
    }
}

/// A history that a client goes on with is traced as one, below the stream that goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_gone_on_with() {
    let mut collector = Collector::start().await;
    let bench = left_alone(400, 1000).await;
    let server = collector.serve(&bench.name);
    let url = server.url("/fhir/$export?_type=Patient");
    let mut first = EventStream::open(&url, None).await;
    let position = first.event().await.expect("a patient").id;
    drop(first);
    let mut second = EventStream::open(&url, Some(&position)).await;
    second.until("caught-up").await;
    drop(second);
    let mut spans = collector.until(&["live"]).await;
    let is_over =
        |spans: &Spans| spans.0.iter().filter(|span| span["name"] == "stream").count() == 2;
    while !is_over(&spans) {
        spans.0.extend(collector.until(&["stream"]).await.0);
    }
    let live = spans.one("live");
    let of_second = |name: &str| {
        let named = spans.0.iter().filter(move |span| span["name"] == name);
        named.filter(|span| span["traceId"] == live["traceId"]).collect::<Vec<_>>()
    };
    let [scan] = of_second("scan Patient")[..] else { panic!("one scan in {spans:#?}") };
    assert!(of_second("history").iter().any(|span| span["spanId"] == scan["parentSpanId"]));
    assert_eq!(of_second("replay").len(), 1);
}

#[tokio::test]
async fn what_is_wrong_is_one_line() {
    for (name, value, part) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "not a URL", "endpoint"),
    ] {
        let bench = left_alone(0, 0).await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_fhirtail"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", &bench.name]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9").env(name, value);
        let output = command.output().expect("the binary");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.starts_with("fhirtail: ") && said.contains(part), "{said}");
    }
}
