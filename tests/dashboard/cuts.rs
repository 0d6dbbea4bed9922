//! The page while its server dies, its network goes, and its position is lost.

use std::time::Duration;

use fhirtail::demo::{Population, populate};
use serde_json::Value;
use support::{
    App, embedded,
    process::Process,
    proxy::Proxy,
    stream::EventStream,
    writes::{self, commit, patient},
};

use crate::{
    access::look,
    browser::Browser,
    gaps::{exported, gap, held, put, report, stored},
};

/// Notes the least that the page showed from now on: rows of measures, and of patients.
pub(crate) const WATCH_ROWS: &str = "
    globalThis.least = [Infinity, Infinity];
    globalThis.phases = [];
    const rows = () => {
        const shown = [document.querySelectorAll('#measure-rows tr').length,
            document.querySelectorAll('#patient-space .row:not([hidden])').length];
        least = least.map((one, at) => Math.min(one, shown[at]));
        const phase = document.getElementById('state').dataset.phase;
        if (phases.at(-1) !== phase) phases.push(phase);
    };
    new MutationObserver(rows).observe(document.body,
        { subtree: true, childList: true, attributes: true, characterData: true });
    rows();
";

pub(crate) async fn assert_never_empty(browser: &Browser) {
    let least = browser.run("return least").await;
    let least: Vec<u64> = serde_json::from_value(least).expect("numbers");
    assert!(least.iter().all(|rows| *rows > 0), "the page was empty for a moment: {least:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_costs_the_page_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().display().to_string();
    let options = ["--retry", "0.3"];
    let mut server = Process::serve(&store, &options);
    let base = server.url("");
    let listen = base.trim_start_matches("http://").to_owned();
    for n in 0..20 {
        put(&base, &patient(n, &format!("Family {n}"))).await;
        put(&base, &gap(n, n % 3, "open-gap")).await;
        put(&base, &report(n, n % 3)).await;
    }
    let browser = Browser::start().await;
    browser.open(&server.url("/")).await;
    browser.until_live().await;
    browser.run(WATCH_ROWS).await;
    let mut moves = 0;
    for round in 0..4 {
        // Some of it may still be under way when the server dies.
        for n in 0..5 {
            put(&base, &gap(round * 5 + n, (round * 5 + n) % 3, "closed-gap")).await;
            moves += 1;
        }
        server.kill();
        browser.until("page.stream.phase === 'waiting'").await;
        server = Process::serve_at(&listen, &store, &options);
        put(&base, &patient(100 + round, "Came meanwhile")).await;
        browser.until_live().await;
        put(&base, &gap(100 + round, 1, "prospective-gap")).await;
        moves += 1;
        browser.until(&format!("page.model.gaps.has('g{}-1')", 100 + round)).await;
        assert_eq!(held(&browser).await, exported(&base).await);
    }
    assert_eq!(browser.ask("page.model.repeats").await, 0, "a version came twice");
    assert_eq!(browser.ask("page.stream.cuts").await, 4);
    // Each change is told once: what moved, and the newcomers.
    browser
        .until(&format!(
            "document.querySelectorAll('#feed-lines li:not(.note)').length === {}",
            moves + 4
        ))
        .await;
    assert_never_empty(&browser).await;
    browser.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_pulled_is_said_and_survived() {
    let bench = embedded();
    populate(&*bench.store, Population::new(1, 20)).await.expect("a population");
    let app = App::with(bench.store.clone(), &["--retry", "0.3"]).await;
    let proxy = Proxy::to(app.address.port()).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://127.0.0.1:{}/", proxy.port)).await;
    browser.until_live().await;
    browser.run(WATCH_ROWS).await;

    // All connections are reset.
    proxy.cut();
    browser.until("phases.includes('waiting')").await;
    browser.until_live().await;

    // Nothing passes any more, and nobody says so. What is old never passes again.
    proxy.swallow();
    commit(&*bench.store, vec![writes::put(&patient(1, "Missed"))]).await;
    // A question that is not answered in time may only have found no connection free.
    browser.until("page.stream.phase === 'unsure'").await;
    assert_eq!(browser.text("state-word").await, "Nothing heard");
    look(&browser, "nothing-heard").await;
    // One that is turned away says that nobody is there.
    proxy.send_to(vec![]);
    browser.until("page.stream.phase === 'silent'").await;
    assert_eq!(browser.text("state-word").await, "No answer");
    look(&browser, "no-answer").await;
    proxy.send_to(vec![app.address.port()]);
    proxy.forget();
    browser.until_live().await;
    // The answer is followed by one new stream, which is waited for.
    let phases = browser.run("return phases.slice(phases.lastIndexOf('silent'))").await;
    let phases: Vec<String> = serde_json::from_value(phases).expect("texts");
    assert_eq!(phases[..2], ["silent", "connecting"]);
    assert!(!phases[2..].contains(&phases[1]), "{phases:?}");
    browser.until("page.model.rows.has('p1')").await;
    assert_eq!(held(&browser).await, stored(&*bench.store).await);
    assert_eq!(browser.ask("page.model.repeats").await, 0, "a version came twice");
    assert_never_empty(&browser).await;
    browser.assert_sound().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_position_starts_over_without_an_empty_page() {
    // The server comes back with another store: the position is of a log that is not there.
    let (first, second) = (tempfile::tempdir(), tempfile::tempdir());
    let (first, second) = (first.expect("a folder"), second.expect("a folder"));
    let options = ["--retry", "0.3"];
    let mut server = Process::serve(&first.path().display().to_string(), &options);
    let base = server.url("");
    let listen = base.trim_start_matches("http://").to_owned();
    for n in 0..6 {
        put(&base, &gap(n, 1, "open-gap")).await;
    }
    let browser = Browser::start().await;
    browser.open(&server.url("/")).await;
    browser.until_live().await;
    browser.run(WATCH_ROWS).await;
    server.kill();
    // Filled on another port, where the page does not look.
    let mut other = Process::serve(&second.path().display().to_string(), &options);
    put(&other.url(""), &gap(1, 2, "closed-gap")).await;
    put(&other.url(""), &patient(1, "Other")).await;
    other.kill();
    let server = Process::serve_at(&listen, &second.path().display().to_string(), &options);
    browser.until("page.model.gaps.has('g1-2')").await;
    browser.until_live().await;
    assert_eq!(held(&browser).await, exported(&server.url("")).await);
    assert_never_empty(&browser).await;
    let feed = browser.text("feed-lines").await;
    assert!(feed.contains("Started over") && !feed.contains("nothing missed"), "{feed}");
    browser.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_said_in_the_servers_words() {
    let bench = embedded();
    let app = App::with(bench.store.clone(), &["--max-streams", "1", "--retry", "0.3"]).await;
    let first = Browser::start().await;
    first.open(&app.url("/")).await;
    first.until_live().await;
    let taken = Browser::start().await;
    taken.open(&app.url("/")).await;
    taken.until("page.stream.why !== ''").await;
    let why = taken.ask("page.stream.why").await;
    const SAID: &str = "page.stream.why !== '' && document.getElementById('state-detail')
        .textContent.includes(page.stream.why.replace(/\\.$/, ''))";
    taken.until(SAID).await;
    look(&taken, "full").await;
    // What stands where rows would be is below their head, however high that is.
    taken.view(390, 844, "light").await;
    const BELOW: &str = "return document.getElementById('no-patients').getBoundingClientRect().top
        >= document.getElementById('patient-head').getBoundingClientRect().bottom";
    assert_eq!(taken.run(BELOW).await, true);
    assert!(matches!(&why, Value::String(why) if why.contains("stream")), "{why}");
    drop(first);
    // The place is free once the server has seen the first one go.
    let took = taken.until("page.stream.isLive").await;
    assert!(took < Duration::from_secs(60));
    taken.assert_sound().await;
    app.stop().await;
}

/// As after a 502: the page has opened another stream itself, and what it hears in it is that there is
/// none. That has no id, and takes none away.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_leaves_the_position_where_it_is() {
    let bench = embedded();
    let gaps = (0..6).map(|n| writes::put(&gap(n, 1, "open-gap")));
    commit(&*bench.store, gaps.collect()).await;
    let app = App::with(bench.store.clone(), &["--max-streams", "1", "--retry", "0.3"]).await;
    let proxy = Proxy::to(app.address.port()).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://127.0.0.1:{}/", proxy.port)).await;
    browser.until_live().await;
    browser.run(WATCH_ROWS).await;
    proxy.send_to(vec![]);
    proxy.cut();
    browser.until("page.stream.phase === 'waiting'").await;
    let position = browser.ask("page.stream.position").await;

    // Somebody else has the one place when the page comes.
    let taken = loop {
        let mut other = EventStream::open(&app.url("/fhir/$export?_type=Group"), None).await;
        let first = other.event().await.expect("an event");
        if first.event == "caught-up" {
            break other;
        }
    };
    browser.ask("page.stream.open()").await;
    proxy.send_to(vec![app.address.port()]);
    browser.until("page.stream.why !== ''").await;
    assert_eq!(browser.ask("page.stream.position").await, position);

    // What goes meanwhile is gone for the page too, by whichever stream it comes back.
    commit(&*bench.store, vec![writes::delete("DetectedIssue", "g1-1")]).await;
    drop(taken);
    browser.ask("page.stream.open()").await;
    browser.until("page.stream.isLive").await;
    assert_eq!(held(&browser).await, stored(&*bench.store).await);
    assert_eq!(browser.ask("page.model.repeats").await, 0, "a version came twice");
    assert_never_empty(&browser).await;
    browser.assert_sound().await;
    app.stop().await;
}

/// As after an upgrade that makes other positions of the same query: what the page holds is a
/// mistake to the server from then on, and no cut would mend that.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_refused_is_let_go_of() {
    let bench = embedded();
    populate(&*bench.store, Population::new(1, 20)).await.expect("a population");
    let app = App::with(bench.store.clone(), &["--retry", "0.3"]).await;
    let other = app.url("/fhir/$export?_type=Patient");
    let other = EventStream::open(&other, None).await.event().await.expect("a patient").id;
    for position in [other.as_str(), "0h~of~long~ago"] {
        let browser = Browser::start().await;
        browser.open(&app.url("/")).await;
        browser.until_live().await;
        browser.run(WATCH_ROWS).await;
        browser
            .ask(&format!("{{ page.stream.position = '{position}'; page.stream.open() }}"))
            .await;
        browser
            .until(
                "page.stream.phase === 'refused' && page.stream.why !== '' && \
                 /; trying again in [1-4] s; what you see is as of \\d\\d:\\d\\d:\\d\\d$/\
                     .test(globalThis.said = document.getElementById('state-detail').textContent)",
            )
            .await;
        let why = browser.run("return said").await;
        let why = why.as_str().expect("text");
        assert!(why.contains("ast-Event-ID") || why.contains("lastEventId"), "{why}");
        if position == other {
            look(&browser, "refused").await;
        }
        browser.until("page.stream.isLive && page.stream.position !== ''").await;
        assert_eq!(held(&browser).await, stored(&*bench.store).await);
        browser
            .until("document.getElementById('feed-lines').textContent.includes('Started over')")
            .await;
        assert_never_empty(&browser).await;
        browser.assert_sound().await;
    }
    app.stop().await;
}
