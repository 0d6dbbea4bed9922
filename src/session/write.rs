//! Where frames get their positions: all that a session writes goes through here.

use std::time::Duration;

use tokio::time::Instant;

use super::{Ended, Session, Stage};
use crate::{
    fhir::outcome::{self, IssueType},
    filter::Verdict,
    frame::{Control, Format},
    live::Entry,
    plan::Members,
    position::{LogPosition, Position, ScanPosition},
    store::ChangeKind,
};

/// How long a client's position may stand still while the log moves.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(5);

impl Session {
    /// Writes what a change means to this stream. `false`: it starts over.
    pub(super) fn write_change(
        &mut self,
        entry: &Entry,
        verdict: Verdict,
        scan: Option<ScanPosition>,
    ) -> Result<bool, Ended> {
        match verdict {
            Verdict::Skip => return Ok(true),
            Verdict::Reset(why) => return self.reset(&why).map(|()| false),
            Verdict::Upsert | Verdict::Gone => {}
        }
        let log = entry.change.position;
        let as_it_is = matches!(
            (&entry.change.kind, &verdict),
            (ChangeKind::Upsert { .. }, Verdict::Upsert) | (ChangeKind::Delete { .. }, _)
        );
        if as_it_is && self.format == Format::Sse && scan.is_none() && self.members.is_none() {
            self.tell(log, None);
            self.out.extend_from_slice(entry.frame(self.epoch));
            return Ok(true);
        }
        let id = self.tell(log, scan).to_string();
        match &entry.change.kind {
            ChangeKind::Upsert { ty, id: resource, .. } if verdict == Verdict::Gone => {
                self.format.deleted(&mut self.out, *ty, resource, &id);
            }
            _ => entry.write(self.format, &mut self.out, &id),
        }
        Ok(true)
    }

    pub(super) fn write_control(&mut self, control: Control, data: &[u8], log: LogPosition) {
        let id = self.tell(log, None).to_string();
        self.format.control(&mut self.out, control, &id, data);
    }

    /// Moves a client's position that has stood still for a while, without an event.
    pub(super) fn checkpoint(&mut self, log: LogPosition, scan: Option<ScanPosition>) {
        let due = self.told_at.elapsed() >= CHECKPOINT_AFTER;
        let moved = |told: &Position| told.log != log || told.scan != scan;
        if due && self.told.as_ref().is_none_or(moved) {
            let id = self.tell(log, scan).to_string();
            self.format.checkpoint(&mut self.out, &id);
        }
    }

    /// The client's copy is worth nothing: it hears so, and the history starts again. The empty
    /// id makes a browser forget its position.
    ///
    /// # Errors
    /// Lines without events can't say so: that stream breaks off.
    pub(super) fn reset(&mut self, why: &str) -> Result<(), Ended> {
        if self.format == Format::Ndjson {
            return Err(Ended::Gone(why.to_owned()));
        }
        metrics::counter!("fhirtail_resets_total").increment(1);
        let text = format!("{why}. Drop your copy: the history starts again.");
        let data = outcome::error(IssueType::Incomplete, &text, &["Last-Event-ID".to_owned()]);
        self.format.control(&mut self.out, Control::Reset, "", &data);
        self.told = None;
        self.told_at = Instant::now();
        self.caught_up = false;
        self.stage = Stage::Begin;
        Ok(())
    }

    /// What is about to be written moves the client to this position: its text is the id.
    pub(super) fn tell(&mut self, log: LogPosition, scan: Option<ScanPosition>) -> &Position {
        let members = self.members.as_ref().map(Members::hash);
        self.told_at = Instant::now();
        self.told.insert(Position { epoch: self.epoch, log, members, scan })
    }
}
