//! How old a position still works, measured now and then: no request waits for that.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    store::{Store, detached},
    telemetry::seconds_since,
};

/// How often.
const EVERY: Duration = Duration::from_secs(30);

/// Measures until `stop`.
pub(super) async fn keep_measuring(store: Arc<dyn Store>, stop: CancellationToken) {
    loop {
        measure(&store).await;
        if stop.run_until_cancelled(sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

/// Where the store can't say, the last that it said stands.
async fn measure(store: &Arc<dyn Store>) {
    let asked = Arc::clone(store);
    match detached(async move { asked.oldest().await }).await {
        Ok(Some(oldest)) => {
            gauge!("fhirtail_log_headroom_seconds").set(seconds_since(oldest));
        }
        Ok(None) => {}
        Err(error) => debug!(%error, "the oldest change of the log is not known"),
    }
}
