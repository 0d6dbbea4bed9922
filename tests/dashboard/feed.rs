//! The feed: what changed, from what to what.

use serde_json::json;
use support::{
    App, embedded,
    writes::{self, commit, delete, patient},
};

use crate::{
    browser::Browser,
    gaps::{gap, put, report},
};

/// The newest line: whose it is, what it is about, and what has become of it.
const NEWEST: &str = "['button', '.what', '.become'].map(part =>
    document.querySelector(`#feed-lines li ${part}`).textContent)";

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_told_from_what_to_what() {
    let bench = embedded();
    let there = [patient(1, "Old"), report(1, 1)];
    commit(&*bench.store, there.iter().map(writes::put).collect()).await;
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    let mut scored = report(1, 1);
    scored["group"][0]["measureScore"]["value"] = json!(0.5);
    let mut renamed = patient(1, "New");
    renamed["birthDate"] = json!("1950-05-05");
    let mut detailed = gap(1, 1, "deferred");
    detailed["detail"] = json!("Asked for another date");
    let changes = [
        (Ok(gap(1, 1, "open-gap")), ["Old", "Measure 1", "new: open"]),
        (Ok(gap(1, 1, "closed-gap")), ["Old", "Measure 1", "open → closed"]),
        (Ok(gap(1, 1, "deferred")), ["Old", "Measure 1", "closed → deferred"]),
        (Ok(detailed), ["Old", "Measure 1", "deferred as before"]),
        (Ok(scored), ["Old", "Measure 1", "score 1 → 0.5"]),
        (Ok(renamed), ["Old", "Name, Birth date", "Old → New; nothing → May 5, 1950"]),
        (Err(("DetectedIssue", "g1-1")), ["New", "Measure 1", "deferred → removed"]),
        (Err(("Patient", "p1")), ["New", "Patient", "deleted"]),
    ];
    for (n, (change, told)) in changes.into_iter().enumerate() {
        match change {
            Ok(resource) => put(&app.url(""), &resource).await,
            Err((name, id)) => {
                commit(&*bench.store, vec![delete(name, id)]).await;
            }
        }
        let lines = format!("document.querySelectorAll('#feed-lines li').length === {}", n + 1);
        browser.until(&lines).await;
        assert_eq!(browser.run(&format!("return {NEWEST}")).await, json!(told));
    }
    browser.assert_sound().await;
    app.stop().await;
}
