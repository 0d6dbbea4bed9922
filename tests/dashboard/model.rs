//! The page's model by itself, in the browser's own engine.

use serde_json::json;

use crate::{
    browser::Browser,
    support::{App, embedded},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_holds_depends_on_no_order() {
    let bench = embedded();
    let (app, browser) = (App::start(bench.store.clone()).await, Browser::start().await);
    browser.open(&app.url("/")).await;
    let script = concat!("return (async () => {", include_str!("model.js"), "})()");
    assert_eq!(browser.run(script).await, json!([]));
    app.stop().await;
}
