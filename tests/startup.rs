//! A server that can't start says why in one line, without a password, soon, with status 1.
#![allow(clippy::expect_used, clippy::panic)]

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use mongodb::bson::doc;
use support::{
    certificate::Issued,
    mongod::{Standalone, shared},
    process::Ended,
};

/// The driver waits 5 s for a server.
const SOON: Duration = Duration::from_secs(8);

/// Much longer than it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The one line that a server says which does not start.
fn refusal(arguments: &[&str]) -> String {
    let start = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_fhirtail"))
        .arg("serve")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary");
    let took = start.elapsed();
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(took < SOON, "{took:?}: {said}");
    assert!(output.stdout.is_empty() && said.lines().count() == 1, "{said}");
    assert!(said.starts_with("fhirtail: ") && !said.contains("s3cret"), "{said}");
    said
}

fn refused_store(store: &str) -> String {
    refusal(&["--listen", "127.0.0.1:0", "--store", store])
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "no '{part}' in: {said}");
    }
}

#[test]
fn a_standalone_mongod() {
    let Some(alone) = Standalone::start(&[]) else { return };
    let said = refused_store(&format!("mongodb://127.0.0.1:{}/fhir", alone.node.port));
    assert_says(&said, &["standalone", "rs.initiate()"]);
}

#[tokio::test]
async fn a_wrong_password() {
    let Some(alone) = Standalone::start(&["--auth"]) else { return };
    let admin = alone.node.client().await.database("admin");
    let user = doc! {"createUser": "me", "pwd": "right", "roles": ["root"]};
    admin.run_command(user).await.expect("a user");
    let at = format!("127.0.0.1:{}/fhir?authSource=admin", alone.node.port);
    let said = refused_store(&format!("mongodb://me:s3cret@{at}"));
    assert_says(&said, &["refuses the login"]);
}

#[tokio::test]
async fn a_replica_set_of_another_name() {
    let Some(set) = shared().await else { return };
    let uri = set.uri("fhir").replace("rs0", "other");
    assert_says(&refused_store(&uri), &["no MongoDB answers at 127.0.0.1:"]);
}

#[test]
fn nobody_there() {
    let port = free_port();
    let said = refused_store(&format!("mongodb://me:s3cret@127.0.0.1:{port}/fhir"));
    assert_says(&said, &[&format!("no MongoDB answers at 127.0.0.1:{port}"), "refused"]);
}

#[test]
fn uris_that_name_nothing() {
    let said = refused_store("mongodb://me:s3cret@127.0.0.1:27017");
    assert_says(&said, &["names no database", "mongodb://host:27017/DATABASE"]);
    for nonsense in [
        "mongodb://",
        "mongodb://me:s3cret/x@host/fhir",
        "mongodb://me:s3cret@host:port/fhir",
        "mongodb://me:s3cret@host/fhir?nonsense=1",
        "mongodb://me:s3cret@host/a b",
    ] {
        assert_says(&refused_store(nonsense), &["the MongoDB URI can't be read"]);
    }
    let said = refused_store("mysql://me:s3cret@host/fhir");
    assert_says(&said, &["a store is a directory, mongodb://…"]);
}

#[test]
fn a_directory_that_is_none() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let name = file.path().to_str().expect("a path");
    assert_says(&refused_store(name), &[name, "is not a directory"]);
}

#[test]
fn a_directory_that_may_not_be_written() {
    // Not even root makes a directory there.
    let name = "/sys/fhirtail";
    assert_says(&refused_store(name), &["no permission to read and write", name]);
}

#[test]
fn a_store_that_another_server_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().to_str().expect("a path");
    let _server = support::process::Process::serve(name, &[]);
    assert_says(&refused_store(name), &[name, "in use by another process"]);
}

#[test]
fn a_public_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().to_str().expect("a path");
    let said = refusal(&["--listen", "0.0.0.0:0", "--store", name]);
    assert_says(&said, &["0.0.0.0:0", "--insecure-public"]);
}

#[test]
fn a_port_in_use() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("its address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().to_str().expect("a path");
    let said = refusal(&["--listen", &address, "--store", name]);
    assert_says(&said, &["can't listen on", &address, "in use"]);
}

#[test]
fn certificates_that_are_none() {
    let (issued, other) = (Issued::fresh(), Issued::fresh());
    let (cert, key) = (issued.cert(), issued.key());
    let text = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(text.path(), "no certificate, and no key").expect("written");
    let text = text.path().to_str().expect("a path");
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().to_str().expect("a path");
    let cut = tempfile::NamedTempFile::new().expect("a file");
    let whole = std::fs::read_to_string(&cert).expect("a certificate");
    std::fs::write(cut.path(), &whole[..whole.len() / 2]).expect("written");
    let cut = cut.path().to_str().expect("a path");
    let (no_cert, no_key) =
        ("there is no certificate in it", "there is no unencrypted private key");
    let refused: [(&str, &str, &[&str]); 8] = [
        ("/nowhere/tls.crt", &key, &["--tls-cert /nowhere/tls.crt", "No such file"]),
        (&cert, "/nowhere/tls.key", &["--tls-key /nowhere/tls.key", "No such file"]),
        (folder, &key, &["--tls-cert", folder, "Is a directory"]),
        (text, &key, &["--tls-cert", text, no_cert]),
        (cut, &key, &["--tls-cert", cut, no_cert]),
        (&cert, text, &["--tls-key", text, no_key]),
        (&cert, &cert, &["--tls-key", &cert, no_key]),
        (&cert, &other.key(), &["the key in", &other.key(), "is not that of the first", &cert]),
    ];
    for (cert, key, parts) in refused {
        let said = refusal(&["--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key]);
        assert_says(&said, parts);
    }
}

#[test]
fn half_of_what_tls_needs() {
    for (given, wanted) in [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")] {
        let output = Command::new(env!("CARGO_BIN_EXE_fhirtail"))
            .args(["serve", given, "/nowhere"])
            .output()
            .expect("the binary");
        assert_eq!(output.status.code(), Some(2));
        assert_says(&String::from_utf8(output.stderr).expect("text"), &[wanted]);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// Before it serves, a demo writes what it shows: stopped meanwhile it leaves nothing behind.
#[test]
fn a_demo_that_is_stopped_before_it_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_fhirtail"));
    demo.args(["demo", "--patients", "9999999", "--listen", "127.0.0.1:0"]);
    let mut demo = Ended(demo.env("TMPDIR", folder.path()).spawn().expect("the binary"));
    let is_empty = || std::fs::read_dir(folder.path()).expect("a folder").next().is_none();
    let deadline = Instant::now() + PATIENCE;
    // What hears the signal is there before the first resource is.
    let writes = || {
        let files = std::fs::read_dir(folder.path()).expect("a folder").flatten();
        let file = |entry: std::fs::DirEntry| entry.path().join("fhirtail.redb").metadata();
        files.filter_map(|entry| file(entry).ok()).any(|file| file.len() > 8 << 20)
    };
    while !writes() {
        assert!(Instant::now() < deadline, "it writes nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-TERM", &demo.0.id().to_string()]).status();
    assert!(sent.expect("kill").success());
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match demo.0.try_wait().expect("a process") {
            Some(ended) => break ended,
            None => assert!(Instant::now() < deadline, "it does not end"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(ended.success() && is_empty(), "{ended}");
}
