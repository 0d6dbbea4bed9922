//! A change of the log as all streams share it: written as a frame once, and its patients found
//! once. And a page of such.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::{
    fhir::compartment::patients_of,
    frame::Format,
    position::{Epoch, LogPosition, Position},
    store::{Before, Change, ChangeKind},
};

/// A change with what many streams ask of it, each worked out on first demand.
#[derive(Debug)]
pub struct Entry {
    /// The change.
    pub change: Change,
    frame: OnceLock<Bytes>,
    patients: OnceLock<Vec<Box<str>>>,
    patients_before: OnceLock<Option<Vec<Box<str>>>>,
}

impl Entry {
    /// A change of which nothing is worked out yet.
    #[must_use]
    pub fn new(change: Change) -> Arc<Self> {
        let (frame, patients, patients_before) = Default::default();
        Arc::new(Self { change, frame, patients, patients_before })
    }

    /// The SSE frame of a live stream without members in its positions. Empty for changes that
    /// are no resource's.
    pub fn frame(&self, epoch: Epoch) -> &Bytes {
        self.frame.get_or_init(|| {
            let mut out = BytesMut::new();
            let log = self.change.position;
            let id = Position { epoch, log, members: None, scan: None }.to_string();
            self.write(Format::Sse, &mut out, &id);
            out.freeze()
        })
    }

    /// Writes the change as what it is: an upsert as its resource, a deletion as `deleted`.
    pub fn write(&self, format: Format, out: &mut BytesMut, id: &str) {
        match &self.change.kind {
            ChangeKind::Upsert { ty, json, .. } => format.resource(out, *ty, id, json),
            ChangeKind::Delete { ty, id: resource, .. } => format.deleted(out, *ty, resource, id),
            ChangeKind::Deferred { .. } | ChangeKind::Replaced { .. } => {}
        }
    }

    /// The patients in whose compartments the resource is since the change: nobody's if it is
    /// gone, or can't be read.
    pub fn patients(&self) -> &[Box<str>] {
        self.patients.get_or_init(|| match &self.change.kind {
            ChangeKind::Upsert { ty, id, json, .. } => {
                patients_of(*ty, id, json).unwrap_or_default()
            }
            ChangeKind::Delete { .. }
            | ChangeKind::Deferred { .. }
            | ChangeKind::Replaced { .. } => Vec::new(),
        })
    }

    /// The patients in whose compartments the resource was before the change. `None`: there is
    /// no telling.
    pub fn patients_before(&self) -> Option<&[Box<str>]> {
        let found = self.patients_before.get_or_init(|| match &self.change.kind {
            ChangeKind::Upsert { ty, id, before, .. }
            | ChangeKind::Delete { ty, id, before, .. } => match before {
                Before::Absent => Some(Vec::new()),
                Before::Unknown | Before::Known(_) => {
                    before.json().map(|json| patients_of(*ty, id, &json).unwrap_or_default())
                }
            },
            ChangeKind::Deferred { .. } | ChangeKind::Replaced { .. } => None,
        });
        found.as_deref()
    }

    /// About how many bytes a ring holds for this entry.
    pub(super) fn weight(&self) -> usize {
        const OVERHEAD: usize = 256;
        match &self.change.kind {
            // The text and, once written, its frame.
            ChangeKind::Upsert { json, before, .. } => OVERHEAD + 2 * json.len() + before.weight(),
            ChangeKind::Delete { before, .. } => OVERHEAD + before.weight(),
            ChangeKind::Deferred { .. } | ChangeKind::Replaced { .. } => OVERHEAD,
        }
    }
}

/// Some changes in commit order, and how far they reach.
#[derive(Debug, Default)]
pub struct Page {
    /// The changes.
    pub entries: Vec<Arc<Entry>>,
    /// With them, everything before this is delivered.
    pub level: LogPosition,
    /// The log ended there when it was last read.
    pub quiet: bool,
    /// More is at hand.
    pub more: bool,
}

impl Page {
    /// All its changes.
    pub fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|entry| &**entry)
    }

    /// The last place before another that holds a change of this page.
    #[must_use]
    pub fn place_before(&self, place: LogPosition) -> Option<LogPosition> {
        let earlier = self.entries.partition_point(|entry| entry.change.position < place);
        Some(self.entries.get(earlier.checked_sub(1)?)?.change.position)
    }
}
