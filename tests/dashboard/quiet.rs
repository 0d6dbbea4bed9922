//! The page while nothing comes: it asks whether the server is there, and says what it knows.

use serde_json::json;
use support::{App, embedded};

use crate::{
    access::look,
    browser::Browser,
    cuts::WATCH_ROWS,
    gaps::{gap, held, put, stored},
};

/// As if the browser had five other tabs with a stream each, so that nothing else gets a connection.
const CROWD: &str = "
    globalThis.tabs = Array.from({length: 5}, () => new EventSource('/fhir/$export?_type=Group'));";

#[tokio::test(flavor = "multi_thread")]
async fn six_quiet_tabs_are_not_called_cut_off() {
    let bench = embedded();
    let app = App::start(bench.store.clone()).await;
    put(&app.url(""), &gap(1, 1, "open-gap")).await;
    let browser = Browser::start().await;
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    browser.run(CROWD).await;
    browser.wait("tabs.every(tab => tab.readyState === EventSource.OPEN)").await;
    browser.run(WATCH_ROWS).await;

    // The question waits for a connection: that says nothing of the stream.
    browser
        .until("document.getElementById('state-detail').textContent.includes('six connections')")
        .await;
    look(&browser, "crowded").await;
    // And what comes by the stream says that it was there all the time.
    put(&app.url(""), &gap(1, 1, "closed-gap")).await;
    browser.until_live().await;
    browser.until("page.model.totals[2] === 1").await;
    assert_eq!(browser.run("return phases").await, json!(["live", "unsure", "live"]));
    let feed = browser.text("feed-lines").await;
    assert!(!feed.contains("onnect"), "{feed}");
    assert_eq!(browser.ask("page.trend.blind").await, json!([]));

    // When there is a connection again, the question is answered, and a new stream misses nothing.
    browser.until("page.stream.phase === 'unsure'").await;
    browser.run("tabs.forEach(tab => tab.close())").await;
    browser.until_live().await;
    put(&app.url(""), &gap(2, 1, "open-gap")).await;
    browser.until("page.model.gaps.size === 2").await;
    assert_eq!(held(&browser).await, stored(&*bench.store).await);
    assert_eq!(browser.ask("page.model.repeats").await, 0);
    browser.assert_sound().await;
    app.stop().await;
}

/// A stream that opens and then says nothing has been silent since it opened, not since 1970.
#[tokio::test(flavor = "multi_thread")]
async fn silence_before_the_first_event_is_told_rightly() {
    let bench = embedded();
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    for phase in ["silent", "unsure"] {
        let told = format!(
            "import('/dashboard/words.js').then(({{ state }}) => {{
                const stream = {{
                    phase: '{phase}', heard: 0, opened: 1_000_000, since: 1_021_000,
                    caughtUpAt: 0, due: 0, why: '', position: '', loaded: 0, rate: () => 0,
                }};
                return state(stream, 1_026_000)[1];
            }})"
        );
        let told = browser.ask(&told).await;
        let told = told.as_str().expect("text");
        assert!(told.contains("for 26 s;"), "{told}");
    }
    app.stop().await;
}
