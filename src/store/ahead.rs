//! Resources that were looked up too late, and so hold what later changes bring. Pure.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use super::{Change, ChangeKind, DocId};
use crate::{fhir::ResourceType, position::LogPosition};

/// What one way through the log has brought as of a time beyond its changes. What happened to that
/// up to then is no news to who has the change; who begins behind it needs each.
#[derive(Debug, Default)]
pub struct Ahead {
    documents: HashMap<Place, AsOf>,
    /// Nothing was brought as of a later time.
    until: u64,
    hashes: RandomState,
}

/// A document's place: type and key.
type Place = (ResourceType, DocId);

/// A document as it was at a time.
#[derive(Debug)]
struct AsOf {
    time: u64,
    /// A hash of its text: the texts of all that is read late would not fit into memory.
    text: u64,
    /// The last change that has brought it so.
    said: LogPosition,
}

impl Ahead {
    /// Marks which of the next changes repeat earlier ones: see [`Change::is_news_to`].
    pub fn mark(&mut self, changes: &mut [Change]) {
        for change in changes {
            if change.position.time > self.until {
                self.documents.clear();
            }
            if change.as_of.is_some() || !self.documents.is_empty() {
                self.meet(change);
            }
        }
    }

    fn meet(&mut self, change: &mut Change) {
        let hash = |json| self.hashes.hash_one(json);
        let (place, text) = match &change.kind {
            ChangeKind::Upsert { ty, doc, json, .. } => ((*ty, doc.clone()), Some(hash(json))),
            ChangeKind::Delete { ty, doc, .. } => ((*ty, doc.clone()), None),
            ChangeKind::Deferred { .. } | ChangeKind::Replaced { .. } => return,
        };
        let known = self.documents.get(&place).filter(|known| change.position.time <= known.time);
        change.repeats =
            known.filter(|known| known.has(change.as_of, text)).map(|known| known.said);
        if let (Some(time), Some(text)) = (change.as_of, text) {
            self.until = self.until.max(time);
            self.documents.insert(place, AsOf { time, text, said: change.position });
        }
    }
}

impl AsOf {
    /// Whether who has this has what a change of up to its time brings, itself as of a time.
    fn has(&self, as_of: Option<u64>, text: Option<u64>) -> bool {
        as_of.is_none_or(|time| time <= self.time) || text == Some(self.text)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;
    use crate::store::Before;

    fn at(time: u64) -> LogPosition {
        LogPosition { time, consumed: 1 }
    }

    /// An update at a time, read as of another; none: a deletion.
    fn change(time: u64, as_of: Option<u64>, json: Option<&'static str>) -> Change {
        let ty = ResourceType::parse("Basic").unwrap();
        let (id, doc, before) = ("a".into(), DocId::Text("a".into()), Before::Unknown);
        let kind = match json {
            Some(json) => {
                let (updated_ms, json) = (None, Bytes::from_static(json.as_bytes()));
                ChangeKind::Upsert { ty, id, doc, updated_ms, json, before }
            }
            None => ChangeKind::Delete { ty, id, doc, before },
        };
        Change { as_of, ..Change::new(at(time), Timestamp::UNIX_EPOCH, kind) }
    }

    /// The times of what is news to who begins at each time.
    fn news(mut changes: Vec<Change>) -> Vec<Vec<u64>> {
        let mut ahead = Ahead::default();
        // However the reads part them.
        changes.chunks_mut(2).for_each(|part| ahead.mark(part));
        let heard = |origin: u64| {
            let is_news =
                |change: &&Change| change.position.time > origin && change.is_news_to(at(origin));
            changes.iter().filter(is_news).map(|change| change.position.time).collect()
        };
        (0..5).map(heard).collect()
    }

    #[test]
    fn what_was_read_ahead_is_said_once() {
        let changes = vec![
            change(1, Some(4), Some("d")),
            change(2, None, Some("b")),
            change(3, None, None),
            change(4, None, Some("d")),
            change(5, None, Some("e")),
        ];
        let expected = [vec![1, 5], vec![2, 3, 4, 5], vec![3, 4, 5], vec![4, 5], vec![5]];
        assert_eq!(news(changes), expected);
    }

    /// Read anew, and later still: that is news only if it says something else, and what was read
    /// then repeats it in turn.
    #[test]
    fn what_was_read_ahead_twice_is_said_as_often_as_it_differs() {
        let twice = |second| {
            vec![
                change(1, Some(3), Some("c")),
                change(2, Some(4), Some(second)),
                change(4, None, Some(second)),
                change(5, None, Some("e")),
            ]
        };
        let behind = [vec![2, 5], vec![4, 5], vec![4, 5], vec![5]];
        assert_eq!(news(twice("d")), [&[vec![1, 2, 5]], &behind[..]].concat());
        assert_eq!(news(twice("c")), [&[vec![1, 5]], &behind[..]].concat());
    }
}
