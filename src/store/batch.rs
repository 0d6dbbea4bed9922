//! What a scan hands over: resources as lines of one text, and where each of them stands.

use std::ops::Range;

use bytes::Bytes;

use super::{DocRef, KeyRef, ScanKey};

/// Some resources of one type, in key order. All texts share one buffer.
#[derive(Debug, Default)]
pub struct ScanBatch {
    /// Each resource as compact JSON, and a line feed.
    lines: Bytes,
    /// The texts of the keys, one behind the other.
    ids: Box<str>,
    rows: Vec<Row>,
    /// How far the scan has come, where that is beyond the last resource: what lies between
    /// them is no part of it.
    pub reached: Option<ScanKey>,
}

/// Where a line and its key end, and what a key has beside its text.
#[derive(Debug)]
struct Row {
    line_end: usize,
    id_end: usize,
    oid: Option<[u8; 12]>,
    updated_ms: Option<i64>,
}

/// One resource of a scan.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// Where it stands in the scan.
    pub key: ScanKey,
    /// The stored resource as compact JSON (no line breaks).
    pub json: Bytes,
}

impl ScanBatch {
    /// How many resources it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it holds no resource.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where the resource at an index stands in the scan.
    #[must_use]
    pub fn key(&self, index: usize) -> Option<KeyRef<'_>> {
        let row = self.rows.get(index)?;
        let doc = match row.oid {
            Some(oid) => DocRef::Oid(oid),
            None => DocRef::Text(self.ids.get(self.start(index, |row| row.id_end)..row.id_end)?),
        };
        Some(row.updated_ms.map_or(KeyRef::Id(doc), |ms| KeyRef::Updated(ms, doc)))
    }

    /// The resource at an index as compact JSON, and a line feed.
    #[must_use]
    pub fn line(&self, index: usize) -> &[u8] {
        self.lines.get(self.span(index)).unwrap_or_default()
    }

    /// The lines of some of the resources, one behind the other, to share.
    #[must_use]
    pub fn lines(&self, range: Range<usize>) -> Bytes {
        let start = self.start(range.start, |row| row.line_end);
        let end = self.start(range.end, |row| row.line_end);
        if start < end { self.lines.slice(start..end) } else { Bytes::new() }
    }

    /// The resource at an index as compact JSON, to share.
    #[must_use]
    pub fn json(&self, index: usize) -> Bytes {
        let Range { start, end } = self.span(index);
        if start < end { self.lines.slice(start..end - 1) } else { Bytes::new() }
    }

    /// All of its resources, each for itself.
    pub fn resources(&self) -> impl Iterator<Item = Scanned> {
        let scanned = |index| {
            let key = self.key(index)?.to_key();
            Some(Scanned { key, json: self.json(index) })
        };
        (0..self.len()).filter_map(scanned)
    }

    fn span(&self, index: usize) -> Range<usize> {
        let end = self.rows.get(index).map_or(0, |row| row.line_end);
        self.start(index, |row| row.line_end).min(end)..end
    }

    fn start(&self, index: usize, end: impl Fn(&Row) -> usize) -> usize {
        index.checked_sub(1).and_then(|before| self.rows.get(before)).map_or(0, end)
    }
}

impl FromIterator<Scanned> for ScanBatch {
    /// A batch of these resources, in key order; nothing lies beyond the last of them.
    fn from_iter<I: IntoIterator<Item = Scanned>>(resources: I) -> Self {
        let mut lines = Lines::default();
        for Scanned { key, json } in resources {
            lines.text.extend_from_slice(&json);
            lines.end_line(key.borrowed());
        }
        lines.finish(None)
    }
}

/// A batch in the making.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The lines so far, and behind them whatever is written of the next.
    pub(super) text: Vec<u8>,
    ids: String,
    rows: Vec<Row>,
}

impl Lines {
    /// Room for about so many bytes and resources.
    pub(super) fn with_capacity(bytes: usize, resources: usize) -> Self {
        let ids = String::with_capacity(resources * 36);
        Self { text: Vec::with_capacity(bytes), ids, rows: Vec::with_capacity(resources) }
    }

    /// Ends the line of a resource.
    pub(super) fn end_line(&mut self, key: KeyRef<'_>) {
        self.text.push(b'\n');
        let oid = match key.doc() {
            DocRef::Oid(oid) => Some(oid),
            DocRef::Text(id) => {
                self.ids.push_str(id);
                None
            }
        };
        let updated_ms = match key {
            KeyRef::Id(_) => None,
            KeyRef::Updated(ms, _) => Some(ms),
        };
        let (line_end, id_end) = (self.text.len(), self.ids.len());
        self.rows.push(Row { line_end, id_end, oid, updated_ms });
    }

    /// How many resources there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The batch.
    pub(super) fn finish(self, reached: Option<ScanKey>) -> ScanBatch {
        let (lines, ids) = (self.text.into(), self.ids.into_boxed_str());
        ScanBatch { lines, ids, rows: self.rows, reached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::DocId;

    #[test]
    fn a_batch_gives_back_what_was_written() {
        let keys = [
            ScanKey::Id(DocId::Text("a".into())),
            ScanKey::Id(DocId::Oid([7; 12])),
            ScanKey::Id(DocId::Text("ü".into())),
            ScanKey::Updated(-5, DocId::Text(String::new().into())),
        ];
        let mut lines = Lines::default();
        for (n, key) in keys.iter().enumerate() {
            lines.text.extend_from_slice(n.to_string().repeat(n).as_bytes());
            lines.end_line(key.borrowed());
        }
        let batch = lines.finish(None);
        assert_eq!(batch.len(), keys.len());
        for (n, (scanned, key)) in batch.resources().zip(&keys).enumerate() {
            assert_eq!(
                (&scanned.key, &scanned.json[..]),
                (key, n.to_string().repeat(n).as_bytes())
            );
            assert_eq!(batch.key(n), Some(key.borrowed()));
            assert_eq!(batch.line(n), format!("{}\n", n.to_string().repeat(n)).as_bytes());
        }
        assert_eq!(
            (batch.lines(0..4), batch.lines(1..3)),
            ("\n1\n22\n333\n".into(), "1\n22\n".into())
        );
        assert_eq!((batch.lines(2..2), batch.lines(3..9)), (Bytes::new(), Bytes::new()));
        assert_eq!((batch.key(4), batch.line(4), batch.json(4)), (None, &b""[..], Bytes::new()));
    }
}
