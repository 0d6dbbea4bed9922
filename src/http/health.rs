//! `/livez`, `/readyz` and `/metrics`.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::AppState;

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
    let silence = app.hub.silence().map_or(f64::INFINITY, |silence| silence.as_secs_f64());
    metrics::gauge!("fhirtail_tail_silence_seconds").set(silence);
    match &app.options.metrics {
        Some(handle) => ([(header::CONTENT_TYPE, TEXT)], handle.render()).into_response(),
        None => (StatusCode::NOT_FOUND, "no metrics are kept\n").into_response(),
    }
}
