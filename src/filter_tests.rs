use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{
    plan::Grant,
    position::LogPosition,
    search::Context,
    store::{DocId, Image, Window},
    type_filter::TypeFilters,
};

/// An Observation: its status, and whose it is.
type Seen = (&'static str, &'static str);

const FINAL: Seen = ("final", "1");
const DRAFT: Seen = ("preliminary", "1");
const ELSE: Seen = ("final", "2");

fn ty(name: &str) -> ResourceType {
    ResourceType::parse(name).expect("a type")
}

fn text((status, patient): Seen) -> Bytes {
    let subject = json!({"reference": format!("Patient/{patient}")});
    json!({"resourceType": "Observation", "id": "o", "status": status, "subject": subject})
        .to_string()
        .into()
}

/// What was there before: nothing, nobody knows, or this.
#[derive(Clone, Copy, Debug)]
enum Was {
    Absent,
    Unknown,
    Known(Seen),
}
use Was::{Absent, Known, Unknown};

fn entry(was: Was, now: Option<Seen>) -> Arc<Entry> {
    let before = match was {
        Absent => Before::Absent,
        Unknown => Before::Unknown,
        Known(seen) => {
            let json = text(seen);
            Before::Known(Image { bytes: json.len(), encode: Arc::new(move || Some(json.clone())) })
        }
    };
    let (ty, id, doc) = (ty("Observation"), "o".into(), DocId::Text("o".into()));
    let kind = match now {
        Some(seen) => {
            ChangeKind::Upsert { ty, id, doc, updated_ms: None, json: text(seen), before }
        }
        None => ChangeKind::Delete { ty, id, doc, before },
    };
    let committed = jiff::Timestamp::UNIX_EPOCH;
    Entry::new(Change::new(LogPosition::default(), committed, kind))
}

fn plan(scope: Scope, search: Option<&str>) -> Plan {
    let values: Vec<_> = search.map(Into::into).into_iter().collect();
    let (filters, _) = TypeFilters::parse(&values, Context::default()).expect("searches");
    let plan = Plan::new(scope, None, Window::default(), true, Grant::Everything);
    Plan { filters: Arc::new(filters), ..plan }
}

/// Each change's verdict; `reset` stands for one with any reason.
fn check(plan: &Plan, members: Option<&Members>, cases: &[(Was, Option<Seen>, Verdict)]) {
    let filter = Filter { plan, members };
    for (was, now, expected) in cases {
        let given = match filter.verdict(&entry(*was, *now)) {
            Verdict::Reset(_) => reset(),
            given => given,
        };
        assert_eq!(given, *expected, "{was:?} -> {now:?} in {:?}", plan.scope);
    }
}

fn reset() -> Verdict {
    Verdict::Reset(String::new())
}

#[test]
fn what_a_search_no_longer_finds_is_gone_and_what_it_never_found_is_nothing() {
    let plan = plan(Scope::System, Some("Observation?status=final"));
    check(
        &plan,
        None,
        &[
            (Absent, Some(FINAL), Verdict::Upsert),
            (Known(DRAFT), Some(FINAL), Verdict::Upsert),
            (Unknown, Some(FINAL), Verdict::Upsert),
            (Known(FINAL), Some(DRAFT), Verdict::Gone),
            (Known(DRAFT), Some(DRAFT), Verdict::Skip),
            (Absent, Some(DRAFT), Verdict::Skip),
            (Unknown, Some(DRAFT), Verdict::Gone),
            (Known(FINAL), None, Verdict::Gone),
            (Known(DRAFT), None, Verdict::Skip),
            (Unknown, None, Verdict::Gone),
        ],
    );
    let filter = Filter { plan: &plan, members: None };
    assert!(filter.holds(ty("Observation"), "o", &text(FINAL)));
    assert!(!filter.holds(ty("Observation"), "o", &text(DRAFT)));
    assert!(filter.holds(ty("Patient"), "p", &text(DRAFT)));
}

#[test]
fn without_a_search_a_deletion_is_always_told() {
    let plan = plan(Scope::System, Some("Patient?active=true"));
    let cases = [Absent, Unknown, Known(DRAFT)].map(|was| (was, None, Verdict::Gone));
    check(&plan, None, &cases);
}

#[test]
fn in_a_compartment_no_id_is_told_that_may_be_anothers() {
    let members = Members::new(vec!["1".into()]);
    let plan = plan(Scope::Group("g".into()), Some("Observation?status=final"));
    check(
        &plan,
        Some(&members),
        &[
            (Known(ELSE), Some(FINAL), Verdict::Upsert),
            (Known(FINAL), Some(ELSE), Verdict::Gone),
            (Known(DRAFT), Some(ELSE), Verdict::Skip),
            (Known(FINAL), Some(DRAFT), Verdict::Gone),
            (Known(ELSE), Some(DRAFT), Verdict::Skip),
            (Unknown, Some(DRAFT), Verdict::Gone),
            (Unknown, Some(ELSE), reset()),
            (Unknown, None, reset()),
            (Known(ELSE), None, Verdict::Skip),
            (Known(FINAL), None, Verdict::Gone),
        ],
    );
}
