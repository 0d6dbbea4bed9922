//! The list of patients: when its rows stay where they are, and where the focus goes.

use serde_json::json;
use support::{
    App, embedded,
    stream::EventStream,
    writes::{self, commit, patient},
};

use crate::{
    browser::Browser,
    gaps::{gap, put},
};

const ENTER: &str = "\u{E007}";
const ESCAPE: &str = "\u{E00C}";

/// More than are put in order at a time.
const MANY: usize = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_mouse_at_rest_in_the_list_does_not_keep_it_empty() {
    let bench = embedded();
    for some in (0..MANY).collect::<Vec<_>>().chunks(500) {
        let gaps = some.iter().map(|&n| writes::put(&gap(n, 0, "open-gap")));
        commit(&*bench.store, gaps.collect()).await;
    }
    // The one place is taken, so that the mouse is there before the history.
    let app = App::with(bench.store.clone(), &["--max-streams", "1", "--retry", "0.3"]).await;
    let mut first = EventStream::open(&app.url("/fhir/$export?_type=Group"), None).await;
    first.until("caught-up").await;
    let browser = Browser::start().await;
    browser.open(&app.url("/")).await;
    browser.until("page.stream.why !== ''").await;
    browser.point("patient-scroller").await;
    assert_eq!(
        browser.run("return document.querySelector('#patient-scroller:hover') !== null").await,
        true
    );
    drop(first);
    browser.until_live().await;
    browser.until("document.getElementById('patient-count').textContent === '6,000'").await;
    browser.until("document.getElementById('no-patients').hidden").await;
    // From here on the rows stay where they are.
    const FIRST: &str = "[...document.querySelectorAll('#patient-space .row:not([hidden])')]
        .find(row => row.ariaRowIndex === '2').querySelector('button').textContent";
    browser.until("!document.getElementById('held').hidden").await;
    let order = browser.run(&format!("return {FIRST}")).await;
    for m in 0..3 {
        put(&app.url(""), &gap(MANY, m, "open-gap")).await;
    }
    browser.until("document.getElementById('patient-count').textContent.endsWith('6,001')").await;
    assert_eq!(browser.run(&format!("return {FIRST}")).await, order);
    browser.point("totals").await;
    browser.until(&format!("{FIRST} === 'p{MANY}'")).await;
    browser.assert_sound().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_focus_goes_back_to_what_opened_the_detail() {
    let bench = embedded();
    let patients = (0..20).map(|n| writes::put(&patient(n, &format!("Family {n:02}"))));
    commit(&*bench.store, patients.collect()).await;
    let gaps = (0..20).map(|n| writes::put(&gap(n, 0, "open-gap")));
    commit(&*bench.store, gaps.collect()).await;
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    let focus = async |what: &str| {
        browser.run(&format!("return document.activeElement.closest('{what}')?.textContent")).await
    };

    // From the feed, back to its line, though the same patient is in the list.
    for n in [3, 4] {
        put(&app.url(""), &gap(n, 0, "closed-gap")).await;
        browser.until(&format!("page.model.gaps.get('g{n}-0').status === 2")).await;
    }
    browser.until("document.querySelectorAll('#feed-lines button').length === 2").await;
    browser.run("document.querySelectorAll('#feed-lines button')[1].focus()").await;
    browser.press(ENTER).await;
    assert_eq!(browser.text("detail-name").await, "Family 03");
    browser.press(ESCAPE).await;
    assert_eq!(focus("#feed-lines button").await, "Family 03");

    // From the list, back to the same patient, wherever they stand by now.
    browser.run("document.querySelector('#patient-space [tabindex=\"0\"]').focus()").await;
    assert_eq!(focus("#patient-space button").await, "Family 00");
    browser.press(ENTER).await;
    for n in 10..20 {
        put(&app.url(""), &gap(n, 1, "open-gap")).await;
    }
    const FIRST: &str = "[...document.querySelectorAll('#patient-space .row:not([hidden])')]
        .find(row => row.ariaRowIndex === '2').querySelector('button').textContent";
    browser.until("page.model.gaps.size === 30").await;
    browser.until(&format!("{FIRST} === 'Family 10'")).await;
    browser.press(ESCAPE).await;
    assert_eq!(focus("#patient-space button").await, "Family 00");
    browser.press("\u{E015}").await;
    assert_eq!(focus("#patient-space button").await, "Family 01");

    // Who is not in the list any more has no row: the focus stays in the list all the same.
    browser.press(ENTER).await;
    commit(&*bench.store, vec![writes::delete("DetectedIssue", "g1-0")]).await;
    browser.until("page.model.concerned === 19").await;
    browser.until("document.getElementById('patient-count').textContent === '19'").await;
    browser.press(ESCAPE).await;
    assert_ne!(focus("#patient-space button").await, json!(null));
    browser.assert_sound().await;
    app.stop().await;
}

/// Names by letters, births by days, counts and changes by numbers; who is equal stands by name.
#[tokio::test(flavor = "multi_thread")]
async fn each_column_puts_the_rows_in_its_order() {
    const SHOWN: &str = "[...document.querySelectorAll('#patient-space .row:not([hidden])')]
        .sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)
        .map(row => row.querySelector('button').textContent)";
    let people = [
        ("\u{dc}nal", Some("1950-05-05"), ["open-gap", "open-gap", "odd"].as_slice()),
        ("abel", Some("1990-01-01"), &["open-gap", "prospective-gap"]),
        ("Zorn", None, &["open-gap", "open-gap", "closed-gap", "closed-gap", "closed-gap"]),
        ("Brown", Some("1970-06-01"), &["closed-gap", "not-applicable"]),
    ];
    let bench = embedded();
    for (n, (name, birth, statuses)) in people.iter().enumerate() {
        let mut who = patient(n, name);
        if let Some(birth) = birth {
            who["birthDate"] = json!(birth);
        }
        let gaps = statuses.iter().enumerate().map(|(m, status)| gap(n, m, status));
        commit(&*bench.store, gaps.chain([who]).map(|one| writes::put(&one)).collect()).await;
    }
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    // Each changes in a later second than all before: by that they stand, not by what is less.
    for n in [3, 2, 0, 1] {
        let is_last = format!(
            "[...page.model.rows.values()].every(row => row.key === 'p{n}' || \
             Math.floor(row.changed / 1000) < Math.floor(page.model.rows.get('p{n}').changed / 1000))"
        );
        for version in 2.. {
            let mut changed = gap(n, 0, people[n].2[0]);
            changed["detail"] = json!(format!("Version {version}"));
            put(&app.url(""), &changed).await;
            browser.until(&format!("page.model.gaps.get('g{n}-0').version === '{version}'")).await;
            if browser.ask(&is_last).await == json!(true) {
                break;
            }
        }
    }
    // Ascending, descending, and which of them comes at the first click.
    let columns = [
        ("name", ["abel", "Brown", "\u{dc}nal", "Zorn"], ["Zorn", "\u{dc}nal", "Brown", "abel"], 0),
        (
            "birth",
            ["\u{dc}nal", "Brown", "abel", "Zorn"],
            ["Zorn", "abel", "Brown", "\u{dc}nal"],
            0,
        ),
        ("0", ["Brown", "abel", "\u{dc}nal", "Zorn"], ["\u{dc}nal", "Zorn", "abel", "Brown"], 1),
        ("1", ["Brown", "\u{dc}nal", "Zorn", "abel"], ["abel", "Brown", "\u{dc}nal", "Zorn"], 1),
        ("2", ["abel", "\u{dc}nal", "Brown", "Zorn"], ["Zorn", "Brown", "abel", "\u{dc}nal"], 1),
        ("3", ["abel", "\u{dc}nal", "Zorn", "Brown"], ["Brown", "abel", "\u{dc}nal", "Zorn"], 1),
        ("4", ["abel", "Brown", "Zorn", "\u{dc}nal"], ["\u{dc}nal", "abel", "Brown", "Zorn"], 1),
        (
            "changed",
            ["Brown", "Zorn", "\u{dc}nal", "abel"],
            ["abel", "\u{dc}nal", "Zorn", "Brown"],
            1,
        ),
    ];
    for (column, up, down, first) in columns {
        let ways = [("ascending", up), ("descending", down)];
        for (way, names) in [ways[first], ways[1 - first]] {
            let button = format!("document.querySelector('[data-by=\"{column}\"]')");
            browser.run(&format!("{button}.click()")).await;
            let marked = format!("return {button}.parentElement.ariaSort");
            assert_eq!(browser.run(&marked).await, way, "{column}");
            let shown = browser.run(&format!("return {SHOWN}")).await;
            assert_eq!(shown, json!(names), "{column} {way}");
        }
    }
    browser.assert_sound().await;
    app.stop().await;
}
