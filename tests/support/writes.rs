//! Writes as tests make them.

use fhirtail::{
    fhir::{ResourceType, resource::Resource},
    store::{Action, Expect, Store, Write, Written},
};
use serde_json::{Value, json};

pub fn ty(name: &str) -> ResourceType {
    ResourceType::parse(name).expect("a type")
}

/// A write that puts the resource under its own type and id.
pub fn put(resource: &Value) -> Write {
    let resource = Resource::parse(resource.to_string().as_bytes()).expect("a resource");
    let id = resource.id().expect("an id").to_owned();
    Write { ty: resource.ty(), id, action: Action::Put(resource), expect: Expect::Any }
}

pub fn delete(name: &str, id: &str) -> Write {
    Write { ty: ty(name), id: id.to_owned(), action: Action::Delete, expect: Expect::Any }
}

pub async fn commit(store: &dyn Store, writes: Vec<Write>) -> Vec<Written> {
    store.commit(writes).await.expect("a commit")
}

pub fn patient(n: usize, name: &str) -> Value {
    json!({"resourceType": "Patient", "id": format!("p{n}"), "name": [{"family": name}]})
}

pub fn observation(n: usize, patient: usize, value: &str) -> Value {
    let subject = json!({"reference": format!("Patient/p{patient}")});
    json!({
        "resourceType": "Observation", "id": format!("o{n}"), "status": "final",
        "code": {"text": "weight"}, "subject": subject, "valueString": value,
    })
}

pub fn group(id: &str, patients: &[usize]) -> Value {
    let member = |n: &usize| json!({"entity": {"reference": format!("Patient/p{n}")}});
    let members: Vec<_> = patients.iter().map(member).collect();
    json!({"resourceType": "Group", "id": id, "type": "person", "actual": true, "member": members})
}
