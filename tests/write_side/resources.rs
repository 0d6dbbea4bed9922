//! One resource at a time.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};

use crate::app::{App, patient};

#[tokio::test]
async fn one_resource_from_creation_to_deletion() {
    let app = App::start().await;
    let path = "/fhir/Patient/p1";
    assert_eq!(app.get(path).await.status, 404);

    let created = app.put(path, &patient("p1", "Chalmers")).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!(created.header("location"), Some("/fhir/Patient/p1/_history/1"));
    assert_eq!(created.header("etag"), Some("W/\"1\""));
    assert_eq!(created.json()["meta"]["versionId"], "1");

    let read = app.get(path).await;
    assert_eq!((read.status, &read.text), (StatusCode::OK, &created.text));
    assert_eq!(read.header("etag"), Some("W/\"1\""));
    let modified = read.header("last-modified").expect("Last-Modified");
    assert!(modified.ends_with(" GMT") && modified.len() == 29, "{modified}");
    let head = app.send(Method::HEAD, path, &[], "").await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    assert_eq!(head.header("content-length"), Some(read.text.len().to_string().as_str()));

    let updated = app.put(path, &patient("p1", "Windsor")).await;
    assert_eq!((updated.status, updated.header("etag")), (StatusCode::OK, Some("W/\"2\"")));
    assert_eq!(updated.header("location"), None);
    let same = app.put(path, &patient("p1", "Windsor")).await;
    assert_eq!((same.status, same.header("etag")), (StatusCode::OK, Some("W/\"2\"")));
    assert_eq!(app.get("/fhir/Patient/p1/_history/2").await.text, same.text);
    assert_eq!(app.get("/fhir/Patient/p1/_history/1").await.status, 404);

    for _ in 0..2 {
        let deleted = app.send(Method::DELETE, path, &[], "").await;
        assert_eq!((deleted.status, deleted.text.as_str()), (StatusCode::NO_CONTENT, ""));
    }
    let gone = app.get(path).await;
    assert_eq!((gone.status, gone.issue().0.as_str()), (StatusCode::GONE, "deleted"));

    let again = app.put(path, &patient("p1", "Windsor")).await;
    assert_eq!((again.status, again.header("etag")), (StatusCode::CREATED, Some("W/\"4\"")));
    app.stop().await;
}

#[tokio::test]
async fn the_server_gives_ids_and_keeps_what_it_gets() {
    let app = App::start().await;
    let text = r#"{"resourceType":"Observation","id":"mine","status":"final","valueQuantity":{"value":1.50,"x":1E-22},"_status":{"id":"ü😀"}}"#;
    let created = app.send(Method::POST, "/fhir/Observation", &[], text).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let id = created.json()["id"].as_str().expect("an id").to_owned();
    assert_ne!(id, "mine");
    let location = created.header("location").expect("Location");
    assert_eq!(location, format!("/fhir/Observation/{id}/_history/1"));
    let read = app.get(location).await.text;
    let (start, rest) = read.split_once(r#""meta":{"#).expect("meta");
    let (_, end) = rest.split_once("},").expect("the end of meta");
    assert_eq!(format!("{start}{end}"), text.replace("mine", &id));
    assert_eq!(app.get("/fhir/Observation/mine").await.status, 404);
    app.stop().await;
}

#[tokio::test]
async fn preconditions() {
    let app = App::start().await;
    let path = "/fhir/Patient/p1";
    let put = async |header: &[(&str, &str)], family: &str| {
        app.send(Method::PUT, path, header, patient("p1", family).to_string()).await
    };
    assert_eq!(put(&[("if-match", "W/\"1\"")], "A").await.status, 412);
    assert_eq!(put(&[("if-none-match", "*")], "A").await.status, 201);
    let conflict = put(&[("if-none-match", "*")], "B").await;
    assert_eq!(conflict.status, 412);
    let (code, why, _) = conflict.issue();
    assert!(code == "conflict" && why.contains("W/\"1\""), "{why}");
    assert_eq!(put(&[("if-match", "W/\"1\"")], "B").await.status, 200);
    assert_eq!(put(&[("if-match", "W/\"1\"")], "C").await.status, 412);
    assert_eq!(put(&[("if-match", "W/\"x\"")], "C").await.status, 412);
    assert_eq!(put(&[("if-match", "2")], "C").await.status, 400);

    let known = app.send(Method::GET, path, &[("if-none-match", "W/\"2\"")], "").await;
    assert_eq!((known.status, known.text.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(known.header("etag"), Some("W/\"2\""));
    let old = app.send(Method::GET, path, &[("if-none-match", "W/\"1\"")], "").await;
    assert_eq!(old.status, 200);

    let stale = app.send(Method::DELETE, path, &[("if-match", "W/\"1\"")], "").await;
    assert_eq!(stale.status, 412);
    let deleted = app.send(Method::DELETE, path, &[("if-match", "W/\"2\"")], "").await;
    assert_eq!(deleted.status, 204);
    app.stop().await;
}

#[tokio::test]
async fn of_concurrent_writes_on_one_version_exactly_one_wins() {
    let app = App::start().await;
    app.put("/fhir/Patient/p1", &patient("p1", "0")).await;
    for version in 1..=20 {
        let tag = format!("W/\"{version}\"");
        let header = [("if-match", tag.as_str())];
        let writers = (0..4).map(|writer| {
            let body = patient("p1", &format!("{version}/{writer}")).to_string();
            app.send(Method::PUT, "/fhir/Patient/p1", &header, body)
        });
        let mut statuses: Vec<_> =
            join_all(writers).await.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412]);
    }
    app.stop().await;
}

#[tokio::test]
async fn what_the_caller_prefers_to_get_back() {
    let app = App::start().await;
    let prefer = async |value: &str, family: &str| {
        let body = patient("p1", family).to_string();
        app.send(Method::PUT, "/fhir/Patient/p1", &[("prefer", value)], body).await
    };
    let minimal = prefer("return=minimal", "A").await;
    assert_eq!((minimal.status, minimal.text.as_str()), (StatusCode::CREATED, ""));
    assert_eq!(prefer("return=representation", "B").await.json()["resourceType"], "Patient");
    let (code, why, _) = prefer("return=OperationOutcome", "C").await.issue();
    assert_eq!(
        (code.as_str(), why.as_str()),
        ("informational", "Patient/p1 was updated to version 3")
    );
    app.stop().await;
}

#[tokio::test]
async fn the_capability_statement() {
    let app = App::start().await;
    let answer = app.get("/fhir/metadata?_format=json").await;
    assert_eq!(answer.status, 200);
    let statement = answer.json();
    assert_eq!(statement["resourceType"], "CapabilityStatement");
    assert_eq!(statement["fhirVersion"], "4.0.1");
    app.stop().await;
}
