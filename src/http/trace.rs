//! Each request as it is traced, by OpenTelemetry's names for HTTP servers: method, route and
//! status. Path and query stay out of it: they may name people.

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, field::Empty, info_span};

use crate::telemetry;

/// Asked all the time, and by no user.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

pub(super) async fn layer(request: Request, next: Next) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let span = info_span!(
        "request",
        otel.kind = "server",
        otel.name = Empty,
        http.request.method = request.method().as_str(),
        http.route = Empty,
        http.response.status_code = Empty,
        otel.status_code = Empty,
    );
    if span.is_disabled() {
        return next.run(request).await;
    }
    telemetry::adopt(&span, request.headers());
    match request.extensions().get::<MatchedPath>() {
        Some(route) => {
            span.record("otel.name", format!("{} {}", request.method(), route.as_str()));
            span.record("http.route", route.as_str());
        }
        None => _ = span.record("otel.name", request.method().as_str()),
    }
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}
