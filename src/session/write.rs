//! Where frames get their positions: all that a session writes goes through here.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{Ended, Session, Stage};
use crate::{
    fhir::outcome::{self, IssueType},
    filter::Verdict,
    frame::{Control, Format},
    live::Entry,
    plan::{Members, Plan},
    position::{LogPosition, Position, ScanPosition},
    store::ChangeKind,
};

/// How long a client's position may stand still while the log moves: less than passes between
/// two times that a stream at rest hears of it.
pub(crate) const CHECKPOINT_AFTER: Duration = Duration::from_secs(4);

/// Writes a change that moves the client to `position`: as what it is, or, to a stream that the
/// resource has left, as a deletion that says so.
pub(super) fn put_change(
    out: &mut BytesMut,
    plan: &Plan,
    format: Format,
    position: &Position,
    entry: &Entry,
    gone: bool,
) {
    if let Some(frame) = shared_frame(plan, format, position, entry, gone) {
        return out.extend_from_slice(frame);
    }
    let id = position.to_string();
    match &entry.change.kind {
        ChangeKind::Upsert { ty, id: resource, .. } if gone => {
            format.left(out, *ty, resource, &id);
        }
        ChangeKind::Upsert { ty, json, .. } => match plan.elements.part(*ty) {
            Some(part) => format.resource(out, *ty, &id, &part.of_resource(json)),
            None => format.resource(out, *ty, &id, json),
        },
        _ => entry.write(format, out, &id),
    }
}

/// The frame that is written once for all streams, where this is one of them.
fn shared_frame<'e>(
    plan: &Plan,
    format: Format,
    position: &Position,
    entry: &'e Entry,
    gone: bool,
) -> Option<&'e Bytes> {
    let plain = position.scan.is_none() && position.members.is_none();
    let as_it_is = match &entry.change.kind {
        ChangeKind::Upsert { ty, .. } => !gone && plan.elements.leave_whole(*ty),
        ChangeKind::Delete { .. } | ChangeKind::Deferred { .. } | ChangeKind::Replaced { .. } => {
            true
        }
    };
    (plain && as_it_is && format == Format::Sse).then(|| entry.frame(position.epoch))
}

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
        self.tell(entry.change.position, scan);
        self.events += 1;
        let Some(position) = &self.told else { return Ok(true) };
        let gone = verdict == Verdict::Gone;
        match shared_frame(&self.plan, self.format, position, entry, gone) {
            Some(frame) => self.out.share(frame),
            None => {
                put_change(self.out.buffer(), &self.plan, self.format, position, entry, gone);
            }
        }
        Ok(true)
    }

    pub(super) fn write_control(&mut self, control: Control, data: &[u8], log: LogPosition) {
        let id = self.tell(log, None).to_string();
        self.events += 1;
        self.format.control(self.out.buffer(), control, &id, data);
    }

    /// Moves a client's position that has stood still for a while, without an event.
    pub(super) fn checkpoint(&mut self, log: LogPosition, scan: Option<ScanPosition>) {
        let due = self.told_at.elapsed() >= CHECKPOINT_AFTER;
        let moved = |told: &Position| told.log != log || told.scan != scan;
        if due && self.told.as_ref().is_none_or(moved) {
            let id = self.tell(log, scan).to_string();
            self.format.checkpoint(self.out.buffer(), &id);
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
        self.format.control(self.out.buffer(), Control::Reset, "", &data);
        self.told = None;
        self.told_at = Instant::now();
        self.caught_up = false;
        self.stage = Stage::Begin;
        Ok(())
    }

    /// What is about to be written moves the client to this position: its text is the id.
    pub(super) fn tell(&mut self, log: LogPosition, scan: Option<ScanPosition>) -> &Position {
        let members = self.members.as_ref().and_then(Members::hash);
        self.told_at = Instant::now();
        self.told.insert(Position { epoch: self.epoch, log, members, scan })
    }
}
