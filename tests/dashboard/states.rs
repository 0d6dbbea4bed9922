//! What the page shows: the demo's population, a gap that moves, and inputs that are odd.

use std::time::SystemTime;

use fhirtail::demo::{Population, populate};
use serde_json::json;
use support::{
    App, client, embedded,
    writes::{self, commit, delete, patient},
};

use crate::{
    browser::Browser,
    gaps::{gap, held, put, report, stored, totals},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_is_shown_and_a_closed_gap_moves_at_once() {
    let bench = embedded();
    populate(&*bench.store, Population::new(1, 60)).await.expect("a population");
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    let whole = stored(&*bench.store).await;
    assert_eq!(held(&browser).await, whole);
    assert_eq!(browser.ask("page.model.measures.size").await, 4);
    // Each resource is an event, and so is `caught-up`.
    browser.until(&figures(whole.len() + 1)).await;
    for (name, width, height) in [("wide", 1600, 1000), ("middle", 900, 1100), ("narrow", 390, 844)]
    {
        for scheme in ["light", "dark"] {
            browser.view(width, height, scheme).await;
            browser.picture(&format!("live-{name}-{scheme}")).await;
        }
    }
    browser.view(1600, 1000, "light").await;

    // An open gap, closed as a client would: read, changed, put.
    let open = "[...page.model.gaps.values()].find(gap => gap.status === 0).id";
    let id = browser.ask(open).await.as_str().expect("an open gap").to_owned();
    let url = app.url(&format!("/fhir/DetectedIssue/{id}"));
    let text = client().get(url).send().await.expect("an answer").text().await.expect("text");
    let closed = serde_json::from_str(&text.replace("open-gap", "closed-gap")).expect("JSON");
    let before = totals(&browser).await;
    let shown = |open: u64, closed: u64| {
        format!(
            "document.getElementById('total-open').textContent === '{open}' && \
             document.getElementById('total-closed').textContent === '{closed}'"
        )
    };
    browser.until(&shown(before[0], before[2])).await;
    put(&app.url(""), &closed).await;
    browser.until(&shown(before[0] - 1, before[2] + 1)).await;
    browser.until(&figures(whole.len() + 2)).await;
    browser.until("page.stream.lag !== null && page.stream.lag < 5000").await;
    browser.until("page.stream.rate() > 0 && page.stream.rate() <= 1").await;

    // The feed says from what to what, and the chart has the step.
    browser.until("document.querySelectorAll('#feed-lines li').length === 1").await;
    let line = browser.run("return document.querySelector('#feed-lines li .become').textContent");
    assert_eq!(line.await, "open → closed");
    assert_eq!(
        browser.ask("page.trend.points.at(-1).slice(1)").await,
        json!([before[0] - 1, before[2] + 1])
    );

    // A patient's detail, by keyboard alone: the first row, then Enter.
    browser.run("document.querySelector('#patient-space [tabindex=\"0\"]').focus()").await;
    browser.run("document.activeElement.click()").await;
    browser.until("!document.getElementById('detail').hidden").await;
    for (name, width, scheme) in [("wide", 1600, "dark"), ("narrow", 390, "light")] {
        browser.view(width, 1000, scheme).await;
        browser.picture(&format!("detail-{name}-{scheme}")).await;
    }
    browser.assert_sound().await;
    app.stop().await;
}

/// From a PUT's answer to the change of what is shown, by the one clock of server and page. Others
/// may have the cores at any one moment, so that it is the usual one that counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_gap_moves_within_a_second() {
    const NOTE: &str = "
        globalThis.moves = [];
        new MutationObserver(() => moves.push(Date.now()))
            .observe(document.getElementById('total-closed'), { childList: true });";
    let bench = embedded();
    populate(&*bench.store, Population::new(1, 200)).await.expect("a population");
    commit(&*bench.store, (0..5).map(|n| writes::put(&gap(n, 0, "open-gap"))).collect()).await;
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    browser.run(NOTE).await;
    let mut took = Vec::new();
    for n in 0..5 {
        put(&app.url(""), &gap(n, 0, "closed-gap")).await;
        let put_at = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64() * 1000.0;
        browser.wait(&format!("moves.length === {}", n + 1)).await;
        let moved_at = browser.run("return moves.at(-1)").await.as_f64().expect("a time");
        took.push((moved_at - put_at).round());
    }
    println!("from a PUT's answer to the page: {took:?} ms");
    took.sort_by(f64::total_cmp);
    assert!(took[took.len() / 2] < 1000.0, "{took:?} ms");
    browser.assert_sound().await;
    app.stop().await;
}

/// That the page shows so many events, and the position that the last of them gave.
fn figures(events: usize) -> String {
    format!(
        "page.stream.events === {events} && \
         document.getElementById('events').textContent.replace(/\\D/g, '') === '{events}' && \
         document.getElementById('position').textContent === page.stream.position && \
         page.stream.position.startsWith('1l~')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn html_stays_text_and_odd_resources_are_counted() {
    const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\"><script>owned()</script>";
    let bench = embedded();
    let mut named = patient(1, HOSTILE);
    named["birthDate"] = json!(HOSTILE);
    let mut titled = gap(1, 1, "open-gap");
    titled["code"]["text"] = json!(HOSTILE);
    let mut of_nobody = gap(2, 2, "closed-gap");
    of_nobody.as_object_mut().expect("an object").remove("patient");
    let mut without_status = gap(3, 3, "open-gap");
    without_status.as_object_mut().expect("an object").remove("modifierExtension");
    let mut absolute = gap(1, 4, "prospective-gap");
    absolute["patient"]["reference"] = json!("https://example.org/fhir/Patient/p1/_history/3");
    let mut by_section = gap(5, 5, "not-applicable");
    by_section.as_object_mut().expect("an object").remove("evidence");
    let mut misshapen = gap(6, 6, "open-gap");
    misshapen["evidence"] = json!([{"detail": [{"display": "nowhere"}]}]);
    misshapen["patient"] = json!({"display": "Somebody <b>bold</b>"});
    let mut error = gap(7, 7, "open-gap");
    error["status"] = json!("entered-in-error");
    let interaction = json!({
        "resourceType": "DetectedIssue", "id": "interaction", "status": "final",
        "code": {"coding": [{"code": "DRG"}]},
    });
    let composition = json!({
        "resourceType": "Composition", "id": "c5", "status": "final", "title": HOSTILE,
        "type": {"text": "gaps"}, "date": "2026-01-01", "author": [{"display": "A"}],
        "subject": {"reference": "Patient/p5"},
        "section": [{
            "focus": {"reference": "MeasureReport/r5-5"},
            "entry": [{"reference": "DetectedIssue/g5-5"}],
        }],
    });
    let unknown = gap(4, 4, HOSTILE);
    let all = [
        named,
        titled,
        of_nobody,
        without_status,
        absolute,
        by_section,
        misshapen,
        error,
        interaction,
        composition,
        unknown,
        report(1, 1),
        report(5, 5),
        patient(5, "Five"),
    ];
    commit(&*bench.store, all.iter().map(writes::put).collect()).await;
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    browser.until_live().await;

    // Open: the titled one, the misshapen one. Other: the unknown code, the one without.
    assert_eq!(totals(&browser).await, [2, 1, 1, 1, 2]);
    let measure = |id: &str| format!("page.model.gaps.get('{id}').measure.key");
    assert_eq!(browser.ask(&measure("g5-5")).await, "http://example.org/Measure/m5");
    assert_eq!(browser.ask(&measure("g2-2")).await, "text:Measure 2");
    assert_eq!(browser.ask("page.model.gaps.get('g1-4').row.key").await, "p1");
    assert_eq!(browser.ask("page.model.gaps.get('g2-2').row.key").await, "");

    // Out of order: the report comes after the gap. And a patient goes whose gaps stay.
    put(&app.url(""), &report(2, 2)).await;
    browser.until(&format!("{} === 'http://example.org/Measure/m2'", measure("g2-2"))).await;
    commit(&*bench.store, vec![delete("Patient", "p5")]).await;
    browser.until("page.model.rows.get('p5').gone").await;
    let mut renamed = patient(1, "Plain");
    renamed["birthDate"] = json!("1950-05-05");
    browser.until(&format!("document.body.innerText.includes({HOSTILE:?})")).await;
    browser.picture("odd-wide-light").await;

    // Everything that can show a name does so, and none of it has become an element.
    browser.run("document.querySelector('#search').value = 'owned'").await;
    browser.run("document.querySelector('#search').dispatchEvent(new Event('input'))").await;
    browser
        .until("document.querySelectorAll('#patient-space .row:not([hidden])').length === 1")
        .await;
    browser.run("document.querySelector('#patient-space .row:not([hidden]) button').click()").await;
    assert_eq!(browser.text("detail-name").await, HOSTILE);
    put(&app.url(""), &renamed).await;
    browser.until("document.getElementById('detail-name').textContent === 'Plain'").await;
    browser.until("document.getElementById('feed-lines').textContent.includes('<script>')").await;
    assert_eq!(
        browser.run("return document.querySelectorAll('img, b script, main script').length").await,
        0
    );
    let title = browser.run("return document.title").await;
    assert!(title.as_str().is_some_and(|title| title.contains("open")), "{title}");
    assert_eq!(browser.text("detail-name").await, "Plain");
    browser.assert_sound().await;
    app.stop().await;
}

/// Gaps that name nobody are all of one, and each that has a text of its own is a measure.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_to_list_is_listed_in_part() {
    let bench = embedded();
    let gaps = (0..300).map(|n| {
        let mut gap = gap(n, 0, "open-gap");
        let fields = gap.as_object_mut().expect("an object");
        fields.remove("patient");
        fields.remove("evidence");
        gap["code"]["text"] = json!(format!("Only {n}"));
        writes::put(&gap)
    });
    commit(&*bench.store, gaps.collect()).await;
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    assert_eq!(totals(&browser).await, [300, 0, 0, 0, 0]);
    let count = async |what: &str| {
        browser.run(&format!("return document.querySelectorAll('{what}').length")).await
    };
    assert_eq!(count("#measure-rows tr").await, 200);
    assert!(browser.text("more-measures").await.contains("100 more"));
    browser.run("document.querySelector('#patient-space .row:not([hidden])').click()").await;
    assert_eq!(count("#detail-gaps li").await, 200);
    assert!(browser.text("detail-more-gaps").await.contains("100 more"));
    browser.assert_sound().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_lets_nothing_in_from_elsewhere() {
    let bench = embedded();
    let app = App::start(bench.store.clone()).await;
    let page = client().get(app.url("/")).send().await.expect("the page");
    let rules = page.headers()["content-security-policy"].to_str().expect("ASCII").to_owned();
    assert!(rules.starts_with("default-src 'none'; script-src 'self';"), "{rules}");
    assert!(!rules.contains("unsafe") && !rules.contains('*'), "{rules}");
    let text = page.text().await.expect("text");
    let foreign =
        |text: &str| text.contains("http:") || text.contains("https:") || text.contains("//cdn");
    assert!(!foreign(&text), "{text}");

    // What it loads is from here, and a script that comes by another way does not run.
    let browser = Browser::start().await;
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    let origin = app.url("/");
    let loaded =
        browser.run("return performance.getEntriesByType('resource').map(one => one.name)").await;
    let loaded: Vec<String> = serde_json::from_value(loaded).expect("texts");
    assert!(loaded.len() > 10 && loaded.iter().all(|url| url.starts_with(&origin)), "{loaded:?}");
    browser.assert_sound().await;
    let injected = "try { document.body.innerHTML = '<b>x</b>'; return 'done' } catch (error) { return error.name }";
    assert_eq!(browser.run(injected).await, "TypeError");
    app.stop().await;
}
