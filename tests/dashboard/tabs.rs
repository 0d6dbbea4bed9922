//! How many streams a browser has to one server: six, for all its tabs, over HTTP/1.1; as many as
//! there are tabs over HTTP/2, which the proxies of `docker/` speak to it.

use std::{future::Future, time::Instant};

use serde_json::json;

use crate::{
    browser::Browser,
    support::{
        self, App, client,
        front::{CADDY, HAPROXY, NGINX},
        stream::PATIENCE,
        writes::{commit, patient, put},
    },
};

/// As if so many tabs had a stream each.
const TABS: usize = 12;
/// To one server, whatever the tab.
const CONNECTIONS: usize = 6;

const OPEN: &str = "
    globalThis.tabs = Array.from({length: arguments_}, () => new EventSource('/fhir/$export?_type=Patient'));
    globalThis.levels = new Set();
    tabs.forEach(tab => tab.addEventListener('caught-up', () => levels.add(tab)));";

async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
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
    let opened = "tabs.filter(tab => tab.readyState === EventSource.OPEN).length";
    assert_eq!(browser.run(&format!("return [other, {opened}]")).await, json!([null, CONNECTIONS]));
    browser.run("tabs.filter(tab => levels.has(tab)).forEach(tab => tab.close())").await;
    browser.wait(&format!("levels.size === {TABS} && other === null")).await;
    browser.run("tabs.forEach(tab => tab.close())").await;
    browser.wait("other").await;

    for kind in [&NGINX, &HAPROXY, &CADDY] {
        let front = kind.start([app.address.port(); 2]);
        let livez = front.url("/livez");
        until("the proxy answers", || async {
            client().get(&livez).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        browser.open(&front.secure_url("/livez")).await;
        browser.run(&open).await;
        browser.wait(&format!("levels.size === {TABS} && {opened} === {TABS}")).await;
        let spoken = browser
            .run("return fetch('/livez').then(() => performance.getEntriesByType('resource').pop().nextHopProtocol)")
            .await;
        assert_eq!(spoken, "h2", "{}", kind.name);
        // What is written comes to all of them, and HTTP/2 holds nothing back.
        browser
            .run("globalThis.heard = 0; tabs.forEach(tab => tab.addEventListener('Patient', () => heard++))")
            .await;
        let start = Instant::now();
        commit(&*bench.store, vec![put(&patient(1, kind.name))]).await;
        browser.wait(&format!("heard === {TABS}")).await;
        println!("{}: {TABS} streams heard of a change within {:?}", kind.name, start.elapsed());
        browser.open("about:blank").await;
    }
    app.stop().await;
}
