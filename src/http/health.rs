//! `/livez`, `/readyz` and `/metrics`.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics::gauge;

use super::AppState;
use crate::telemetry::seconds_since;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

async fn ready(State(app): State<AppState>) -> (StatusCode, String) {
    match why_not_ready(&app) {
        None => (StatusCode::OK, "ready\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

fn why_not_ready(app: &AppState) -> Option<String> {
    if app.drain.is_cancelled() {
        return Some("the server is stopping".into());
    }
    match app.hub.silence() {
        None => Some("the change log has not been read yet".into()),
        Some(silence) if silence > app.options.stale_after => {
            Some(format!("the store has been silent for {} s", silence.as_secs()))
        }
        Some(_) => None,
    }
}

async fn metrics(State(app): State<AppState>) -> Response {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    measure(&app);
    match &app.options.metrics {
        Some(handle) => ([(header::CONTENT_TYPE, TEXT)], handle.render()).into_response(),
        None => (StatusCode::NOT_FOUND, "no metrics are kept\n").into_response(),
    }
}

/// What changes with time alone, or is known without counting.
fn measure(app: &AppState) {
    let silence = app.hub.silence().map_or(f64::INFINITY, |silence| silence.as_secs_f64());
    gauge!("fhirtail_tail_silence_seconds").set(silence);
    gauge!("fhirtail_ring_age_seconds").set(seconds_since(app.hub.ring_since()));
    gauge!("fhirtail_scans").set(app.limits.scans().running() as f64);
}
