//! How old a position still works, measured now and then: no request waits for that.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use tokio::time::sleep;
use tracing::debug;

use super::hub::Hub;
use crate::{store::detached, telemetry::seconds_since};

/// How often.
const EVERY: Duration = Duration::from_secs(30);

/// Measures until the hub stops.
pub(super) async fn keep_measuring(hub: Arc<Hub>) {
    loop {
        measure(&hub).await;
        if hub.stop.run_until_cancelled(sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

/// Where the store can't say, the last that it said stands.
async fn measure(hub: &Hub) {
    let asked = Arc::clone(&hub.store);
    match detached(async move { asked.oldest().await }).await {
        Ok(Some(oldest)) => {
            hub.oldest.send_replace(Some(oldest));
            gauge!("fhirtail_log_headroom_seconds").set(seconds_since(oldest));
        }
        Ok(None) => {}
        Err(error) => debug!(%error, "the oldest change of the log is not known"),
    }
}
