//! curl, which many will try it with.

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
};
use support::{
    App,
    certificate::Issued,
    embedded,
    writes::{commit, patient, put},
};

use crate::{PATIENTS, populate};

/// A curl that follows a stream. It ends when dropped.
struct Curl {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Curl {
    fn follow(arguments: &[&str], url: &str) -> Self {
        let mut curl = Command::new("curl");
        curl.args(["-sN", "--max-time", "60", "-H", "Accept: text/event-stream", "--compressed"]);
        let child = curl.args(arguments).arg(url).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("curl (Debian: curl)");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        Self { child, lines }
    }

    fn until(&mut self, part: &str) {
        let mut lines = self.lines.by_ref().map(|line| line.expect("text"));
        assert!(lines.any(|line| line.contains(part)), "no '{part}'");
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The version that an answer came by.
fn version(arguments: &[&str], url: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]);
    let out = curl.args(arguments).arg(url).output().expect("curl (Debian: curl)");
    String::from_utf8(out.stdout).expect("text")
}

async fn follows(app: &App, store: &dyn fhirtail::store::Store, arguments: &[&str]) {
    let mut curl = Curl::follow(arguments, &app.url(PATIENTS));
    curl.until("event: caught-up");
    commit(store, vec![put(&patient(7, "changed"))]).await;
    curl.until("changed");
    assert_eq!(version(arguments, &app.url(PATIENTS)), "200 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_prior_knowledge() {
    let bench = embedded();
    populate(&bench.store, 3, 5_000).await;
    let app = App::start(bench.store.clone()).await;
    follows(&app, bench.store.as_ref(), &["--http2-prior-knowledge"]).await;
    // Asked to upgrade, it stays with HTTP/1.1, on the same port.
    assert_eq!(version(&["--http2"], &app.url("/livez")), "200 1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls() {
    let (bench, issued) = (embedded(), Issued::fresh());
    populate(&bench.store, 3, 5_000).await;
    let arguments = issued.arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let app = App::with(bench.store.clone(), &arguments).await;
    let cert = issued.cert();
    follows(&app, bench.store.as_ref(), &["--cacert", &cert]).await;
    assert_eq!(version(&["--cacert", &cert, "--http1.1"], &app.url("/livez")), "200 1.1");
    assert_eq!(version(&["--cacert", &cert, "--tls-max", "1.2"], &app.url("/livez")), "200 2");
}
