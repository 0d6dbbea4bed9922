//! The page's model by itself, in the browser's own engine.

use serde_json::json;
use support::{App, embedded};

use crate::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_holds_depends_on_no_order() {
    let bench = embedded();
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    let script = concat!("return (async () => {", include_str!("model.js"), "})()");
    assert_eq!(browser.run(script).await, json!([]));
    app.stop().await;
}

/// A turn of the page comes each 200 ms while changes come, and a step takes what follows within 250.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_goes_on_is_many_steps() {
    const RECORD: &str = "return import('/dashboard/trend.js').then(({ Trend }) => {
        const trend = new Trend();
        for (let n = 0; n <= 50; n++) trend.record(n * 200, n, -n);
        return trend.points;
    })";
    let bench = embedded();
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    let points = browser.run(RECORD).await;
    let points: Vec<[i64; 3]> = serde_json::from_value(points).expect("points");
    assert!(points.len() >= 25, "{points:?}");
    assert!(points.windows(2).skip(1).all(|two| two[1][0] - two[0][0] >= 250), "{points:?}");
    // A point may be ahead of its time by the turns that it took in, and is never behind it.
    let ahead =
        |[at, open, closed]: &[i64; 3]| open == &-closed && (0..250).contains(&(open * 200 - at));
    assert!(points.iter().all(ahead), "{points:?}");
    assert_eq!(points.last().map(|last| [last[1], last[2]]), Some([50, -50]));
    app.stop().await;
}
