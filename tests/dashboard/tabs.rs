//! How many streams a browser has to one server: six, for all its tabs, over HTTP/1.1; as many as
//! there are tabs over HTTP/2, which fhirtail speaks to it, and the proxies of `docker/` do.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde_json::json;
use support::{
    self, App, Bench,
    certificate::Issued,
    client,
    front::{CADDY, HAPROXY, NGINX},
    stream::PATIENCE,
    writes::{commit, patient, put},
};

use crate::browser::Browser;

/// As if so many tabs had a stream each.
const TABS: usize = 12;
/// To one server, whatever the tab.
const CONNECTIONS: usize = 6;

const OPEN: &str = "
    globalThis.tabs = Array.from({length: arguments_}, () => new EventSource('/fhir/$export?_type=Patient'));
    globalThis.levels = new Set();
    tabs.forEach(tab => tab.addEventListener('caught-up', () => levels.add(tab)));";

const OPENED: &str = "tabs.filter(tab => tab.readyState === EventSource.OPEN).length";

const HEAR: &str = "
    globalThis.heard = 0;
    tabs.forEach(tab => tab.addEventListener('Patient', () => heard++))";

async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn six_over_http_1_and_all_over_http_2() {
    let bench = support::embedded();
    commit(&*bench.store, vec![put(&patient(1, "x"))]).await;
    let app = App::start(bench.store.clone()).await;
    let browser = Browser::trusting().await;
    let open = OPEN.replace("arguments_", &TABS.to_string());

    browser.open(&app.url("/livez")).await;
    browser.run(&open).await;
    browser.wait(&format!("levels.size === {CONNECTIONS}")).await;
    // No more, nor anything else of that server, until one goes.
    browser.run("globalThis.other = null; fetch('/livez').then(() => { other = true })").await;
    assert_eq!(browser.run(&format!("return [other, {OPENED}]")).await, json!([null, CONNECTIONS]));
    browser.run("tabs.filter(tab => levels.has(tab)).forEach(tab => tab.close())").await;
    browser.wait(&format!("levels.size === {TABS} && other === null")).await;
    browser.run("tabs.forEach(tab => tab.close())").await;
    browser.wait("other").await;

    let issued = Issued::fresh();
    let arguments = issued.arguments();
    let own = App::with(bench.store.clone(), &arguments.each_ref().map(String::as_str)).await;
    all_over_http_2(&browser, &bench, "fhirtail", &own.url("/livez")).await;
    for kind in [&NGINX, &HAPROXY, &CADDY] {
        let front = kind.start([app.address.port(); 2]);
        let livez = front.url("/livez");
        until("the proxy answers", || async {
            client().get(&livez).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        all_over_http_2(&browser, &bench, kind.name, &front.secure_url("/livez")).await;
    }
    app.stop().await;
    own.stop().await;
}

async fn all_over_http_2(browser: &Browser, bench: &Bench, name: &str, url: &str) {
    browser.open(url).await;
    browser.run(&OPEN.replace("arguments_", &TABS.to_string())).await;
    browser.wait(&format!("levels.size === {TABS} && {OPENED} === {TABS}")).await;
    let protocol = "return performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.run(protocol).await, "h2", "{name}");
    // What is written comes to all of them, and HTTP/2 holds nothing back.
    browser.run(HEAR).await;
    commit(&*bench.store, vec![put(&patient(1, name))]).await;
    browser.wait(&format!("heard === {TABS}")).await;
    browser.open("about:blank").await;
}

/// The dashboard itself, encrypted.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_over_tls() {
    let (bench, issued) = (support::embedded(), Issued::fresh());
    let arguments = issued.arguments();
    let app = App::with(bench.store.clone(), &arguments.each_ref().map(String::as_str)).await;
    let browser = Browser::trusting().await;
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    browser.assert_sound().await;
}
