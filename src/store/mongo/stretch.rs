//! Which part of an index a scan goes along, and how it is cut into stretches.

use futures_util::TryStreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, DateTime, Document, RawDocumentBuf, doc},
};

use super::{
    decode,
    head::Head,
    order::{Order, Way},
};
use crate::store::{Clue, Place, Scan, ScanKey, Sought, Window};

/// A part of the index that a scan goes along, in the order of the index.
#[derive(Debug, Clone, Default)]
pub(super) struct Within {
    /// The first key.
    pub(super) from: Option<Document>,
    /// The first key that is beyond.
    pub(super) to: Option<Document>,
}

impl Within {
    /// All that a scan has before it; the key that it goes on after may be in. `None`: nothing.
    ///
    /// Whoever names one end of an index is held by nothing at the other: a filter does not bound
    /// what is then read.
    pub(super) fn rest_of(way: &Way<'_>) -> Option<Self> {
        let scan = way.scan;
        let mut within = match way.order {
            Order::Updated | Order::Time => Self::window(told_window(scan)),
            Order::Id if way.route.index.is_none() => Self::default(),
            // Their filters say it.
            Order::Id | Order::UpdatedSorted | Order::TimeSorted => return Some(Self::default()),
        };
        if let Some(key) = &scan.after {
            within.set_begin(scan.along.is_down(), index_key(key));
        }
        let ms =
            |key: &Option<Document>| key.as_ref()?.get_datetime("meta.lastUpdated").ok().copied();
        let is_empty = ms(&within.from).zip(ms(&within.to)).is_some_and(|(from, to)| from >= to);
        (!is_empty).then_some(within)
    }

    /// A window, and in it nothing but dates.
    fn window(window: Window) -> Self {
        let key = |ms, id| doc! {"meta.lastUpdated": DateTime::from_millis(ms), "_id": id};
        if window.is_open() {
            return Self::default();
        }
        let first = || key(i64::MIN, Bson::MinKey);
        let last = || key(i64::MAX, Bson::MaxKey);
        Self {
            from: Some(window.after_ms.map_or_else(first, |ms| key(ms, Bson::MaxKey))),
            to: Some(window.before_ms.map_or_else(last, |ms| key(ms, Bson::MinKey))),
        }
    }

    /// Sets where it begins.
    pub(super) fn set_begin(&mut self, down: bool, key: Document) {
        *if down { &mut self.to } else { &mut self.from } = Some(key);
    }

    /// The same up to another end, if there is one.
    pub(super) fn until(&self, down: bool, end: Option<&Document>) -> Self {
        let mut part = self.clone();
        if let Some(key) = end {
            *if down { &mut part.from } else { &mut part.to } = Some(key.clone());
        }
        part
    }
}

/// The window of a scan, and what its clues say of the same member: where an end of the index is
/// named, the filter bounds nothing.
fn told_window(scan: &Scan) -> Window {
    scan.clues.iter().filter_map(instants).fold(scan.window, |window, (from, to)| Window {
        after_ms: window.after_ms.max(from.map(|ms| ms.saturating_sub(1))),
        before_ms: [window.before_ms, to.map(|ms| ms.saturating_add(1))]
            .into_iter()
            .flatten()
            .min(),
    })
}

/// From when to when what a clue is about was last updated, both ends inclusive.
fn instants(clue: &Clue) -> Option<(Option<i64>, Option<i64>)> {
    let [Place { path, values }] = clue.places.as_slice() else { return None };
    if path != &["meta", "lastUpdated"] {
        return None;
    }
    let ends = values.iter().map(|sought| match sought {
        Sought::Instant(from, to) => Some((*from, *to)),
        _ => None,
    });
    let ends: Vec<_> = ends.collect::<Option<_>>()?;
    let from = ends.iter().map(|(from, _)| *from).min().flatten();
    let to = ends.iter().map(|(_, to)| *to).collect::<Option<Vec<_>>>();
    Some((from, to.and_then(|to| to.into_iter().max())))
}

/// A stretch of a scan.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Its last key, where a scan can go on after it.
    pub(super) last: Option<ScanKey>,
    /// Where the next begins: the first key beyond it; from the last to the first, its last key.
    pub(super) next: Document,
}

impl Way<'_> {
    /// Whether it is cut into stretches. Where the server looks for what fits, it would else say
    /// nothing until it finds something, and an expired snapshot would take all back.
    pub(super) fn is_cut(&self) -> bool {
        let filters = !self.route.filter.is_empty();
        match self.order {
            Order::Id => self.route.index.is_none() && (filters || !self.scan.window.is_open()),
            // The window is a part of their index.
            Order::Updated | Order::Time => filters,
            Order::UpdatedSorted | Order::TimeSorted => false,
        }
    }

    /// The next stretch of so many documents, as the index alone tells it. `None`: the rest is no
    /// longer.
    pub(super) async fn stretch(
        &self,
        rest: &Within,
        size: u32,
        session: &mut ClientSession,
    ) -> mongodb::error::Result<Option<Stretch>> {
        let Some(index) = &self.index else { return Ok(None) };
        let collection = self.shared.collection(self.scan.ty);
        let find = collection.find(doc! {}).sort(self.sort()).hint(index.hint());
        let find = find.projection(self.keys()).skip((size - 1).into()).limit(2);
        let find = match &rest.from {
            Some(key) => find.min(key.clone()),
            None => find,
        };
        let find = match &rest.to {
            Some(key) => find.max(key.clone()),
            None => find,
        };
        let mut cursor = find.session(&mut *session).await?;
        let ends: Vec<RawDocumentBuf> = cursor.stream(session).try_collect().await?;
        let [last, next] = ends.as_slice() else { return Ok(None) };
        // A range has its first key in it and its end not.
        let next = if self.scan.along.is_down() { last } else { next };
        let next = self.place(&Document::try_from(&**next)?);
        Ok(next.map(|next| Stretch { last: self.reached(last), next }))
    }

    /// Where a document stands in the index. `None`: at several places, or one of an odd type.
    fn place(&self, document: &Document) -> Option<Document> {
        let id = document.get("_id")?.clone();
        if self.order == Order::Id {
            return Some(doc! {"_id": id});
        }
        let updated = match document.get("meta") {
            Some(Bson::Document(meta)) => meta.get("lastUpdated").cloned(),
            Some(Bson::Array(_)) => return None,
            _ => None,
        };
        match updated.unwrap_or(Bson::Null) {
            updated @ (Bson::DateTime(_) | Bson::Null) => {
                Some(doc! {"meta.lastUpdated": updated, "_id": id})
            }
            _ => None,
        }
    }

    /// The key that a scan can go on after, once it has read this document. By time it can't.
    fn reached(&self, document: &RawDocumentBuf) -> Option<ScanKey> {
        if self.order == Order::Time {
            return None;
        }
        let head = Head::of(document.as_bytes()).ok()?;
        Some(self.order.key(head.doc?, head.updated_ms)?.to_key())
    }
}

/// The place of a scan's key in the index that the scan goes along.
fn index_key(after: &ScanKey) -> Document {
    match after {
        ScanKey::Id(doc) => doc! {"_id": decode::key(doc)},
        ScanKey::Updated(ms, doc) => {
            doc! {"meta.lastUpdated": DateTime::from_millis(*ms), "_id": decode::key(doc)}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::ResourceType;

    #[test]
    fn clues_of_the_time_narrow_the_window() {
        let told = |values: Vec<Sought>, path: &[&'static str]| {
            let clue = Clue { places: vec![Place { path: path.to_vec(), values }] };
            let window = Window { after_ms: Some(5), before_ms: Some(90) };
            let ty = ResourceType::parse("Patient").expect("a type");
            let told = told_window(&Scan { window, clues: [clue].into(), ..Scan::of(ty) });
            (told.after_ms, told.before_ms)
        };
        let updated = ["meta", "lastUpdated"];
        let instant = |from, to| Sought::Instant(from, to);
        assert_eq!(told(vec![instant(Some(10), Some(20))], &updated), (Some(9), Some(21)));
        assert_eq!(told(vec![instant(Some(1), Some(100))], &updated), (Some(5), Some(90)));
        let both = vec![instant(Some(10), Some(20)), instant(Some(30), Some(40))];
        assert_eq!(told(both, &updated), (Some(9), Some(41)));
        let open = vec![instant(Some(10), None), instant(None, Some(40))];
        assert_eq!(told(open, &updated), (Some(5), Some(90)));
        let others = vec![instant(Some(10), None), Sought::Text("x".into())];
        assert_eq!(told(others, &updated), (Some(5), Some(90)));
        assert_eq!(told(vec![instant(Some(10), None)], &["birthDate"]), (Some(5), Some(90)));
    }
}
