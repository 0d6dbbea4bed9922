//! Which part of a type a scan reads, and in which order.

use std::sync::Arc;

use super::{Clue, ScanKey};
use crate::fhir::ResourceType;

/// Which part of a type to read.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The resource type.
    pub ty: ResourceType,
    /// Go on strictly after this key. Its variant also says in which order the scan goes;
    /// without a key the store chooses: by id, or, where `window` narrows, by lastUpdated. A scan
    /// along [`Along::Updated`] starts at its beginning.
    pub after: Option<ScanKey>,
    /// Only resources whose `meta.lastUpdated` lies within.
    pub window: Window,
    /// In which order.
    pub along: Along,
    /// What all resources have that the reader wants.
    pub clues: Arc<[Clue]>,
}

impl Scan {
    /// All of a type.
    #[must_use]
    pub fn of(ty: ResourceType) -> Self {
        let (window, along) = (Window::default(), Along::default());
        Self { ty, after: None, window, along, clues: Arc::default() }
    }
}

/// In which order a scan goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Along {
    /// By id, or by lastUpdated: see [`Scan::after`].
    #[default]
    Keys,
    /// By id, from the last to the first.
    IdDown,
    /// By `meta.lastUpdated`, then id. Resources without a lastUpdated stand before all others.
    Updated,
    /// The same from the last to the first.
    UpdatedDown,
}

impl Along {
    /// Whether the order hangs on `meta.lastUpdated`: a change moves a resource in it, so what has
    /// been read in one snapshot tells nothing of what lies behind that place in another.
    #[must_use]
    pub fn is_by_time(self) -> bool {
        matches!(self, Self::Updated | Self::UpdatedDown)
    }

    /// Whether it goes from the last to the first.
    #[must_use]
    pub fn is_down(self) -> bool {
        matches!(self, Self::IdDown | Self::UpdatedDown)
    }
}
/// A window of `meta.lastUpdated` in whole milliseconds since 1970, both ends exclusive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Window {
    /// `_since`: strictly later than this.
    pub after_ms: Option<i64>,
    /// `_until`: strictly earlier than this.
    pub before_ms: Option<i64>,
}

impl Window {
    /// Whether the window lets everything through, resources without lastUpdated included.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.after_ms.is_none() && self.before_ms.is_none()
    }

    /// Whether a resource of this lastUpdated is within. One without is in no bounded window.
    #[must_use]
    pub fn contains(&self, updated_ms: Option<i64>) -> bool {
        match updated_ms {
            None => self.is_open(),
            Some(ms) => {
                self.after_ms.is_none_or(|after| ms > after)
                    && self.before_ms.is_none_or(|before| ms < before)
            }
        }
    }
}
