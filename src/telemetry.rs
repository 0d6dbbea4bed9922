//! Logs, text on a terminal and JSON otherwise, for which nobody waits; metrics, Prometheus' text on
//! `/metrics`; traces, where they are built in and asked for.
//!
//! [`table`] names every metric; `docs/METRICS.md` says what to do about each.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env,
    io::{IsTerminal, Write},
    panic,
    time::Duration,
};

use jiff::Timestamp;
use metrics::{Gauge, counter};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt,
    layer::{Filter, SubscriberExt},
    registry,
    util::SubscriberInitExt,
};

mod lines;
mod table;
#[cfg_attr(not(feature = "otel"), path = "telemetry/no_traces.rs")]
mod traces;

use lines::{Lines, Lost};
pub(crate) use table::COMMIT_TO_SOCKET;
use table::SECONDS;
pub use traces::{Traces, TracesError};
pub(crate) use traces::{adopt, outlive_current};

/// Logs and traces, until it is dropped: what is left of them goes out then.
#[derive(Debug)]
#[must_use]
pub struct Telemetry {
    traces: Traces,
    _lines: Lines,
    lost: Lost,
}

/// Logs to standard error, by a thread that waits for it. `RUST_LOG` says how much (default `info`).
/// Traces, if OpenTelemetry's variables say where to.
///
/// # Errors
/// What those variables say is of no use.
pub fn start() -> Result<Telemetry, TracesError> {
    let traces = Traces::of_environment()?;
    let (lines, thread, lost) = lines::to(std::io::stderr());
    let telemetry = Telemetry { traces, _lines: thread, lost };
    let logs = fmt::layer().with_writer(lines);
    let logs = match std::io::stderr().is_terminal() {
        true => logs.with_target(false).boxed(),
        false => logs.json().flatten_event(true).boxed(),
    };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,mongodb=warn,hickory=warn,opentelemetry=warn"));
    // A second logger, in a process that has one, is refused: the first stays.
    let _ = subscriber(logs.with_filter(only_events(filter)), &telemetry.traces).try_init();
    telemetry.traces.announce();
    Ok(telemetry)
}

/// A variable that says something.
fn said(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variable by which OpenTelemetry is asked for traces, if it is and none takes that back.
fn asked_for() -> Option<&'static str> {
    let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let is = |name, value| said(name).is_some_and(|said| said.eq_ignore_ascii_case(value));
    let taken_back = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
    endpoints.into_iter().find(|name| !taken_back && said(name).is_some())
}

/// Of what `filter` lets through, what becomes a line: no span.
fn only_events<S: Subscriber>(filter: EnvFilter) -> impl Filter<S> {
    filter.and(filter_fn(|what| what.is_event()).with_max_level_hint(LevelFilter::TRACE))
}

/// `logs` for the lines, and for spans what traces them. Where nothing does, none is made: a layer
/// that is `None` would have had all of them made.
fn subscriber(
    logs: impl Layer<Registry> + Send + Sync,
    traces: &Traces,
) -> Box<dyn Subscriber + Send + Sync> {
    let logs = registry().with(logs);
    match traces.layer() {
        Some(spans) => Box::new(logs.with(spans)),
        None => Box::new(logs),
    }
}

impl Telemetry {
    /// Installs the process's metrics recorder, with its upkeep. Whatever may be counted is there
    /// from now on, at zero.
    ///
    /// # Errors
    /// There is one already.
    pub fn metrics(&self) -> Result<PrometheusHandle, BuildError> {
        let buckets = Matcher::Full(COMMIT_TO_SOCKET.to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &SECONDS)?;
        let handle = builder.install_recorder()?;
        let (upkeep, lost) = (handle.clone(), self.lost.clone());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(5));
            loop {
                tick.tick().await;
                upkeep.run_upkeep();
                counter!("fhirtail_log_lines_lost_total").absolute(lost.count());
            }
        });
        table::register();
        tell_defects();
        Ok(handle)
    }
}

/// Counts what panics, wherever it does: not all that runs here has somebody who waits for it. And
/// tells it, whatever the log leaves out, before the process may end by it.
fn tell_defects() {
    panic::set_hook(Box::new(|defect| {
        counter!("fhirtail_panics_total").increment(1);
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        let text = lines::of_defect(&defect.to_string(), trace, std::io::stderr().is_terminal());
        last_word(text);
    }));
}

/// Says on standard error what the process may end by. Nobody may read that: it is not waited for
/// longer than a moment, and the exit status says the same.
pub fn last_word(text: String) {
    lines::for_a_while("last word", move || drop(std::io::stderr().write_all(text.as_bytes())));
}

/// One more in a gauge, for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Adds one.
    #[must_use]
    pub fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// How long ago something was, in seconds by this machine's clock; never negative, though
/// clocks differ.
#[must_use]
pub fn seconds_since(then: Timestamp) -> f64 {
    Timestamp::now().duration_since(then).as_secs_f64().max(0.0)
}

#[cfg(test)]
mod tests {
    use tracing::{info_span, subscriber::with_default, trace_span};

    use super::*;

    #[test]
    fn where_nothing_is_traced_there_are_no_spans() {
        let traces = Traces::of_environment().expect("no word of them");
        let logs = fmt::layer()
            .with_writer(std::io::sink)
            .with_filter(only_events(EnvFilter::new("info")));
        with_default(subscriber(logs, &traces), || {
            assert!(info_span!("request").is_disabled() && trace_span!("frame").is_disabled());
            assert_eq!(LevelFilter::current(), LevelFilter::INFO);
        });
    }
}
