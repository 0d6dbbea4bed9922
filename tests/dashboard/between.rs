//! The states that pass: each is held where it is, and looked at.

use std::time::Duration;

use fhirtail::store::Store;
use serde_json::json;
use support::{
    App, embedded,
    proxy::Proxy,
    writes::{self, commit, patient},
};

use crate::{
    access::look,
    browser::Browser,
    cuts::{WATCH_ROWS, assert_never_empty},
    gaps::{gap, held, report, stored},
};

/// So slow that a state lasts: 64 KB each.
const SLOW: Duration = Duration::from_millis(200);

/// What no compression makes much smaller: a browser takes any.
fn noise(seed: u32, length: usize) -> String {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b'0' + (state >> 13) as u8 % 64)
    };
    std::iter::repeat_with(&mut next).filter(|c| *c != '\\').take(length).collect()
}

/// Some 4 MB: gaps of patients that have names.
async fn history(store: &dyn Store, status: &str) {
    for some in (0..1_500).collect::<Vec<_>>().chunks(300) {
        let all = some.iter().flat_map(|&n| {
            let mut gap = gap(n, n % 4, status);
            gap["detail"] = json!(noise(n as u32 + 1, 2_000));
            [gap, report(n, n % 4), patient(n, &format!("Family {n}"))]
        });
        commit(store, all.map(|one| writes::put(&one)).collect()).await;
    }
}

/// More than the ring and the sockets on the way hold: 30 MB.
async fn burst(store: &dyn Store) {
    for round in 0..150 {
        let gaps = (0..20).map(|n| {
            let mut gap = gap(n, n % 4, if round % 2 == 0 { "closed-gap" } else { "open-gap" });
            gap["detail"] = json!(noise(round * 20 + n as u32 + 1, 10_000));
            writes::put(&gap)
        });
        commit(store, gaps.collect()).await;
    }
}

/// How many resources the page says that it has.
const SO_FAR: &str = "page.stream.loaded.toLocaleString('en') + ' so far, '";

/// Waits until the page says of its state what this pattern, an expression, fits.
async fn until_said(browser: &Browser, says: &str) {
    let told = "document.getElementById('state-detail').textContent";
    browser.until(&format!("RegExp({says}).test({told})")).await;
}

/// Waits for a state, and holds the page in it while it is looked at. `says`: see [`until_said`].
async fn hold(browser: &Browser, proxy: &Proxy, is: &str, [word, says]: [&str; 2], name: &str) {
    browser.until(is).await;
    proxy.swallow();
    assert_eq!(browser.text("state-word").await, word);
    until_said(browser, says).await;
    look(browser, name).await;
    proxy.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_state_that_passes_is_sound() {
    let (bench, other) = (embedded(), embedded());
    history(&*bench.store, "open-gap").await;
    history(&*other.store, "closed-gap").await;
    let options = ["--retry", "0.3", "--ring-bytes", "50000"];
    let app = App::with(bench.store.clone(), &options).await;
    let proxy = Proxy::to(app.address.port()).await;
    let browser = Browser::start().await;
    proxy.delay(SLOW);
    browser.open(&format!("http://127.0.0.1:{}/", proxy.port)).await;
    let is = "page.stream.phase === 'loading' && page.model.gaps.size > 0";
    let says = format!("'^' + {SO_FAR} + '[0-9.,]+ a second$'");
    hold(&browser, &proxy, is, ["Loading history", &says], "loading").await;
    browser.until_live().await;
    browser.run(WATCH_ROWS).await;

    // Nobody listens for a while, and meanwhile much happens.
    proxy.send_to(vec![]);
    proxy.cut();
    browser.until("page.stream.phase === 'waiting'").await;
    assert_eq!(browser.text("state-word").await, "Reconnecting");
    const NEXT: &str = "'^trying again in [0-9] s from position ' + page.stream.position + \
        '; what you see is as of [0-9:]{8}$'";
    until_said(&browser, NEXT).await;
    history(&*bench.store, "prospective-gap").await;
    look(&browser, "reconnecting").await;
    proxy.delay(SLOW);
    proxy.send_to(vec![app.address.port()]);
    let is = "page.stream.phase === 'resuming'";
    let says = "'^connected again; taking what was missed$'";
    hold(&browser, &proxy, is, ["Catching up", says], "resuming").await;
    browser.until_live().await;

    // The page takes nothing while more is written than anything on the way holds.
    proxy.swallow();
    burst(&*bench.store).await;
    proxy.clear();
    proxy.delay(SLOW / 8);
    let is = "page.stream.phase === 'behind'";
    let says = "'^the stream is ahead of this page; catching up at [0-9.,]+ a second$'";
    hold(&browser, &proxy, is, ["Fell behind", says], "behind").await;
    browser.until_live().await;
    assert_eq!(held(&browser).await, stored(&*bench.store).await);
    assert_eq!(browser.ask("page.model.repeats").await, 0, "a version came twice");

    // The next server has another store.
    let next = App::with(other.store.clone(), &options).await;
    proxy.send_to(vec![next.address.port()]);
    proxy.delay(SLOW);
    proxy.cut();
    let is = "page.stream.isAgain && page.stream.loaded > 0";
    let says = format!(
        "'; loading again: ' + {SO_FAR} + '[0-9.,]+ a second; until then you see the last'"
    );
    hold(&browser, &proxy, is, ["Starting over", &says], "starting-over").await;
    browser.until_live().await;
    assert_eq!(held(&browser).await, stored(&*other.store).await);
    assert_never_empty(&browser).await;
    browser.assert_sound().await;
    app.stop().await;
    next.stop().await;
}
