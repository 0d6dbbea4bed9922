//! Every metric that there is: its name, what it says, and the series that it has from the
//! start. An alert rule needs a zero before the first event.

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// The one histogram.
pub(crate) const COMMIT_TO_SOCKET: &str = "fhirtail_commit_to_socket_seconds";

/// Its buckets, in seconds.
pub(super) const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// A label, and all values that it takes.
type Label = (&'static str, &'static [&'static str]);

const FORMAT: Label = ("format", &["sse", "ndjson", "bundle"]);
const PHASE: Label = ("phase", &["history", "replay", "behind", "live"]);
const LIMIT: Label = ("limit", &["streams", "address", "scans"]);

/// Tells the recorder of all.
pub(super) fn register() {
    streams();
    clients();
    log();
    live();
    encryption();
    defects();
}

fn streams() {
    level("fhirtail_streams", Unit::Count, &[FORMAT, PHASE], "Open streams, by what they do");
    count("fhirtail_streams_opened_total", Unit::Count, &[FORMAT], "Streams opened");
    count(
        "fhirtail_streams_refused_total",
        Unit::Count,
        &[LIMIT],
        "Streams refused, by the limit that was reached",
    );
    count("fhirtail_resets_total", Unit::Count, &[], "Times a stream had to start over");
    count(
        "fhirtail_sent_events_total",
        Unit::Count,
        &[FORMAT],
        "Events or lines given to sockets; caught-up and fell-behind are events too",
    );
    count(
        "fhirtail_sent_bytes_total",
        Unit::Bytes,
        &[FORMAT],
        "Bytes of what was given to sockets, before compression, without comments",
    );
    level("fhirtail_scans", Unit::Count, &[], "Histories that are read");
    level("fhirtail_scans_waiting", Unit::Count, &[], "Streams whose history waits for its turn");
    count(
        "fhirtail_scans_set_aside_total",
        Unit::Count,
        &[],
        "Times a history whose client took nothing gave its turn to one that waited",
    );
}

fn clients() {
    level("fhirtail_connections", Unit::Count, &[], "Open connections, streams or not");
    count(
        "fhirtail_accept_failures_total",
        Unit::Count,
        &[],
        "Times a connection could not be accepted",
    );
    count(
        "fhirtail_slow_clients_dropped_total",
        Unit::Count,
        &[],
        "Connections cut, and streams of HTTP/2 reset, since the client took nothing for the write \
         deadline",
    );
    describe_histogram!(
        COMMIT_TO_SOCKET,
        Unit::Seconds,
        "From a change's commit until it was written to the level streams of one query"
    );
    // What was never recorded has buckets of zero.
    let _ = histogram!(COMMIT_TO_SOCKET);
}

fn log() {
    count("fhirtail_changes_total", Unit::Count, &[], "Changes that the tail has read");
    count("fhirtail_tail_failures_total", Unit::Count, &[], "Failed reads of the change log");
    count("fhirtail_tail_restarts_total", Unit::Count, &[], "Times a defect ended the tail");
    count("fhirtail_log_lost_total", Unit::Count, &[], "Times the tail lost the change log");
    measure(
        "fhirtail_tail_silence_seconds",
        Unit::Seconds,
        "Since the tail last heard from the store",
    );
    measure(
        "fhirtail_tail_lag_seconds",
        Unit::Seconds,
        "How far behind the end of the log the tail was at most when it last read",
    );
    measure(
        "fhirtail_log_headroom_seconds",
        Unit::Seconds,
        "Age of the oldest entry of the change log: how old a position still works",
    );
}

fn live() {
    level("fhirtail_ring_bytes", Unit::Bytes, &[], "Bytes of changes in the ring");
    level("fhirtail_ring_capacity_bytes", Unit::Bytes, &[], "Bytes that the ring may hold");
    level("fhirtail_ring_changes", Unit::Count, &[], "Changes in the ring");
    measure("fhirtail_ring_age_seconds", Unit::Seconds, "How far back the ring reaches at least");
    level("fhirtail_catch_ups", Unit::Count, &[], "Readers open for streams behind the ring");
    level("fhirtail_catch_up_streams", Unit::Count, &[], "Streams that such readers carry");
    level("fhirtail_catch_ups_waiting", Unit::Count, &[], "Streams that wait for such a reader");
    count(
        "fhirtail_catch_ups_total",
        Unit::Count,
        &[],
        "Readers opened for streams behind the ring",
    );
}

fn encryption() {
    level(
        "fhirtail_tls_certificate_refused",
        Unit::Count,
        &[],
        "1 while the files of certificate and key hold what is of no use",
    );
}

fn defects() {
    count("fhirtail_panics_total", Unit::Count, &[], "Defects met, whoever met them");
    count(
        "fhirtail_log_lines_lost_total",
        Unit::Count,
        &[],
        "Lines of the log that standard error did not take in time",
    );
    count(
        "fhirtail_unreadable_documents_total",
        Unit::Count,
        &[],
        "Documents of the store that are no resources and were passed over",
    );
}

/// A counter, with all its series.
fn count(name: &'static str, unit: Unit, labels: &[Label], help: &'static str) {
    describe_counter!(name, unit, help);
    for series in series(labels) {
        counter!(name, &series).absolute(0);
    }
}

/// A gauge that begins at zero, with all its series.
fn level(name: &'static str, unit: Unit, labels: &[Label], help: &'static str) {
    describe_gauge!(name, unit, help);
    for series in series(labels) {
        gauge!(name, &series).set(0.0);
    }
}

/// A gauge that is not there before it was measured.
fn measure(name: &'static str, unit: Unit, help: &'static str) {
    describe_gauge!(name, unit, help);
}

/// Each combination of the labels' values.
fn series(labels: &[Label]) -> Vec<Vec<(&'static str, &'static str)>> {
    labels.iter().fold(vec![Vec::new()], |all, (label, values)| {
        let with =
            |value| all.iter().map(move |series| [series.as_slice(), &[(*label, value)]].concat());
        values.iter().flat_map(|value| with(*value)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_is_a_series() {
        assert_eq!(series(&[]), [vec![]]);
        assert_eq!(series(&[FORMAT, PHASE]).len(), 12);
        assert!(series(&[FORMAT, PHASE]).contains(&vec![("format", "ndjson"), ("phase", "live")]));
    }
}
