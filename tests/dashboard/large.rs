//! 100,000 gaps: how long until the page has caught up, and how long it ever stands still.
//!
//! What is asserted is what the page itself does: how long its main thread runs in one task. From
//! start to end a task also takes what others have of the cores meanwhile, the server and this test
//! among them: that is printed, and says something on a machine at rest.

use std::time::{Duration, Instant};
use support::{
    App, embedded,
    writes::{self, commit, patient},
};

use crate::{
    browser::{Browser, Task},
    gaps::{gap, put, report, totals},
};

/// A task longer than this is felt, in milliseconds.
const LONGEST: f64 = 200.0;
/// Gaps of each patient.
const EACH: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_gaps_do_not_hold_up_the_page() {
    let named = std::env::var("FHIRTAIL_DASHBOARD_GAPS").ok();
    let count: usize = named.map_or(100_000, |count| count.parse().expect("a number"));
    let bench = embedded();
    let statuses = ["open-gap", "closed-gap", "closed-gap", "prospective-gap", "not-applicable"];
    let patients: Vec<_> = (0..count / EACH).collect();
    for some in patients.chunks(250) {
        let resources = some.iter().flat_map(|&n| {
            let gaps = (0..EACH)
                .flat_map(move |m| [gap(n, m, statuses[(n + m) % statuses.len()]), report(n, m)]);
            gaps.chain([patient(n, &format!("Family {}", n * 7919 % count))])
        });
        commit(&*bench.store, resources.map(|one| writes::put(&one)).collect()).await;
    }
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::recording().await);
    let start = Instant::now();
    browser.open(&app.url("/")).await;
    browser.until_live().await;
    let loaded = start.elapsed();
    assert_eq!(totals(&browser).await.iter().sum::<u64>() as usize, count);
    println!("{count} gaps, {} events: {loaded:?}", count * 2 + patients.len());

    // What somebody does with it: every order, a search, a measure, the end of the list.
    for column in ["name", "1", "changed", "birth", "0"] {
        let sort = format!("document.querySelector('[data-by=\"{column}\"]').click()");
        browser.run(&sort).await;
    }
    browser.run("document.querySelector('#measure-rows button').click()").await;
    browser.run("document.getElementById('search').value = 'family 77'").await;
    browser.run("document.getElementById('search').dispatchEvent(new Event('input'))").await;
    browser.run("document.getElementById('search').value = ''").await;
    browser.run("document.getElementById('search').dispatchEvent(new Event('input'))").await;
    browser.run("document.getElementById('patient-scroller').scrollTop = 1e9").await;
    browser.picture("hundred-thousand-wide-light").await;
    for n in 0..20 {
        put(&app.url(""), &gap(n, 0, "closed-gap")).await;
    }
    let settled = "[...Array(20).keys()].every(n => page.model.gaps.get(`g${n}-0`).status === 2)";
    browser.until(settled).await;
    assert!(loaded < Duration::from_secs(60));
    let elements = browser.run("return document.querySelectorAll('*').length").await;
    assert!(elements.as_u64().is_some_and(|count| count < 2500), "{elements}");
    browser.assert_sound().await;
    // A record that was full before the end lacks this one.
    browser.run("const end = performance.now() + 100; while (performance.now() < end);").await;
    let tasks = browser.tasks().await;
    let most = |of: fn(&Task) -> f64| tasks.iter().map(of).fold(0.0, f64::max);
    let (cpu, wall) = (most(|task| task.cpu), most(|task| task.wall));
    println!("{} tasks, the longest {cpu:.0} ms; {wall:.0} ms from start to end", tasks.len());
    assert!(tasks.iter().rev().take(100).any(|task| task.wall >= 100.0), "the record is whole");
    assert!(cpu < LONGEST, "{cpu} ms");
    app.stop().await;
}
