//! The page of open streams, as an operator has it open.

use serde_json::json;
use support::{
    App, embedded,
    stream::EventStream,
    writes::{commit, patient, put},
};

use crate::{
    access::{axe, faults},
    browser::Browser,
};

const ROWS: &str = "document.querySelectorAll('tbody tr').length";

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_page_keeps_itself_fresh() {
    let bench = embedded();
    commit(&*bench.store, vec![put(&patient(1, "x"))]).await;
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    let follow = async |query: &str| {
        let mut stream = EventStream::open(&app.url(&format!("/fhir/$export{query}")), None).await;
        stream.until("caught-up").await;
        stream
    };
    let first = follow("?_type=Patient").await;
    browser.open(&app.url("/streams")).await;
    browser.wait(&format!("{ROWS} === 1")).await;

    // What comes is shown on the page that is open: nobody loses their place.
    browser.run("globalThis.mark = document.querySelector('tbody td')").await;
    browser.run("document.querySelector('th a').focus()").await;
    let second = follow("?_type=Patient,Observation").await;
    browser.wait(&format!("{ROWS} === 2")).await;
    assert_eq!(browser.run("return document.activeElement.textContent").await, "Open for");
    assert_eq!(browser.run("return mark.isConnected").await, true);
    assert!(browser.run("return document.title").await.as_str().expect("text").starts_with('2'));

    // Paused it stays as it is, whatever comes.
    browser.run("document.getElementById('pause').click()").await;
    drop(second);
    let third = follow("?_type=Group").await;
    assert_eq!(browser.run(&format!("return {ROWS}")).await, 2);
    browser.run("document.getElementById('pause').click()").await;
    browser.wait("document.querySelector('tbody').textContent.includes('Group')").await;

    // Orders and searches are links and a form: the keyboard reaches them, and so does no script.
    browser.run("document.querySelector('th.query a').click()").await;
    browser.wait("document.querySelector('th.query')?.ariaSort === 'ascending'").await;
    browser.run(&axe()).await;
    for (name, width) in [("wide", 1600), ("narrow", 390)] {
        for scheme in ["light", "dark"] {
            browser.view(width, 900, scheme).await;
            browser.picture(&format!("streams-{name}-{scheme}")).await;
            assert_eq!(faults(&browser).await, json!([]), "{name} {scheme}");
        }
    }
    drop((first, third));
    browser.wait("document.querySelector('.empty') !== null").await;
    browser.assert_sound().await;
    app.stop().await;
    browser.wait("document.getElementById('trouble').textContent.includes('no answer')").await;
}
