//! Traces as OpenTelemetry has them, sent by OTLP over HTTP.
//!
//! All is said by OpenTelemetry's own environment variables; without an endpoint among them
//! nothing is traced and nothing leaves. `docs/TRACES.md` names the spans.

use axum::http::HeaderMap;
use opentelemetry::{
    KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::{
    ExporterBuildError, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, Protocol,
    SpanExporter, WithExportConfig,
};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use super::{asked_for, said};
use crate::tls;

/// Why nothing can be traced, though somebody asks for it.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A protocol that is not spoken.
    #[error("traces are sent as http/protobuf or http/json, not as {0:?}: see {by}", by = OTEL_EXPORTER_OTLP_PROTOCOL)]
    Protocol(String),
    /// Anything else that OpenTelemetry's variables say wrong.
    #[error("traces can't be sent: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// Sends what is traced, until it is dropped: then what is left goes out.
#[derive(Debug)]
#[must_use]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// As the environment has it.
    pub(super) fn of_environment() -> Result<Self, TracesError> {
        if asked_for().is_none() {
            return Ok(Self(None));
        }
        let protocol = protocol()?;
        tls::provide();
        let exporter = SpanExporter::builder().with_http().with_protocol(protocol).build()?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource())
            .build();
        Ok(Self(Some(provider)))
    }

    /// What takes the spans.
    pub(super) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
    {
        let tracer = self.0.as_ref()?.tracer(env!("CARGO_PKG_NAME"));
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        let plain = layer.with_location(false).with_threads(false).with_tracked_inactivity(false);
        // What the exporter itself does is not traced.
        let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO);
        Some(plain.with_target(false).with_filter(ours))
    }

    /// Says that it traces.
    pub(super) fn announce(&self) {
        if self.0.is_some() {
            tracing::info!("traces are sent by OTLP");
        }
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// That which is asked for; OTLP's default is protobuf.
fn protocol() -> Result<Protocol, TracesError> {
    let asked = [OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL];
    match asked.into_iter().find_map(said).as_deref() {
        None | Some("http/protobuf") => Ok(Protocol::HttpBinary),
        Some("http/json") => Ok(Protocol::HttpJson),
        Some(other) => Err(TracesError::Protocol(other.to_owned())),
    }
}

/// Who traces: `fhirtail`, where the environment gives no other name.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    let named = said("OTEL_SERVICE_NAME").is_some()
        || said("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|said| said.contains("service.name="));
    match named {
        true => resource.build(),
        false => resource.with_service_name(env!("CARGO_PKG_NAME")).build(),
    }
}

/// `span` belongs to the trace that a request's `traceparent` names (W3C Trace Context).
pub(crate) fn adopt(span: &Span, headers: &HeaderMap) {
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    if context.has_active_span() {
        // Refused where nothing is traced.
        let _ = span.set_parent(context);
    }
}

/// `span` comes of the current one, and outlives it: a `tracing` parent would not end before its
/// children.
pub(crate) fn outlive_current(span: &Span) {
    let _ = span.set_parent(Span::current().context());
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
