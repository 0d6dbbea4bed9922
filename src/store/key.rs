//! Where a resource stands in the scan of its type: keys to keep, and keys that lie in a batch.

use std::{cmp::Ordering, fmt};

/// The key of a stored document in its collection, in the store's own order: texts by their
/// bytes, then ObjectIds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocId {
    /// A string, most often the resource's id.
    Text(Box<str>),
    /// A MongoDB ObjectId.
    Oid([u8; 12]),
}

impl DocId {
    /// A look at it.
    #[must_use]
    pub fn borrowed(&self) -> DocRef<'_> {
        match self {
            Self::Text(id) => DocRef::Text(id),
            Self::Oid(bytes) => DocRef::Oid(*bytes),
        }
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrowed().fmt(f)
    }
}

/// Where a resource stands in the scan of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanKey {
    /// In a scan by document id.
    Id(DocId),
    /// In a scan by `meta.lastUpdated` (ms since 1970), then document id.
    Updated(i64, DocId),
}

impl ScanKey {
    /// A look at it.
    #[must_use]
    pub fn borrowed(&self) -> KeyRef<'_> {
        match self {
            ScanKey::Id(doc) => KeyRef::Id(doc.borrowed()),
            ScanKey::Updated(ms, doc) => KeyRef::Updated(*ms, doc.borrowed()),
        }
    }

    /// The document's key.
    #[must_use]
    pub fn doc(&self) -> &DocId {
        let (ScanKey::Id(doc) | ScanKey::Updated(_, doc)) = self;
        doc
    }

    /// Where a document would stand in a scan of the same order as `self`. `None`: nowhere,
    /// since it has no lastUpdated to be ordered by.
    #[must_use]
    pub fn same_order(&self, doc: &DocId, updated_ms: Option<i64>) -> Option<ScanKey> {
        match self {
            ScanKey::Id(_) => Some(ScanKey::Id(doc.clone())),
            ScanKey::Updated(..) => updated_ms.map(|ms| ScanKey::Updated(ms, doc.clone())),
        }
    }
}

impl PartialOrd for ScanKey {
    /// Keys of different orders do not compare.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.borrowed().partial_cmp(&other.borrowed())
    }
}

/// A [`DocId`] that lies in a batch or in a stored document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DocRef<'a> {
    /// A string.
    Text(&'a str),
    /// A MongoDB ObjectId.
    Oid([u8; 12]),
}

impl DocRef<'_> {
    /// The same, to keep.
    #[must_use]
    pub fn to_doc(self) -> DocId {
        match self {
            Self::Text(id) => DocId::Text(id.into()),
            Self::Oid(bytes) => DocId::Oid(bytes),
        }
    }
}

impl fmt::Display for DocRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(id) => f.write_str(id),
            Self::Oid(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// A [`ScanKey`] that lies in a batch or in a stored document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRef<'a> {
    /// In a scan by document id.
    Id(DocRef<'a>),
    /// In a scan by `meta.lastUpdated` (ms since 1970), then document id.
    Updated(i64, DocRef<'a>),
}

impl<'a> KeyRef<'a> {
    /// The document's key.
    #[must_use]
    pub fn doc(self) -> DocRef<'a> {
        let (Self::Id(doc) | Self::Updated(_, doc)) = self;
        doc
    }

    /// The same, to keep.
    #[must_use]
    pub fn to_key(self) -> ScanKey {
        match self {
            Self::Id(doc) => ScanKey::Id(doc.to_doc()),
            Self::Updated(ms, doc) => ScanKey::Updated(ms, doc.to_doc()),
        }
    }
}

impl PartialOrd for KeyRef<'_> {
    /// Keys of different orders do not compare.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Id(a), Self::Id(b)) => Some(a.cmp(b)),
            (Self::Updated(a, x), Self::Updated(b, y)) => Some((a, x).cmp(&(b, y))),
            _ => None,
        }
    }
}
