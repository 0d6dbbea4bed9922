//! Why HTTP/2: a browser has six connections to a server that speaks HTTP/1.1, and an EventSource
//! keeps one for itself.

use crate::{
    browser::Browser,
    support::{
        App,
        certificate::Issued,
        embedded,
        writes::{commit, patient, put},
    },
};

/// Ten tabs' worth of streams, each told of.
const TEN: &str = "
    globalThis.level = new Set();
    globalThis.heard = new Set();
    globalThis.sources = Array.from({length: 10}, (_, n) => {
        const source = new EventSource('/fhir/$export?_type=Patient&_elements=id');
        source.addEventListener('caught-up', () => level.add(n));
        source.addEventListener('Patient', () => heard.add(n));
        return source;
    });
";

async fn open_ten(arguments: &[&str], most: usize) {
    let bench = embedded();
    let app = App::with(bench.store.clone(), arguments).await;
    let browser = Browser::trusting().await;
    browser.open(&app.url("/streams")).await;
    browser.run(TEN).await;
    browser.wait(&format!("level.size === {most}")).await;
    if most < 10 {
        // The others wait at the browser: nobody else gets an answer either.
        let asked = "return Promise.race([
            fetch('/livez').then(() => 'answered'),
            new Promise(done => setTimeout(done, 500, 'waits')),
        ])";
        assert_eq!(browser.run(asked).await, "waits");
        assert_eq!(browser.run("return level.size").await, most);
        return;
    }
    commit(bench.store.as_ref(), vec![put(&patient(1, "x"))]).await;
    browser.wait("heard.size === 10").await;
    assert_eq!(browser.run("return fetch('/livez').then(answer => answer.status)").await, 200);
    let protocol = "return performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.run(protocol).await, "h2");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_streams_of_http1_are_six() {
    open_ten(&[], 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_streams_of_http2_are_ten() {
    let issued = Issued::new();
    let arguments = issued.arguments();
    open_ten(&arguments.each_ref().map(String::as_str), 10).await;
}

/// The dashboard itself, encrypted.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_over_tls() {
    let (bench, issued) = (embedded(), Issued::new());
    let arguments = issued.arguments();
    let app = App::with(bench.store.clone(), &arguments.each_ref().map(String::as_str)).await;
    let browser = Browser::trusting().await;
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    browser.assert_sound().await;
}
