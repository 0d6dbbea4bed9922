//! Logs and metrics: text on a terminal, JSON otherwise; Prometheus' text on `/metrics`.

use std::{io::IsTerminal, time::Duration};

use metrics::{Unit, describe_counter, describe_gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Logs to standard error. `RUST_LOG` says how much (default `info`).
pub fn log() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,mongodb=warn,hickory=warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second logger, in a process that has one, is refused: the first stays.
    let _ = match std::io::stderr().is_terminal() {
        true => logs.with_target(false).try_init(),
        false => logs.json().flatten_event(true).try_init(),
    };
}

/// Installs the process's metrics recorder, with its upkeep.
///
/// # Errors
/// There is one already.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            upkeep.run_upkeep();
        }
    });
    describe();
    Ok(handle)
}

fn describe() {
    describe_gauge!("fhirtail_streams", "Open streams, by format");
    describe_counter!("fhirtail_streams_total", "Streams opened, by format");
    describe_counter!("fhirtail_sent_bytes_total", Unit::Bytes, "Bytes sent, by format");
    describe_counter!("fhirtail_resets_total", "Streams that had to start over");
    describe_counter!("fhirtail_changes_total", "Changes that the tail has read");
    describe_counter!("fhirtail_tail_failures_total", "Failed reads of the change log");
    describe_counter!("fhirtail_log_lost_total", "Times the change log was lost");
    describe_gauge!("fhirtail_tail_silence_seconds", Unit::Seconds, "Since the tail last heard");
    describe_gauge!("fhirtail_ring_bytes", Unit::Bytes, "Bytes of changes in the ring");
    describe_gauge!("fhirtail_ring_changes", "Changes in the ring");
    describe_counter!("fhirtail_tail_restarts_total", "Times a defect ended the tail");
    describe_gauge!("fhirtail_catch_ups", "Readers open for streams behind the ring");
    describe_gauge!("fhirtail_catch_up_streams", "Streams that such readers carry");
    describe_gauge!("fhirtail_catch_ups_waiting", "Streams that wait for such a reader");
    describe_counter!("fhirtail_catch_ups_total", "Readers opened for streams behind the ring");
    describe_counter!("fhirtail_panics_total", "Defects met while answering");
    describe_counter!(
        "fhirtail_unreadable_documents_total",
        "Documents of the store that are no resources and were passed over"
    );
}
