//! `/livez`, `/readyz` and `/metrics`.

use std::time::Duration;

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
    let reasons = reasons(app.drain.is_cancelled(), app.hub.silence(), app.options.stale_after);
    match reasons.as_slice() {
        [] => (StatusCode::OK, "ready\n".into()),
        reasons => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}", reasons.concat())),
    }
}

/// Why not to send anybody here: a line each, which begins with the reason's name.
fn reasons(stops: bool, silence: Option<Duration>, stale_after: Duration) -> Vec<String> {
    let mut reasons = Vec::new();
    if stops {
        reasons.push("stopping: the server is stopping\n".into());
    }
    match silence {
        None => reasons.push("log-unread: the change log has not been read yet\n".into()),
        Some(silence) if silence > stale_after => {
            let seconds = silence.as_secs();
            reasons.push(format!("store-silent: the store has been silent for {seconds} s\n"));
        }
        Some(_) => {}
    }
    reasons
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_named() {
        let names = |stops, silence: Option<u64>| {
            let reasons = reasons(stops, silence.map(Duration::from_secs), Duration::from_secs(15));
            reasons
                .iter()
                .map(|line| line.split(':').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert!(names(false, Some(15)).is_empty());
        assert_eq!(names(false, None), ["log-unread"]);
        assert_eq!(names(false, Some(16)), ["store-silent"]);
        assert_eq!(names(true, Some(16)), ["stopping", "store-silent"]);
    }
}
