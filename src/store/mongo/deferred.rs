//! Updates without a document that are deferred to a later event of their document. Pure.

use std::collections::HashMap;

use super::{lookup::Place, mapping::Step};
use crate::{
    position::LogPosition,
    store::{Before, ChangeKind},
};

/// What was before events that are deferred, until the later one comes.
#[derive(Default)]
pub(super) struct BeforeDeferred(HashMap<Place, Before>);

impl BeforeDeferred {
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

/// Defers what has no document: to the next of these events that tells of it, or, where none does, to
/// what comes before `gone`.
pub(super) fn defer(steps: &mut [Step], gone: LogPosition) {
    let (mut told, mut dropped) = (HashMap::new(), HashMap::new());
    for step in steps.iter_mut().rev() {
        let at = step.change.position;
        if let ChangeKind::Replaced { ty } = step.change.kind {
            told.retain(|(of, _): &Place, _| *of != ty);
            dropped.insert(ty, at);
        }
        let Some(place) = step.place() else { continue };
        if step.open {
            let last = told.get(&place).or_else(|| dropped.get(&place.0));
            step.defer(last.copied().unwrap_or(gone));
        } else {
            told.insert(place, at);
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
        let mut before = BeforeDeferred::default();
        for name in ["Patient", "Basic"] {
            before.meet(&mut upsert(name, true, Before::Unknown));
        }
        let ty = ResourceType::parse("Patient").unwrap();
        before.meet(&mut step(false, ChangeKind::Replaced { ty }));
        let mut anew = upsert("Patient", false, Before::Absent);
        before.meet(&mut anew);
        assert!(matches!(anew.change.kind.before(), Before::Absent), "{anew:?}");
        let mut next = upsert("Basic", false, Before::Absent);
        before.meet(&mut next);
        assert!(matches!(next.change.kind.before(), Before::Unknown), "{next:?}");
        assert!(before.0.is_empty());
    }

    /// What each is deferred to that is: the time of a step, in order.
    fn deferred_to(mut steps: Vec<Step>) -> Vec<Option<u64>> {
        for (time, step) in (1..).zip(&mut steps) {
            step.change.position = LogPosition { time, consumed: 1 };
        }
        defer(&mut steps, LogPosition::past(100));
        let until = |step: &Step| match step.change.kind {
            ChangeKind::Deferred { until, .. } => Some(until.time),
            _ => None,
        };
        assert!(steps.iter().all(|step| !step.open));
        steps.iter().map(until).collect()
    }

    #[test]
    fn an_update_is_deferred_to_what_tells_of_its_document() {
        let open = |name| upsert(name, true, Before::Unknown);
        let told = |name| upsert(name, false, Before::Unknown);
        let deleted = || {
            let ty = ResourceType::parse("Patient").unwrap();
            let (id, doc) = ("a".into(), DocId::Text("a".into()));
            step(false, ChangeKind::Delete { ty, id, doc, before: Before::Unknown })
        };
        let dropped = || {
            let ty = ResourceType::parse("Patient").unwrap();
            step(false, ChangeKind::Replaced { ty })
        };
        let p = "Patient";
        assert_eq!(deferred_to(vec![told(p)]), [None]);
        assert_eq!(deferred_to(vec![open(p), open(p), told(p)]), [Some(3), Some(3), None]);
        assert_eq!(deferred_to(vec![open(p), told("Basic"), told(p)]), [Some(3), None, None]);
        let anew = vec![open(p), deleted(), told(p), open(p), told(p)];
        assert_eq!(deferred_to(anew), [Some(2), None, None, Some(5), None]);
        // Nobody has found it: it went later.
        assert_eq!(deferred_to(vec![told(p), open(p)]), [None, Some(101)]);
        // With its collection, which tells of it.
        assert_eq!(deferred_to(vec![open(p), dropped(), told(p)]), [Some(2), None, None]);
    }
}
