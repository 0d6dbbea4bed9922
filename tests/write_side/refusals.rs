//! What is refused, and how it is said.

use fhirtail::store::Store;
use reqwest::Method;
use serde_json::json;

use crate::app::{App, LIMIT, patient, request};

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Method, path, headers, body; then the status, and a part of what is said.
type Case<'a> = (&'a Method, &'a str, Headers<'a>, &'a [u8], u16, &'a str);

#[tokio::test]
async fn every_refusal_is_an_outcome_and_the_server_goes_on() {
    let app = App::start().await;
    let deep = format!(
        r#"{{"resourceType":"Basic","id":"1","x":{}{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let objects =
        format!(r#"{{"resourceType":"Basic","id":"1"{}"#, r#","x":{"y":1"#.repeat(10_000));
    let many =
        format!(r#"{{"resourceType":"Bundle","type":"batch","entry":[{}0]}}"#, "0,".repeat(50_000));
    let large = format!(r#"{{"resourceType":"Basic","id":"1","x":"{}"}}"#, "x".repeat(LIMIT));
    let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
    let long_id = format!("/fhir/Patient/{}", "x".repeat(65));
    let none: Headers<'_> = &[];
    let basic = r#"{"resourceType":"Basic","id":"1"}"#;
    let cases: Vec<Case<'_>> = vec![
        (&get, "/fhir/Patent/1", none, b"", 404, "'Patent'"),
        (&get, "/fhir/patient/1", none, b"", 404, "'patient'"),
        (&get, "/fhir/Patient/a_b", none, b"", 400, "'a_b'"),
        (&get, "/fhir/Patient/a%20b", none, b"", 400, "'a b'"),
        (&get, "/fhir/Patient/%ff", none, b"", 400, "UTF-8"),
        (&get, "/fhir/Patient/a%2Fb", none, b"", 400, "'a/b'"),
        (&get, "/fhir/Patient/%00", none, b"", 400, "not an id"),
        (&get, &long_id, none, b"", 400, "not an id"),
        (&get, "/fhir/Patient/1/x", none, b"", 404, "/fhir/Patient/1/x"),
        (&get, "/fhir/Patient/1/_history/%ff", none, b"", 400, "UTF-8"),
        (&get, "/elsewhere", none, b"", 404, "/elsewhere"),
        (&get, "/fhir/Patient/1?_summary=true", none, b"", 400, "'_summary'"),
        (&get, "/fhir/Patient/1?_format=xml", none, b"", 406, "xml"),
        (
            &get,
            "/fhir/Patient/1",
            &[("accept", "application/fhir+xml")],
            b"",
            406,
            "application/fhir+xml",
        ),
        (&get, "/fhir/metadata", &[("accept", "text/turtle")], b"", 406, "text/turtle"),
        (&Method::PATCH, "/fhir/Patient/1", none, b"", 405, "PATCH"),
        (&post, "/fhir/Patient/1", none, b"{}", 405, "POST"),
        (&delete, "/fhir/metadata", none, b"", 405, "DELETE"),
        (&put, "/fhir/Patient?identifier=1", none, b"{}", 400, "search"),
        (&delete, "/fhir/Patient?identifier=1", none, b"", 400, "search"),
        (&post, "/fhir/Basic", &[("if-none-exist", "a=b")], basic.as_bytes(), 400, "search"),
        (
            &put,
            "/fhir/Basic/1",
            &[("content-type", "text/plain")],
            basic.as_bytes(),
            415,
            "text/plain",
        ),
        (
            &put,
            "/fhir/Basic/1",
            &[("content-type", "application/fhir+xml")],
            b"<Basic/>",
            415,
            "xml",
        ),
        (
            &put,
            "/fhir/Basic/1",
            &[("content-type", "application/json; charset=latin1")],
            basic.as_bytes(),
            415,
            "latin1",
        ),
        (&put, "/fhir/Basic/1", &[("content-encoding", "gzip")], basic.as_bytes(), 415, "gzip"),
        (&put, "/fhir/Basic/1", &[("if-match", "1")], basic.as_bytes(), 400, "W/\"3\""),
        (&put, "/fhir/Basic/2", none, basic.as_bytes(), 400, "id is 1"),
        (&put, "/fhir/Patient/1", none, basic.as_bytes(), 400, "resourceType is Basic"),
        (&put, "/fhir/Basic/1", none, br#"{"resourceType":"Basic"}"#, 400, "id is missing"),
        (&put, "/fhir/Basic/1", none, br#"{"resourceType":"Basic","id":1}"#, 400, "not an id"),
        (
            &put,
            "/fhir/Basic/1",
            none,
            br#"{"resourceType":"Basic","id":"1","x":1,"x":2}"#,
            400,
            "twice",
        ),
        (
            &put,
            "/fhir/Basic/1",
            none,
            br#"{"resourceType":"Basic","id":"1","$where":1}"#,
            400,
            "$where",
        ),
        (
            &put,
            "/fhir/Basic/1",
            none,
            b"{\"resourceType\":\"Basic\",\"id\":\"\xff\"}",
            400,
            "UTF-8",
        ),
        (&put, "/fhir/Basic/1", none, b"", 400, "EOF"),
        (&put, "/fhir/Basic/1", none, b"null", 400, "object"),
        (&put, "/fhir/Basic/1", none, br#"{"resourceType":"Basic","id":"1"} x"#, 400, "trailing"),
        (&put, "/fhir/Basic/1", none, deep.as_bytes(), 400, "deep"),
        (&put, "/fhir/Basic/1", none, objects.as_bytes(), 400, "deep"),
        (&put, "/fhir/Basic/1", none, large.as_bytes(), 413, "larger than 262144"),
        (&post, "/fhir", none, large.as_bytes(), 413, "larger than 262144"),
        (&post, "/fhir", none, basic.as_bytes(), 400, "not Bundle"),
        (
            &post,
            "/fhir",
            none,
            br#"{"resourceType":"Bundle","type":"searchset"}"#,
            400,
            "Searchset",
        ),
        (
            &post,
            "/fhir",
            none,
            br#"{"resourceType":"Bundle","type":"batch","entry":7}"#,
            400,
            "array",
        ),
        (&post, "/fhir", none, b"[[[", 400, "EOF"),
        (&post, "/fhir", none, many.as_bytes(), 413, "has 50001 entries"),
    ];
    for (method, path, headers, body, status, part) in cases {
        let answer = app.send(method.clone(), path, headers, body.to_vec()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
        let (_, why, _) = answer.issue();
        assert!(why.contains(part), "{method} {path}: {why}");
        assert!(app.put("/fhir/Patient/1", &patient("1", "A")).await.status.is_success());
    }
    let refused = app.send(Method::PATCH, "/fhir/Patient/1", &[], "").await;
    assert_eq!(refused.header("allow"), Some("GET,HEAD,PUT,DELETE"));
    assert_eq!(app.get("/fhir/Basic/1").await.status, 404);
    app.stop().await;
}

#[tokio::test]
async fn bytes_that_no_client_sends() {
    let app = App::start().await;
    let head = "PUT /fhir/Basic/1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n";
    // Announced too large: refused before any of it comes.
    let answer = app.raw(format!("{head}Content-Length: 999999999999\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("OperationOutcome"), "{answer}");
    // Too large without having been announced.
    let chunk = format!("{:x}\r\n{}\r\n", LIMIT + 1, "x".repeat(LIMIT + 1));
    let answer =
        app.raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("OperationOutcome"), "{answer}");
    let broken = format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n");
    let answer = app.raw(broken.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("OperationOutcome"), "{answer}");
    let mut header = format!("{head}Content-Length: 2\r\nIf-Match: ").into_bytes();
    header.extend_from_slice(b"\xff\xfe\r\n\r\n{}");
    let answer = app.raw(&header).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("OperationOutcome"), "{answer}");
    assert!(app.put("/fhir/Patient/1", &patient("1", "A")).await.status.is_success());
    app.stop().await;
}

#[tokio::test]
async fn a_store_that_does_not_answer() {
    let app = App::start().await;
    app.store.close().await;
    let answer = app.put("/fhir/Patient/1", &patient("1", "A")).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("5")));
    assert_eq!(answer.issue().0, "transient");
    let batch = app.bundle("batch", json!([{"request": request("DELETE", "Patient/1")}])).await;
    let response = &batch.json()["entry"][0]["response"];
    assert_eq!(response["status"], "503 Service Unavailable");
    app.stop().await;
}
