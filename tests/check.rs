//! `fhirtail check` against real deployments: what it says, its status, and that it leaves
//! nothing behind.
#![allow(clippy::expect_used, clippy::panic)]

use std::{
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Command, Output},
};

use mongodb::{
    Client, Database,
    bson::{Bson, DateTime, Document, doc, oid::ObjectId},
};
use serde_json::Value;
use support::mongod::{ReplicaSet, Standalone, fresh_database, shared};

fn run(store: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fhirtail"))
        .args(["check", "--store", store])
        .args(arguments)
        .output()
        .expect("the binary")
}

/// What was found, and whether the status was 0.
struct Checked {
    findings: Vec<Value>,
    passed: bool,
}

impl Checked {
    fn of(store: &str) -> Self {
        let output = run(store, &["--json"]);
        let findings = serde_json::from_slice(&output.stdout);
        let findings: Vec<Value> = findings.expect("a JSON array");
        let checked = Self { findings, passed: output.status.success() };
        let failed = checked.findings.iter().any(|finding| finding["level"] == "fail");
        assert_eq!(checked.passed, !failed, "{:?}", checked.findings);
        checked
    }

    fn all(&self, check: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["check"] == check).collect()
    }

    /// The level of the one finding of this name, and its text.
    fn one(&self, check: &str) -> (&str, &str) {
        match self.all(check).as_slice() {
            [one] => (text(&one["level"]), text(&one["text"])),
            other => panic!("{check}: {other:?}"),
        }
    }

    fn mend(&self, check: &str) -> &str {
        text(&self.all(check).first().expect("a finding")["mend"])
    }

    /// The names and levels of what is not ok.
    fn not_ok(&self) -> Vec<(&str, &str)> {
        let odd = self.findings.iter().filter(|finding| finding["level"] != "ok");
        odd.map(|finding| (text(&finding["check"]), text(&finding["level"]))).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

async fn database(set: &ReplicaSet) -> (String, Database) {
    let name = fresh_database();
    (set.uri(&name), set.client().await.database(&name))
}

async fn names(db: &Database) -> Vec<String> {
    let mut names = db.list_collection_names().await.expect("a listing");
    names.sort();
    names
}

async fn insert(db: &Database, collection: &str, document: Document) {
    db.collection(collection).insert_one(document).await.expect("an insert");
}

async fn add_index(db: &Database, collection: &str) {
    let key = doc! {"meta.lastUpdated": 1, "_id": 1};
    let index = doc! {"key": key, "name": "by_time"};
    db.run_command(doc! {"createIndexes": collection, "indexes": [index]}).await.expect("an index");
}

async fn switch_images_on(db: &Database, collection: &str) {
    let images = doc! {"enabled": true};
    let command = doc! {"collMod": collection, "changeStreamPreAndPostImages": images};
    db.run_command(command).await.expect("images");
}

#[tokio::test]
async fn an_empty_database_of_a_replica_set_passes_and_stays_empty() {
    let Some(set) = shared().await else { return };
    let (uri, db) = database(set).await;
    let checked = Checked::of(&uri);
    assert!(checked.passed && checked.not_ok().is_empty(), "{:?}", checked.findings);
    for check in ["topology", "engine", "snapshot", "changes", "writing", "epoch", "oplog"] {
        assert_eq!(checked.one(check).0, "ok");
    }
    assert!(checked.one("epoch").1.contains("replica set's id"));
    assert!(names(&db).await.is_empty());
}

#[tokio::test]
async fn what_is_missing_is_slow_until_it_is_mended() {
    let Some(set) = shared().await else { return };
    let (uri, db) = database(set).await;
    insert(&db, "Patient", doc! {"_id": "1", "meta": {"lastUpdated": DateTime::now()}}).await;
    let checked = Checked::of(&uri);
    assert_eq!(checked.not_ok(), [("index", "slow"), ("images", "slow")]);
    assert!(checked.passed && checked.mend("index").starts_with("db.Patient.createIndex("));
    // There was an event, so its time is what the token is compared with.
    assert!(checked.one("tokens").1.contains("events' times"), "{:?}", checked.one("tokens"));

    add_index(&db, "Patient").await;
    assert_eq!(Checked::of(&uri).not_ok(), [("images", "slow")]);
    switch_images_on(&db, "Patient").await;
    assert!(Checked::of(&uri).not_ok().is_empty());
    assert_eq!(names(&db).await, ["Patient"]);
}

#[tokio::test]
async fn odd_documents_and_odd_collections_are_named() {
    let Some(set) = shared().await else { return };
    let (uri, db) = database(set).await;
    let dated = || doc! {"lastUpdated": DateTime::now()};
    insert(&db, "Patient", doc! {"_id": 7, "meta": dated()}).await;
    insert(&db, "Patient", doc! {"_id": "a", "meta": dated(), "id": "other"}).await;
    insert(&db, "Patient", doc! {"_id": "b", "meta": dated(), "id": "b"}).await;
    insert(&db, "Patient", doc! {"_id": "c", "meta": {"lastUpdated": "2024-01-01"}}).await;
    insert(&db, "Patient", doc! {"_id": "d"}).await;
    add_index(&db, "Patient").await;
    switch_images_on(&db, "Patient").await;
    db.create_collection("Basic").capped(true).size(4096_u64).await.expect("capped");
    db.run_command(doc! {"create": "Task", "viewOn": "Patient"}).await.expect("a view");
    let time = doc! {"timeField": "t"};
    db.run_command(doc! {"create": "List", "timeseries": time}).await.expect("a time series");
    let ttl = doc! {"key": {"birthDate": 1}, "name": "ttl", "expireAfterSeconds": 3600};
    db.run_command(doc! {"createIndexes": "Patient", "indexes": [ttl]}).await.expect("an index");
    insert(&db, "notes", doc! {}).await;
    insert(&db, "fhirtail_deleted", doc! {}).await;

    let checked = Checked::of(&uri);
    assert!(!checked.passed);
    let expected = [
        ("collection", "fail"),
        ("keys", "fail"),
        ("ids", "slow"),
        ("updated", "slow"),
        ("updated", "slow"),
    ];
    assert_eq!(checked.not_ok(), expected, "{:?}", checked.findings);
    for check in ["keys", "ids", "updated"] {
        let found = text(&checked.all(check)[0]["text"]);
        assert!(found.starts_with("Patient: 1 of 5 sampled"), "{found}");
    }
    let told: Vec<_> = checked.all("collection").iter().map(|one| text(&one["text"])).collect();
    for part in ["Basic is capped", "List is a time series", "Task is a view"] {
        assert!(told.iter().any(|text| text.starts_with(part)), "{part}: {told:?}");
    }
    assert!(checked.one("expiry").1.contains("birthDate after 3600 s"));
    let ignored = checked.one("ignored").1;
    assert!(ignored.ends_with("(1): notes"), "{ignored}");
}

#[tokio::test]
async fn a_text_and_an_object_id_that_read_the_same_are_named() {
    let Some(set) = shared().await else { return };
    let (uri, db) = database(set).await;
    let dated = |id: Bson| doc! {"_id": id, "meta": {"lastUpdated": DateTime::now()}};
    let [twin, lone, loud] =
        ["65f0c0ffee0000000000000a", "65f0c0ffee0000000000000b", "65F0C0FFEE0000000000000C"]
            .map(|digits| (digits, ObjectId::parse_str(digits).expect("digits")));
    for id in [twin.0.into(), lone.1.into(), loud.0.into(), loud.1.into(), 7.into(), Bson::Null] {
        insert(&db, "Patient", dated(id)).await;
    }
    assert!(Checked::of(&uri).all("twins").is_empty());
    insert(&db, "Patient", dated(twin.1.into())).await;
    let checked = Checked::of(&uri);
    let (level, found) = checked.one("twins");
    assert!(level == "fail" && found.starts_with("Patient: 2 of 7 sampled"), "{found}");
}

#[tokio::test]
async fn people_get_aligned_lines() {
    let Some(set) = shared().await else { return };
    let (uri, db) = database(set).await;
    insert(&db, "Patient", doc! {"_id": "1", "meta": {"lastUpdated": DateTime::now()}}).await;
    let output = run(&uri, &[]);
    let shown = String::from_utf8(output.stdout).expect("text");
    let mut lines = shown.lines();
    let starts = ["ok    ", "slow  ", "fail  ", "          "];
    let table = lines.by_ref().take_while(|line| !line.is_empty());
    for line in table {
        assert!(starts.iter().any(|start| line.starts_with(start)), "{line}");
    }
    let sum = lines.next().expect("a sum");
    assert!(sum.ends_with(" ok, 2 slow, 0 fail"), "{sum}");
    assert!(output.status.success());
}

/// A replica set that asks who one is, with its superuser.
struct Guarded {
    set: ReplicaSet,
    root: Client,
    _key: tempfile::TempDir,
}

impl Guarded {
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        write_key(&file);
        let file = file.to_str().expect("a path");
        let set = ReplicaSet::start(1, &["--keyFile", file]).await?;
        let admin = set.client().await.database("admin");
        let root = doc! {"createUser": "root", "pwd": "s3cret", "roles": ["root"]};
        admin.run_command(root).await.expect("the first user");
        let root = Client::with_uri_str(uri_of(&set, "root", "admin")).await.expect("a client");
        Some(Self { set, root, _key: folder })
    }

    /// A user of this name with roles on the database `fhir`.
    async fn add(&self, user: &str, roles: &[&str]) -> String {
        let role = |role: &&str| doc! {"role": *role, "db": "fhir"};
        let roles: Vec<Document> = roles.iter().map(role).collect();
        self.admin(doc! {"createUser": user, "pwd": "s3cret", "roles": roles}).await;
        uri_of(&self.set, user, "fhir")
    }

    async fn admin(&self, command: Document) {
        self.root.database("admin").run_command(command).await.expect("an admin command");
    }
}

fn write_key(file: &Path) {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let opened = options.create_new(true).write(true).mode(0o600).open(file);
    opened.and_then(|mut file| file.write_all(b"abcdefghijkl")).expect("a key");
}

fn uri_of(set: &ReplicaSet, user: &str, database: &str) -> String {
    let uri = set.uri(database).replace("mongodb://", &format!("mongodb://{user}:s3cret@"));
    format!("{uri}&authSource=admin")
}

#[tokio::test]
async fn rights_are_told_one_by_one() {
    let Some(guarded) = Guarded::start().await else { return };
    let fhir = guarded.root.database("fhir");

    let nobody = guarded.add("nobody", &[]).await;
    let checked = Checked::of(&nobody);
    for check in ["listing", "majority", "snapshot", "changes", "epoch"] {
        assert_eq!(checked.one(check).0, "fail", "{check}");
    }
    let grant =
        r#"db.getSiblingDB("admin").grantRolesToUser("nobody", [{role: "read", db: "fhir"}])"#;
    assert_eq!(checked.mend("snapshot"), grant);
    assert_eq!(checked.one("topology").0, "ok");
    assert!(checked.all("collections").is_empty(), "nobody knows whether there are any");

    let reader = guarded.add("reader", &["read"]).await;
    let checked = Checked::of(&reader);
    assert_eq!(checked.not_ok(), [("writing", "slow"), ("epoch", "fail")]);
    assert!(checked.mend("epoch").contains("clusterMonitor"), "{}", checked.mend("epoch"));
    assert!(checked.mend("oplog").contains(r#"{role: "read", db: "local"}"#));

    let writer = guarded.add("writer", &["readWrite"]).await;
    let checked = Checked::of(&writer);
    assert!(checked.not_ok().is_empty(), "{:?}", checked.findings);
    assert!(checked.one("epoch").1.contains("the first start makes it"));
    assert!(names(&fhir).await.is_empty());

    // What was said to help the reader helps it.
    let monitor = doc! {"role": "clusterMonitor", "db": "admin"};
    let local = doc! {"role": "read", "db": "local"};
    guarded.admin(doc! {"grantRolesToUser": "reader", "roles": [monitor, local]}).await;
    let checked = Checked::of(&reader);
    assert_eq!(checked.not_ok(), [("writing", "slow")]);
    assert!(checked.one("epoch").1.contains("replica set's id"));
    assert!(checked.one("oplog").1.contains("too young"), "{:?}", checked.one("oplog"));

    // Where the database holds the collection that stands for the log, it may only be read.
    fhir.create_collection("fhirtail").await.expect("a collection");
    let plain = guarded.add("plain", &["read"]).await;
    assert_eq!(Checked::of(&plain).not_ok(), [("writing", "slow")]);

    let stranger = uri_of(&guarded.set, "stranger", "fhir");
    let checked = Checked::of(&stranger);
    assert_eq!(checked.not_ok(), [("connection", "fail")]);
    let text = checked.one("connection").1;
    assert!(text.contains("refuses the login") && !text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn the_server_takes_the_commands_that_are_said_to_mend_it() {
    let short = ["--setParameter", "minSnapshotHistoryWindowInSeconds=5"];
    let Some(set) = ReplicaSet::start(1, &short).await else { return };
    let (uri, _) = database(&set).await;
    let checked = Checked::of(&uri);
    assert_eq!(checked.not_ok(), [("window", "slow")]);
    let mend = "db.adminCommand({setParameter: 1, minSnapshotHistoryWindowInSeconds: 300})";
    assert_eq!(checked.mend("window"), mend);
    set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 300}).await;
    assert!(Checked::of(&uri).not_ok().is_empty());
    set.admin(doc! {"replSetResizeOplog": 1, "minRetentionHours": 72}).await;
}

#[tokio::test]
async fn a_standalone_fails_once_and_its_collections_are_judged() {
    let Some(alone) = Standalone::start(&[]) else { return };
    let db = alone.node.client().await.database("fhir");
    insert(&db, "Patient", doc! {"_id": "1", "meta": {"lastUpdated": DateTime::now()}}).await;
    let checked = Checked::of(&format!("mongodb://127.0.0.1:{}/fhir", alone.node.port));
    let expected = [("topology", "fail"), ("index", "slow"), ("images", "slow")];
    assert_eq!(checked.not_ok(), expected);
    assert!(checked.mend("topology").contains("rs.initiate()"));
}

#[test]
fn nobody_there_and_nothing_to_read() {
    let nobody = "mongodb://me:s3cret@127.0.0.1:1/fhir?serverSelectionTimeoutMS=300";
    let checked = Checked::of(nobody);
    assert_eq!(checked.not_ok(), [("connection", "fail")]);
    assert!(!checked.one("connection").1.contains("s3cret"));
    assert_eq!(Checked::of("mongodb://127.0.0.1:1").not_ok(), [("connection", "fail")]);
    let checked = Checked::of("mysql://me:s3cret@host/fhir");
    assert_eq!(checked.not_ok(), [("store", "fail")]);
    assert!(!checked.one("store").1.contains("s3cret"));
}

#[test]
fn an_embedded_store_is_opened_or_left_to_its_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    let name = path.to_str().expect("a path");
    let checked = Checked::of(name);
    assert_eq!(checked.not_ok(), [("store", "fail")]);
    assert!(!path.exists(), "a check makes no store");

    let server = support::process::Process::serve(name, &[]);
    let checked = Checked::of(name);
    assert!(checked.passed && checked.one("store").1.contains("in use by another process"));
    drop(server);

    let checked = Checked::of(name);
    assert!(
        checked.passed && checked.one("store").1.contains(" opens, "),
        "{:?}",
        checked.findings
    );
    assert!(checked.one("log").1.ends_with("is empty"), "{:?}", checked.one("log"));
}

#[tokio::test]
async fn an_embedded_store_s_log_is_told() {
    use fhirtail::{
        fhir::{ResourceType, resource::Resource},
        store::{Action, Expect, Write},
    };
    let bench = support::embedded();
    for id in ["a", "b"] {
        let json = format!(r#"{{"resourceType":"Basic","id":"{id}"}}"#);
        let resource = Resource::parse(json.as_bytes()).expect("a resource");
        let ty = ResourceType::parse("Basic").expect("a type");
        let (id, action) = (id.into(), Action::Put(resource));
        let write = Write { ty, id, action, expect: Expect::Any };
        bench.store.commit(vec![write]).await.expect("a commit");
    }
    bench.store.close().await;
    let checked = Checked::of(&bench.name);
    assert!(checked.one("log").1.ends_with("holds the changes 1 to 2"), "{:?}", checked.one("log"));
}
