//! Rules that somebody gave the database: unique indexes and validators.

use fhirtail::store::{Rule, WriteError};
use mongodb::bson::doc;
use reqwest::{Client, Method, Response, header::RETRY_AFTER};
use serde_json::{Value, json};
use support::{client, logged::Logged};

use crate::tools::{Bench, bench, delete, patient, put, ty};

/// Begins what no answer and no log may repeat.
const SECRET: &str = "SECRET";

fn numbered(id: &str, number: &str) -> Value {
    json!({"resourceType": "Patient", "id": id, "identifier": [{"value": number}]})
}

async fn make_unique(bench: &Bench, member: &str) {
    let index = doc! {"key": {member: 1}, "name": "number", "unique": true};
    let command = doc! {"createIndexes": "Patient", "indexes": [index]};
    bench.db.run_command(command).await.expect("an index");
}

async fn demand(bench: &Bench, member: &str) {
    let validator = doc! {"$jsonSchema": {"required": [member]}};
    let command = doc! {"collMod": "Patient", "validator": validator};
    bench.db.run_command(command).await.expect("a validator");
}

/// A server on the database, as a process of its own.
struct Served {
    server: Logged,
    client: Client,
}

impl Served {
    fn of(bench: &Bench) -> Self {
        let server = Logged::serve(&bench.set.uri(bench.db.name()), &["--drain", "0.05"]);
        Self { server, client: client() }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Response {
        let request = self.client.request(method, self.server.url(path)).body(body.to_string());
        request.header("content-type", "application/fhir+json").send().await.expect("an answer")
    }

    async fn accepted(&self, method: Method, path: &str, body: &Value) {
        let answer = self.send(method, path, body).await;
        let status = answer.status();
        assert!(status.is_success(), "{status} {}", answer.text().await.expect("a body"));
    }

    /// What is said with a refusal of this status and code.
    async fn refused(&self, as_: (u16, &str), method: Method, path: &str, body: &Value) -> String {
        let answer = self.send(method, path, body).await;
        let (status, wait) = (answer.status(), answer.headers().get(RETRY_AFTER).cloned());
        let text = answer.text().await.expect("a body");
        assert_eq!((status.as_u16(), wait), (as_.0, None), "{text}");
        assert!(!text.contains(SECRET), "{text}");
        let outcome: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(outcome["issue"][0]["code"], as_.1, "{text}");
        outcome["issue"][0]["diagnostics"].as_str().expect("a text").to_owned()
    }

    /// Ends it. Its log repeats nothing.
    fn end(mut self) {
        self.server.signal("-TERM");
        let lines = self.server.lines.by_ref().map(|line| line.expect("text"));
        let lines: Vec<_> = lines.filter(|line| line.contains(SECRET)).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }
}

fn transaction(entries: &[(&str, &str, Option<Value>)]) -> Value {
    let entries = entries.iter().map(|(method, url, resource)| {
        json!({"request": {"method": method, "url": url}, "resource": resource})
    });
    let mut bundle = json!({"resourceType": "Bundle", "type": "transaction"});
    bundle["entry"] = entries.map(without_null).collect();
    bundle
}

fn without_null(mut entry: Value) -> Value {
    entry.as_object_mut().expect("an object").retain(|_, member| !member.is_null());
    entry
}

/// How often the server was sent this command for patients, since it was told to take notes.
async fn sent(bench: &Bench, command: &str) -> u64 {
    let notes = bench.collection("system.profile");
    let of = doc! {"op": command, "ns": format!("{}.Patient", bench.db.name())};
    notes.count_documents(of).await.expect("a count")
}

#[tokio::test]
async fn a_unique_index_refuses_at_once_and_for_good() {
    let Some(bench) = bench().await else { return };
    make_unique(&bench, "identifier.value").await;
    let served = Served::of(&bench);
    let (first, second) = (format!("{SECRET}-1"), format!("{SECRET}-2"));
    for (id, number) in [("a", &first), ("b", &second)] {
        let path = format!("/fhir/Patient/{id}");
        served.accepted(Method::PUT, &path, &numbered(id, number)).await;
    }
    bench.db.run_command(doc! {"profile": 2}).await.expect("it takes notes");
    let duplicate = (409, "duplicate");

    let (post, put) = (Method::POST, Method::PUT);
    let another = numbered("x", &first);
    let why = served.refused(duplicate, post.clone(), "/fhir/Patient", &another).await;
    assert!(why.contains(r#"{ "identifier.value": 1 }"#), "{why}");
    let changed = numbered("b", &first);
    let why = served.refused(duplicate, put.clone(), "/fhir/Patient/b", &changed).await;
    assert!(why.contains(r#"{ "identifier.value": 1 }"#), "{why}");
    bench.db.run_command(doc! {"profile": 0}).await.expect("it takes none");
    assert_eq!((sent(&bench, "insert").await, sent(&bench, "update").await), (1, 1), "one try");

    let free = Some(numbered("c", "free"));
    let bundle = transaction(&[
        ("PUT", "Patient/c", free),
        ("DELETE", "Patient/nobody", None),
        ("PUT", "Patient/b", Some(changed)),
    ]);
    let why = served.refused(duplicate, post.clone(), "/fhir", &bundle).await;
    assert!(why.starts_with("Bundle.entry[2]: "), "{why}");
    let nothing = json!(null);
    served.refused((404, "not-found"), Method::GET, "/fhir/Patient/c", &nothing).await;

    served.accepted(put, "/fhir/Patient/b", &numbered("b", "other")).await;
    // What is deleted makes room for what is created with it.
    let moved = transaction(&[
        ("POST", "Patient", Some(numbered("x", &first))),
        ("DELETE", "Patient/a", None),
    ]);
    served.accepted(post, "/fhir", &moved).await;
    served.end();
}

#[tokio::test]
async fn a_validator_refuses_and_repeats_nothing() {
    let Some(bench) = bench().await else { return };
    bench.db.create_collection("Patient").await.expect("a collection");
    demand(&bench, "gender").await;
    let served = Served::of(&bench);
    let (rule, path) = ((422, "business-rule"), "/fhir/Patient/a");
    let mut patient = numbered("a", SECRET);
    let why = served.refused(rule, Method::PUT, path, &patient).await;
    assert!(why.contains("validator"), "{why}");
    patient["gender"] = "other".into();
    served.accepted(Method::PUT, path, &patient).await;
    demand(&bench, "birthDate").await;
    patient["active"] = true.into();
    served.refused(rule, Method::PUT, path, &patient).await;
    patient["birthDate"] = "1970".into();
    served.accepted(Method::PUT, path, &patient).await;
    served.end();
}

/// A rule is told with the write that broke it, whatever command that was part of.
#[tokio::test]
async fn a_broken_rule_names_its_write() {
    let Some(bench) = bench().await else { return };
    bench.commit((0..4).map(|n| patient(&n.to_string(), n)).collect()).await.expect("written");
    make_unique(&bench, "multipleBirthInteger").await;
    let group = || put(r#"{"resourceType":"Group","id":"g"}"#);
    for (writes, expected) in [
        (vec![delete("Patient", "0"), group(), patient("8", 8), patient("9", 1)], 3),
        (vec![patient("8", 8), patient("2", 9), patient("3", 1), group()], 2),
    ] {
        match bench.commit(writes).await {
            Err(WriteError::Rule { index, rule: Rule::Unique(keys) }) => {
                assert_eq!(index, Some(expected));
                assert_eq!(keys, r#"{ "multipleBirthInteger": 1 }"#);
            }
            other => panic!("{other:?}"),
        }
    }
    let snapshot = bench.snapshot().await;
    assert!(snapshot.read(ty("Group"), "g").await.expect("read").is_none());
    assert!(snapshot.read(ty("Patient"), "0").await.expect("read").is_some());
}
