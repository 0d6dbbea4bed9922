//! Updates without a document that give way to a later event of their document. Pure.

use std::collections::HashMap;

use super::{lookup::Place, mapping::Step};
use crate::store::{Before, ChangeKind};

/// What was before events that gave way to a later one of their document.
#[derive(Default)]
pub(super) struct Owed(HashMap<Place, Before>);

impl Owed {
    /// Takes note of an event without its document: the next of that document stands for it too. What
    /// was before that is then what was before this.
    pub(super) fn meet(&mut self, step: &mut Step) {
        if let (true, Some(place)) = (step.open, step.place()) {
            self.0.entry(place).or_insert_with(|| step.change.kind.before().clone());
        } else if let ChangeKind::Replaced { ty } = step.change.kind {
            // Its documents went without an event each; what comes after is none of theirs.
            self.0.retain(|(of, _), _| *of != ty);
        } else if !self.0.is_empty()
            && let Some(before) = step.place().and_then(|place| self.0.remove(&place))
        {
            step.stand_after(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        fhir::ResourceType,
        position::LogPosition,
        store::{Change, DocId},
    };

    fn step(open: bool, kind: ChangeKind) -> Step {
        let change = Change::new(LogPosition::default(), Timestamp::UNIX_EPOCH, kind);
        Step { change, open }
    }

    fn upsert(name: &str, open: bool, before: Before) -> Step {
        let ty = ResourceType::parse(name).unwrap();
        let (id, doc, json) = ("a".into(), DocId::Text("a".into()), bytes::Bytes::new());
        step(open, ChangeKind::Upsert { ty, id, doc, updated_ms: None, json, before })
    }

    /// An update whose document is not found, then the end of its collection: whoever has the id
    /// next is another, before which there was nothing.
    #[test]
    fn what_was_before_a_drop_is_not_before_what_comes_after() {
        let mut owed = Owed::default();
        for name in ["Patient", "Basic"] {
            owed.meet(&mut upsert(name, true, Before::Unknown));
        }
        let ty = ResourceType::parse("Patient").unwrap();
        owed.meet(&mut step(false, ChangeKind::Replaced { ty }));
        let mut anew = upsert("Patient", false, Before::Absent);
        owed.meet(&mut anew);
        assert!(matches!(anew.change.kind.before(), Before::Absent), "{anew:?}");
        let mut next = upsert("Basic", false, Before::Absent);
        owed.meet(&mut next);
        assert!(matches!(next.change.kind.before(), Before::Unknown), "{next:?}");
        assert!(owed.0.is_empty());
    }
}
