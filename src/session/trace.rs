//! A stream as it is traced: one span from its beginning to its end, below it one for each phase
//! until it is live, and one for each type that its history reads.

use tracing::{Span, field::Empty, info_span};

use super::open::Phase;
use crate::{fhir::ResourceType, telemetry};

/// The spans that are open. The inner ones end first.
#[derive(Debug)]
pub(super) struct Trace {
    scan: Span,
    reading: Option<ResourceType>,
    phase: Span,
    /// It was level once. From then on it may fall behind and catch up with every change: that is
    /// told by metrics.
    is_level: bool,
    stream: Span,
}

impl Trace {
    /// A stream begins, in its history.
    pub(super) fn new(number: u64, format: &'static str) -> Self {
        let stream = info_span!(
            parent: None,
            "stream",
            fhirtail.stream = number,
            fhirtail.format = format,
            fhirtail.events = Empty,
            fhirtail.bytes = Empty,
            fhirtail.why = Empty,
            otel.status_code = Empty,
        );
        telemetry::outlive_current(&stream);
        let phase = of_phase(&stream, Phase::History);
        Self { scan: Span::none(), reading: None, phase, is_level: false, stream }
    }

    pub(super) fn enters(&mut self, phase: Phase) {
        if self.is_level {
            return;
        }
        self.reads(None);
        self.phase = of_phase(&self.stream, phase);
        self.is_level = phase == Phase::Live;
    }

    /// The history reads another type, or none.
    pub(super) fn reads(&mut self, ty: Option<ResourceType>) {
        if std::mem::replace(&mut self.reading, ty) == ty {
            return;
        }
        self.scan = ty.map_or_else(Span::none, |ty| {
            let name = ty.name();
            info_span!(
                parent: &self.phase,
                "scan",
                otel.name = %format_args!("scan {name}"),
                fhir.type = name,
            )
        });
    }

    pub(super) fn ends(&self, events: u64, bytes: u64, why: &str, is_defect: bool) {
        self.stream.record("fhirtail.events", events);
        self.stream.record("fhirtail.bytes", bytes);
        self.stream.record("fhirtail.why", why);
        if is_defect {
            self.stream.record("otel.status_code", "ERROR");
        }
    }
}

fn of_phase(stream: &Span, phase: Phase) -> Span {
    info_span!(parent: stream, "phase", otel.name = phase.name())
}
