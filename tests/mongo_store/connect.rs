//! Every way in which connecting fails, in one clear line.

use fhirtail::store::{
    Store,
    mongo::{ConnectError, MongoOptions, MongoStore},
};
use mongodb::bson::doc;
use support::mongod::{ReplicaSet, Standalone, fresh_database, shared};

use crate::tools::{open, patient};

async fn refused(uri: &str) -> ConnectError {
    let error = MongoStore::connect(uri, MongoOptions::default()).await.expect_err("refused");
    let line = error.to_string();
    assert!(!line.contains('\n') && !line.contains("s3cret"), "{line}");
    error
}

#[tokio::test]
async fn a_standalone_is_told_what_to_do() {
    let Some(alone) = Standalone::start(&[]) else { return };
    let error = refused(&format!("mongodb://127.0.0.1:{}/fhir", alone.node.port)).await;
    assert!(matches!(error, ConnectError::Standalone { .. }), "{error:?}");
    assert!(error.to_string().contains("rs.initiate()"), "{error}");
}

#[tokio::test]
async fn a_set_that_was_never_initiated() {
    let Some(ghost) = Standalone::start(&["--replSet", "rs0"]) else { return };
    let port = ghost.node.port;
    let uri = format!("mongodb://127.0.0.1:{port}/fhir?serverSelectionTimeoutMS=2000");
    let error = refused(&uri).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("rs.initiate()"), "{error}");
}

#[tokio::test]
async fn nobody_there() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let uri = format!("mongodb://me:s3cret@127.0.0.1:{port}/fhir");
    let error = refused(&uri).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    let line = format!("no MongoDB answers at 127.0.0.1:{port}: I/O error: Connection refused");
    assert!(error.to_string().starts_with(&line), "{error}");
}

#[tokio::test]
async fn a_wrong_password() {
    let Some(alone) = Standalone::start(&["--auth"]) else { return };
    let admin = alone.node.client().await.database("admin");
    let user = doc! {"createUser": "me", "pwd": "right", "roles": ["root"]};
    admin.run_command(user).await.expect("a user");
    let at = format!("127.0.0.1:{}/fhir?authSource=admin", alone.node.port);
    let error = refused(&format!("mongodb://me:s3cret@{at}")).await;
    assert!(matches!(error, ConnectError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn an_epoch_belongs_to_a_database_of_a_set() {
    let Some(set) = shared().await else { return };
    let (one, two) = (fresh_database(), fresh_database());
    let first = open(set, &one).await;
    assert_eq!(first.epoch(), open(set, &one).await.epoch());
    assert_ne!(first.epoch(), open(set, &two).await.epoch());
    let description = first.describe();
    assert!(description.contains("rs0") && description.contains(&one), "{description}");
}

/// A node that steps down while it is asked which set it is: no epoch is better than another one.
#[tokio::test]
async fn an_epoch_is_never_another_because_of_a_failover() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let epoch = open(&set, "fhir").await.epoch();
    let away = doc! {"failCommands": ["replSetGetConfig"], "errorCode": 11602};
    set.fail_command(doc! {"times": 1}, away).await;
    let connected = MongoStore::connect(&set.uri("fhir"), MongoOptions::default()).await;
    assert!(connected.as_ref().is_ok_and(|store| store.epoch() == epoch), "{connected:?}");
    // Of one who may not ask, the epoch is another, and always the same.
    let refused = doc! {"failCommands": ["replSetGetConfig"], "errorCode": 13};
    set.fail_command(doc! {"times": 2}, refused).await;
    let other = open(&set, "fhir").await.epoch();
    assert!(other != epoch && open(&set, "fhir").await.epoch() == other);
}

#[tokio::test]
async fn before_images_are_asked_for_where_they_are_off() {
    let Some(set) = shared().await else { return };
    let name = fresh_database();
    let db = set.client().await.database(&name);
    db.create_collection("Patient").await.expect("a collection");
    let store = open(set, &name).await;
    let (patient, group) = (crate::tools::ty("Patient"), crate::tools::ty("Group"));
    assert_eq!(store.before_images(group), Ok(()));
    let sentence = store.before_images(patient).expect_err("they are off");
    assert!(sentence.contains(r#"db.runCommand({collMod: "Patient", changeStream"#), "{sentence}");
    let images = doc! {"enabled": true};
    db.run_command(doc! {"collMod": "Patient", "changeStreamPreAndPostImages": images})
        .await
        .expect("switched on");
    store.snapshot().await.expect("a snapshot lists anew");
    assert_eq!(store.before_images(patient), Ok(()));
}

/// The driver keeps to a node that is named so, whatever it is.
#[tokio::test]
async fn a_node_of_its_own_that_is_no_primary() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let uri = set.nodes[0].direct_uri().replace("/admin?", "/fhir?");
    let connect = || MongoStore::connect(&uri, MongoOptions::default());
    connect().await.expect("a primary");
    let admin = set.nodes[0].client().await.database("admin");
    let tell = async |command| admin.run_command(command).await.expect("done");
    tell(doc! {"replSetStepDown": 600, "force": true}).await;
    let error = refused(&uri).await;
    assert!(matches!(error, ConnectError::NoPrimary { .. }), "{error:?}");
    tell(doc! {"replSetFreeze": 0}).await;
    connect().await.expect("a primary again");
}

/// Who may not read the oplog is not told how far it reaches, and all else goes on.
#[tokio::test]
async fn an_oplog_that_may_not_be_read() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let store = open(&set, "fhir").await;
    assert!(store.oldest().await.expect("an answer").is_some());
    let unauthorized = doc! {"failCommands": ["find"], "errorCode": 13, "appName": "fhirtail"};
    set.fail_command(doc! {"times": 1}, unauthorized).await;
    assert_eq!(store.oldest().await.expect("an answer"), None);
    assert!(store.oldest().await.expect("an answer").is_some());
}

/// What reads prefer is no matter of writes.
#[tokio::test]
async fn who_prefers_to_read_elsewhere_writes_to_the_primary() {
    let Some(set) = shared().await else { return };
    let uri = format!("{}&readPreference=secondaryPreferred", set.uri(&fresh_database()));
    let store = MongoStore::connect(&uri, MongoOptions::default()).await.expect("a store");
    store.commit(vec![patient("a", 1)]).await.expect("committed");
}

#[tokio::test]
async fn a_database_of_mongodb_s_own() {
    for name in ["admin", "config", "local"] {
        let error = refused(&format!("mongodb://127.0.0.1:1/{name}")).await;
        assert!(matches!(error, ConnectError::NotOurs(_)), "{error:?}");
    }
}
