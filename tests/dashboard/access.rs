//! Who uses no mouse, or sees little: axe-core finds nothing serious, and keys do what they should.

use std::path::{Path, PathBuf};

use fhirtail::demo::{Population, populate};
use serde_json::{Value, json};
use support::{App, embedded};

use crate::{
    browser::Browser,
    gaps::{gap, put},
};

/// axe-core, which `tests/run` fetches.
pub(crate) fn axe() -> String {
    let named = std::env::var_os("FHIRTAIL_AXE").map(PathBuf::from);
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe-core/package/axe.min.js");
    let file = named.unwrap_or_else(usual);
    std::fs::read_to_string(&file)
        .unwrap_or_else(|_| panic!("no axe-core at {file:?}: run tests/run once, which gets it"))
}

/// What axe finds that is serious or worse.
pub(crate) async fn faults(browser: &Browser) -> Value {
    const RUN: &str = "return axe.run(document, { resultTypes: ['violations'] }).then(found =>
        found.violations.filter(one => ['serious', 'critical'].includes(one.impact))
            .map(one => [one.id, one.help, one.nodes.slice(0, 3).map(node => node.html)]))";
    browser.run(RUN).await
}

/// Looks at the page as it stands, narrow and wide, light and dark: a picture, and nothing serious.
pub(crate) async fn look(browser: &Browser, name: &str) {
    browser.run(&axe()).await;
    for (size, width, height) in [("wide", 1600, 1000), ("narrow", 390, 844)] {
        for scheme in ["light", "dark"] {
            browser.view(width, height, scheme).await;
            browser.picture(&format!("{name}-{size}-{scheme}")).await;
            assert_eq!(faults(browser).await, json!([]), "{name} {size} {scheme}");
        }
    }
    browser.view(1600, 1000, "light").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_no_serious_fault_in_any_view() {
    let bench = embedded();
    populate(&*bench.store, Population::new(1, 60)).await.expect("a population");
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    browser.run(&axe()).await;
    for (width, height) in [(1600, 1000), (900, 1100), (390, 844)] {
        for scheme in ["light", "dark"] {
            browser.view(width, height, scheme).await;
            assert_eq!(faults(&browser).await, json!([]), "{width} {scheme}");
            browser
                .run("document.querySelector('#patient-space .row:not([hidden])').click()")
                .await;
            assert_eq!(faults(&browser).await, json!([]), "{width} {scheme}, with a detail");
            browser.run("document.getElementById('detail-close').click()").await;
        }
    }
    browser.assert_sound().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_every_patient() {
    let bench = embedded();
    populate(&*bench.store, Population::new(1, 200)).await.expect("a population");
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    browser.run("document.querySelector('#patient-space [tabindex=\"0\"]').focus()").await;
    let at = "document.activeElement.closest('.row')?.getAttribute('aria-rowindex')";
    let last = browser.ask("String(page.model.concerned + 1)").await;
    for (key, expected) in [("\u{E015}", json!("3")), ("\u{E010}", last), ("\u{E011}", json!("2"))]
    {
        browser.press(key).await;
        assert_eq!(browser.ask(at).await, expected, "{key:?}");
    }
    // Rows stay where they are while the keyboard goes from one to another, whatever comes.
    const ORDER: &str = "[...document.querySelectorAll('#patient-space .row:not([hidden])')]
        .map(row => Number(row.ariaRowIndex) + row.querySelector('button').textContent)
        .filter(text => parseInt(text) < 12).sort()";
    let order = browser.ask(ORDER).await;
    for m in 0..20 {
        put(&app.url(""), &gap(999, m, "open-gap")).await;
    }
    browser.until("page.model.rows.get('p999')?.counts[0] === 20").await;
    for key in ["\u{E015}", "\u{E013}"] {
        browser.press(key).await;
    }
    const TOLD: &str = "document.getElementById('patient-count').textContent
        .endsWith(String(page.model.concerned))";
    browser.until(TOLD).await;
    assert_eq!(browser.ask(ORDER).await, order);
    // Enter opens, Escape closes, and the focus is at the patient where it was.
    let who = browser.ask("document.activeElement.textContent").await;
    browser.press("\u{E007}").await;
    assert_eq!(browser.ask("document.activeElement.id").await, "detail-name");
    browser.press("\u{E00C}").await;
    assert_eq!(browser.ask("document.activeElement.textContent").await, who);

    // Wherever the list was scrolled to, Tab reaches a row in view.
    browser.run("document.activeElement.blur()").await;
    browser.run("document.getElementById('patient-scroller').scrollTop = 1000").await;
    const REACHED: &str = "[...document.querySelectorAll('#patient-space [tabindex=\"0\"]')]
        .map(one => one.getBoundingClientRect().top - document.getElementById('patient-scroller')
            .getBoundingClientRect().top).map(top => top >= 0 && top < 200)";
    browser.until(&format!("JSON.stringify({REACHED}) === '[true]'")).await;
    browser.assert_sound().await;
    app.stop().await;
}
