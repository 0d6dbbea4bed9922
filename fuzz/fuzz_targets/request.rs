//! Requests of every kind against the whole edge: path, query, headers (`Accept`, `Prefer`,
//! `Last-Event-ID`, `If-Match`…) and body. Never a panic, never a 500; every refusal is an
//! OperationOutcome that says what was wrong; what is sent as NDJSON is NDJSON.
//!
//! An input is written as HTTP/1.1 is, with LF for line ends: `GET /fhir/$export?_type=Patient`,
//! lines of headers, an empty line, the body.
#![no_main]

use std::cell::RefCell;

use axum::{
    body::{Body, to_bytes},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    },
};
use fhirtail_fuzz::{json::Json, server::Server};
use libfuzzer_sys::{Corpus, fuzz_target};

thread_local! {
    static SERVER: RefCell<Server> = RefCell::new(Server::start());
}

/// The request that an input is, if HTTP can carry it.
fn request(input: &[u8]) -> Option<Request<Body>> {
    let (head, body) = match input.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        headers.append(HeaderName::from_bytes(&line[..colon]).ok()?, value);
    }
    let mut request = Request::new(Body::from(body.to_vec()));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    // HTTP/1.1 has a path, or a whole URL.
    *request.uri_mut() = target.parse::<Uri>().ok().filter(|uri| !uri.path().is_empty())?;
    *request.headers_mut() = headers;
    Some(request)
}

fn is(headers: &HeaderMap, media_type: &str) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|given| given == media_type)
}

async fn judge(asked: Asked, response: Response<Body>) {
    let (head, body) = response.into_parts();
    let (status, headers) = (head.status, head.headers);
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "a defect");
    if headers.contains_key(header::CONTENT_ENCODING) || asked.method == Method::HEAD {
        return;
    }
    let refused = status.is_client_error() || status.is_server_error();
    if refused && asked.is_fhir {
        assert!(is(&headers, "application/fhir+json"), "{status} {headers:?}");
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        check_outcome(&body);
    } else if is(&headers, "application/fhir+ndjson") {
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        let lines = str::from_utf8(&body).expect("UTF-8");
        assert!(lines.is_empty() || lines.ends_with('\n'), "{lines:?}");
        for line in lines.lines() {
            let resource = Json::read(line).expect("JSON");
            assert!(resource.get("resourceType").is_some(), "{line}");
        }
    } else if is(&headers, "application/fhir+json") {
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        Json::read(str::from_utf8(&body).expect("UTF-8")).expect("JSON");
    }
}

fn check_outcome(body: &[u8]) {
    let text = str::from_utf8(body).expect("UTF-8");
    let outcome = Json::read(text).unwrap_or_else(|| panic!("no JSON: {text:?}"));
    let is =
        |json: &Json, name: &str, value: &str| json.get(name).and_then(Json::text) == Some(value);
    assert!(is(&outcome, "resourceType", "OperationOutcome"), "{text}");
    let Some(Json::Array(issues)) = outcome.get("issue") else { panic!("no issue: {text}") };
    assert!(is(&issues[0], "severity", "error"), "{text}");
    assert!(issues[0].get("code").is_some(), "{text}");
    let told = issues[0].get("diagnostics").and_then(Json::text);
    assert!(told.is_some_and(|told| !told.is_empty()), "{text}");
}

struct Asked {
    method: Method,
    /// Health checks answer in plain text.
    is_fhir: bool,
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some(request) = request(input) else { return Corpus::Reject };
    let is_fhir = !["/livez", "/readyz", "/metrics"].contains(&request.uri().path());
    let asked = Asked { method: request.method().clone(), is_fhir };
    SERVER.with_borrow_mut(|server| server.ask(request, async |answer| judge(asked, answer).await));
    Corpus::Keep
});
