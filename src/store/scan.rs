//! Which part of a type a scan reads.

use super::ScanKey;
use crate::fhir::ResourceType;

/// Which part of a type to read.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The resource type.
    pub ty: ResourceType,
    /// Go on strictly after this key. Its variant also says in which order the scan goes;
    /// without a key the store chooses: by id, or, where `window` narrows, by lastUpdated.
    pub after: Option<ScanKey>,
    /// Only resources whose `meta.lastUpdated` lies within.
    pub window: Window,
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
