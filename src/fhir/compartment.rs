//! Patient compartments: whose a stored resource is.
//!
//! A stream that is restricted to patients asks this of every resource, so the JSON text is
//! walked along the few paths that count and nothing is built from the rest.

use std::sync::LazyLock;

use serde::Deserialize;

use super::{
    ResourceType, TypeSet,
    element::text,
    resource::{Invalid, is_id},
    walk::{Step, Tree},
};

/// Type and element paths, one type a line: see its head.
const TABLE: &str = include_str!("compartment_patient.txt");

static ROOTS: LazyLock<Vec<(ResourceType, Tree<()>)>> = LazyLock::new(|| {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    let root = |row: &'static str| {
        let (name, paths) = row.split_once(' ')?;
        Some((ResourceType::parse(name)?, tree(paths)))
    };
    rows.filter_map(root).collect()
});

/// The types whose resources can be in a patient's compartment, Patient included.
#[must_use]
pub fn patient_types() -> TypeSet {
    ROOTS.iter().map(|(ty, _)| *ty).collect()
}

/// The ids of the patients in whose compartments a stored resource is, sorted, each once.
///
/// A reference counts if it reads `Patient/{id}` or `Patient/{id}/_history/{version}`. A patient
/// is in its own compartment.
///
/// # Errors
/// The text is not JSON. JSON of another shape than FHIR's names no patient.
pub fn patients_of(ty: ResourceType, id: &str, json: &[u8]) -> Result<Vec<Box<str>>, Invalid> {
    let Ok(at) = ROOTS.binary_search_by_key(&ty, |(ty, _)| *ty) else {
        return Ok(Vec::new());
    };
    let mut patients = Vec::new();
    if ty.name() == "Patient" {
        patients.push(id.into());
    }
    let name = |(): &(), raw: &str| {
        if let Some(id) = text(raw).as_deref().and_then(patient_id) {
            patients.push(id.into());
        }
    };
    ROOTS[at]
        .1
        .walk(json, name)
        .map_err(|e| Invalid(format!("the stored {ty} is not JSON: {e}")))?;
    Ok(sorted(patients))
}

/// The ids of the patients who are members of a Group, sorted, each once.
///
/// `inactive` members don't count. `period` is not looked at: who is a member does not change
/// without a change of the Group.
///
/// # Errors
/// The text is not JSON, or `member` has not the shape that FHIR gives it: then nobody can say
/// who the members are.
pub fn group_members(json: &[u8]) -> Result<Vec<Box<str>>, Invalid> {
    #[derive(Deserialize)]
    struct Group {
        member: Option<Vec<Member>>,
    }
    #[derive(Deserialize)]
    struct Member {
        entity: Option<Reference>,
        inactive: Option<bool>,
    }
    #[derive(Deserialize)]
    struct Reference {
        reference: Option<String>,
    }

    let group: Group = serde_json::from_slice(json)
        .map_err(|e| Invalid(format!("the members of the Group can't be read: {e}")))?;
    let active = group.member.into_iter().flatten().filter(|m| m.inactive != Some(true));
    let references = active.filter_map(|member| member.entity?.reference);
    Ok(sorted(references.filter_map(|text| patient_id(&text).map(Into::into)).collect()))
}

fn sorted(mut ids: Vec<Box<str>>) -> Vec<Box<str>> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The patient that a reference names.
fn patient_id(reference: &str) -> Option<&str> {
    let rest = reference.strip_prefix("Patient/")?;
    let id = match rest.split_once('/') {
        None => rest,
        Some((id, version)) => {
            version.strip_prefix("_history/").filter(|v| is_id(v)).map(|_| id)?
        }
    };
    is_id(id).then_some(id)
}

/// To the text of each reference at the end of these paths.
fn tree(paths: &'static str) -> Tree<()> {
    let mut tree = Tree::default();
    for path in paths.split(' ') {
        let steps = path.split('.').chain(["reference"]);
        let steps: Vec<_> = steps.map(|name| Step { name, only: None }).collect();
        tree.add(&steps, ());
    }
    tree
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn ty(name: &str) -> ResourceType {
        ResourceType::parse(name).expect("a type")
    }

    fn patients(name: &str, json: &str) -> Vec<Box<str>> {
        patients_of(ty(name), "self", json.as_bytes()).expect("JSON")
    }

    fn paths(name: &str) -> Option<&'static str> {
        TABLE
            .lines()
            .filter_map(|row| row.split_once(' '))
            .find(|row| row.0 == name)
            .map(|row| row.1)
    }

    #[test]
    fn the_table_says_what_the_specification_says() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!((rows, ROOTS.len()), (66, 66));
        assert!(ROOTS.is_sorted_by_key(|(ty, _)| *ty));
        assert_eq!(paths("AuditEvent"), Some("agent.who entity.what"));
        assert_eq!(paths("CarePlan"), Some("activity.detail.performer subject"));
        assert_eq!(paths("Coverage"), Some("beneficiary payor policyHolder subscriber"));
        assert_eq!(paths("Patient"), Some("link.other"));
        assert_eq!(paths("SupplyRequest"), Some("deliverTo"));
        assert_eq!(paths("Organization"), None);
        assert!(patient_types().contains(ty("Patient")));
        assert!(!patient_types().contains(ty("Device")));
    }

    #[test]
    fn finds_patients_along_the_paths_and_nowhere_else() {
        let observation = r#"{"resourceType":"Observation","id":"f001","note":[{"authorReference":
            {"reference":"Patient/no"}}],"subject":{"reference":"Patient/f001","display":"P"},
            "performer":[{"reference":"Practitioner/f005"},{"reference":"Patient/b"}],
            "focus":[{"reference":"Patient/no"}],"valueQuantity":{"value":6.30}}"#;
        assert_eq!(patients("Observation", observation), ["b".into(), "f001".into()]);
        let audit = r#"{"agent":[{"who":{"identifier":{"value":"95"}}},{"who":{"reference":
            "Patient\/x"}}],"entity":[{"what":{"reference":"Patient/x/_history/1"}}]}"#;
        assert_eq!(patients("AuditEvent", audit), ["x".into()]);
        let plan = r#"{"activity":[{"detail":{"performer":[{"reference":"Patient/p"}]}}]}"#;
        assert_eq!(patients("CarePlan", plan), ["p".into()]);
        let linked = r#"{"link":[{"other":{"reference":"Patient/pat2"},"type":"seealso"}]}"#;
        assert_eq!(patients("Patient", linked), ["pat2".into(), "self".into()]);
        assert_eq!(patients("Organization", r#"{"subject":{"reference":"Patient/1"}}"#), []);
    }

    #[test]
    fn only_references_to_patients_here_count() {
        assert_eq!(patient_id("Patient/1"), Some("1"));
        assert_eq!(patient_id("Patient/1/_history/2"), Some("1"));
        let others = [
            "https://other/fhir/Patient/1",
            "https://host/fhirPatient/1",
            "https://host/fhir/x/Patient/1",
            "#Patient/1",
            "#p",
            "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0",
            "Patient?identifier=1",
            "Patient/",
            "Patient/1/",
            "Patient/1/_history",
            "Patient/1/_history/",
            "Patient/1#x",
            "/Patient/1",
            "Group/1",
            "patient/1",
            "",
        ];
        for other in others {
            assert_eq!(patient_id(other), None, "{other}");
        }
    }

    #[test]
    fn any_json_is_walked_and_other_text_is_an_error() {
        let odd = [
            "null",
            "[]",
            "1.50",
            r#""Patient/1""#,
            r#"{"subject":"Patient/1"}"#,
            r#"{"subject":{"reference":1e400}}"#,
            r#"{"subject":{"reference":{"reference":"Patient/1"}}}"#,
            r#"{"subject":null,"performer":[[],{},7,true,-1,"x"]}"#,
        ];
        for json in odd {
            assert_eq!(patients("Observation", json), [], "{json}");
        }
        for text in ["", "{", r#"{"subject":{"reference":"Patient/1"}} x"#] {
            assert!(patients_of(ty("Observation"), "1", text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn members_of_a_group() {
        let group = r#"{"resourceType":"Group","member":[{"entity":{"reference":"Patient/pat2"},
            "period":{"start":"2014-10-08"}},{"entity":{"reference":"Patient/pat1"},"inactive":
            false},{"entity":{"reference":"Patient/pat2"}},{"entity":{"reference":"Patient/pat3"},
            "inactive":true},{"entity":{"reference":"Device/1"}},{"entity":{"display":"?"}}]}"#;
        let members = group_members(group.as_bytes()).expect("members");
        assert_eq!(members, ["pat1".into(), "pat2".into()]);
        assert_eq!(group_members(br#"{"resourceType":"Group"}"#), Ok(Vec::new()));
        assert!(group_members(br#"{"member":[{"inactive":"true"}]}"#).is_err());
        assert!(group_members(b"[").is_err());
    }

    /// What [`Tree::walk`] does, on a value.
    fn naive(value: &Value, path: &[&str], found: &mut Vec<Box<str>>) {
        match (value, path) {
            (Value::Array(items), _) => items.iter().for_each(|item| naive(item, path, found)),
            (Value::Object(members), [first, rest @ ..]) => {
                members.get(*first).into_iter().for_each(|member| naive(member, rest, found));
            }
            (Value::String(text), []) => found.extend(patient_id(text).map(Box::from)),
            _ => {}
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        const TEXTS: &[&str] = &["Patient/1", "Patient/2/_history/3", "Group/1", "#1", "é\"\\"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(|x| json!(x)),
            any::<u64>().prop_map(Value::from),
            prop::sample::select(TEXTS).prop_map(Value::from),
        ];
        const NAMES: &[&str] =
            &["subject", "performer", "actor", "reference", "agent", "who", "entity", "what", "x"];
        leaf.prop_recursive(5, 40, 4, move |inner| {
            let name = prop::sample::select(NAMES).prop_map(str::to_owned);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name, inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_walk_over_a_tree(
            json in any_json(),
            name in prop::sample::select(&["Observation", "AuditEvent", "Procedure"][..]),
        ) {
            let mut expected = Vec::new();
            for path in paths(name).expect("a row").split(' ') {
                let path: Vec<_> = path.split('.').chain(["reference"]).collect();
                naive(&json, &path, &mut expected);
            }
            prop_assert_eq!(patients(name, &json.to_string()), sorted(expected));
        }
    }
}
