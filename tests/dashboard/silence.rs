//! Connections that die without a word while the server answers on others: behind a balancer whose
//! server lost its power, or where a firewall has forgotten what it let through.

use serde_json::{Value, json};
use support::{
    App, Bench, embedded,
    proxy::Proxy,
    writes::{self, commit, patient},
};

use crate::{
    browser::Browser,
    cuts::{WATCH_ROWS, assert_never_empty},
    gaps::{gap, held, put, stored},
};

/// Notes the streams that the page opens from now on.
const NOTE: &str = "
    globalThis.others = [];
    globalThis.EventSource = class extends EventSource {
        constructor(url) { super(url); others.push(this); }
    };";

/// Some gaps, their server, and a proxy before it.
async fn ground(options: &[&str]) -> (Bench, App, Proxy) {
    let bench = embedded();
    let gaps = (0..5).map(|n| writes::put(&gap(n, 1, "open-gap")));
    commit(&*bench.store, gaps.collect()).await;
    let app = App::with(bench.store.clone(), options).await;
    let proxy = Proxy::to(app.address.port()).await;
    (bench, app, proxy)
}

/// A page that is live behind a proxy, by the one connection that there is, and doubts soon.
async fn live_by_one_connection(proxy: &Proxy) -> Browser {
    let browser = Browser::start().await;
    browser.open(&format!("http://127.0.0.1:{}/", proxy.port)).await;
    browser.until_live().await;
    proxy.cut();
    browser.until("page.stream.cuts > 0 && page.stream.isLive").await;
    browser.ask("{ page.stream.silence = page.stream.renewal = 1000 }").await;
    browser.run(WATCH_ROWS).await;
    browser
}

/// What the feed and the chart say of cuts.
async fn said_of_cuts(browser: &Browser) -> Value {
    browser
        .ask("[document.querySelectorAll('#feed-lines .note').length, page.trend.blind.length]")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_died_without_a_word_is_found_out() {
    let (bench, app, proxy) = ground(&["--retry", "0.3"]).await;
    let browser = live_by_one_connection(&proxy).await;
    let before = said_of_cuts(&browser).await;
    proxy.forget();
    commit(&*bench.store, vec![writes::put(&patient(1, "Missed"))]).await;
    browser.until("page.model.rows.get('p1').facts !== null && page.stream.isLive").await;
    // Nobody heard that there was a cut. What was missed comes once; if it takes long, that is said.
    const CALM: &str = "return phases.every(phase => ['live', 'resuming'].includes(phase))";
    assert_eq!(browser.run(CALM).await, true);
    browser.until("document.querySelectorAll('#feed-lines li:not(.note)').length === 1").await;
    assert_eq!(said_of_cuts(&browser).await, before);
    assert_eq!(held(&browser).await, stored(&*bench.store).await);
    assert_eq!(browser.ask("page.model.repeats").await, 0, "a version came twice");
    assert_never_empty(&browser).await;
    browser.assert_sound().await;
    app.stop().await;
}

/// Where all is well nobody sees that the page made sure, and it has one stream as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_is_made_sure_of_unseen() {
    let (bench, app, proxy) = ground(&["--retry", "0.3"]).await;
    let browser = live_by_one_connection(&proxy).await;
    let before = said_of_cuts(&browser).await;
    let level = browser.ask("page.stream.caughtUpAt").await;
    browser.until(&format!("page.stream.caughtUpAt > {level}")).await;
    const STREAMS: &str = "(await (await fetch('/streams.json')).json())";
    browser.wait(&format!("(async () => {STREAMS}.streams.length === 1)()")).await;
    put(&app.url(""), &gap(1, 1, "closed-gap")).await;
    browser.until("page.model.totals[2] === 1").await;
    assert_eq!(browser.run("return phases").await, json!(["live"]));
    assert_eq!(said_of_cuts(&browser).await, before);
    assert_eq!(held(&browser).await, stored(&*bench.store).await);
    assert_eq!(browser.ask("page.model.repeats").await, 0, "a version came twice");
    browser.assert_sound().await;
    app.stop().await;
}

/// Where there is no place for another stream beside it, the page goes on with the one that it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_made_sure_of_is_kept() {
    let (bench, app, proxy) = ground(&["--retry", "0.3", "--max-streams", "1"]).await;
    let browser = live_by_one_connection(&proxy).await;
    let position = browser.ask("page.stream.position").await;
    browser.run(NOTE).await;
    browser.wait("others.some(other => other.readyState === EventSource.CLOSED)").await;
    put(&app.url(""), &gap(1, 1, "closed-gap")).await;
    browser.until("page.model.totals[2] === 1").await;
    assert_eq!(browser.run("return phases").await, json!(["live"]));
    assert_ne!(browser.ask("page.stream.position").await, position);
    assert_eq!(browser.ask("page.stream.why").await, "");
    assert_eq!(held(&browser).await, stored(&*bench.store).await);
    assert_eq!(browser.ask("page.model.repeats").await, 0, "a version came twice");
    browser.assert_sound().await;
    app.stop().await;
}

/// A try that gets no answer says nothing of the next one, whoever made it.
#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_was_swallowed_is_not_waited_for() {
    let (bench, app, proxy) = ground(&["--retry", "2"]).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://127.0.0.1:{}/", proxy.port)).await;
    browser.until_live().await;
    browser.ask("{ page.stream.silence = 5000 }").await;
    browser.run(WATCH_ROWS).await;
    for (n, own) in ["", "page.stream.open()"].into_iter().enumerate() {
        proxy.swallow();
        proxy.cut();
        browser.until("page.stream.phase === 'waiting'").await;
        browser.ask(&format!("{{ {own} }}")).await;
        // By now it is under way, and nobody will ever answer it.
        browser
            .until("page.stream.phase === 'waiting' && Date.now() > page.stream.due + 500")
            .await;
        browser
            .until(
                "document.getElementById('state-detail').textContent.includes('trying again now')",
            )
            .await;
        commit(&*bench.store, vec![writes::put(&patient(n, "Meanwhile"))]).await;
        proxy.forget();
        browser.until_live().await;
        assert_eq!(held(&browser).await, stored(&*bench.store).await);
    }
    assert_eq!(browser.ask("page.model.repeats").await, 0, "a version came twice");
    assert_never_empty(&browser).await;
    browser.assert_sound().await;
    app.stop().await;
}
