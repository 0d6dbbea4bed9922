//! `GET /fhir/metadata`: what this server can do, as a CapabilityStatement.

use std::sync::LazyLock;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::request::TakesJson;
use crate::{
    error::FHIR_JSON,
    fhir::{ResourceType, instant},
    search,
};

/// Built once per process.
static STATEMENT: LazyLock<Bytes> =
    LazyLock::new(|| statement(Timestamp::now()).to_string().into());

/// `GET /fhir/metadata`
pub(super) async fn get(_: TakesJson) -> Response {
    ([(header::CONTENT_TYPE, FHIR_JSON)], STATEMENT.clone()).into_response()
}

fn statement(date: Timestamp) -> Value {
    json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": instant::text(date),
        "kind": "instance",
        "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"],
        "software": {"name": "fhirtail", "version": env!("CARGO_PKG_VERSION")},
        "implementation": {"description": env!("CARGO_PKG_DESCRIPTION")},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "application/fhir+ndjson", "json"],
        "rest": [{
            "mode": "server",
            "resource": ResourceType::all().map(resource).collect::<Vec<_>>(),
            "interaction": [{"code": "transaction"}, {"code": "batch"}],
            "operation": [operation("export")],
        }],
    })
}

fn resource(ty: ResourceType) -> Value {
    let codes = ["read", "create", "update", "delete", "search-type"];
    let search = search::parameters(ty).map(|(name, kind)| json!({"name": name, "type": kind}));
    let mut resource = json!({
        "type": ty.name(),
        "interaction": codes.map(|code| json!({"code": code})),
        "versioning": "versioned",
        "readHistory": false,
        "updateCreate": true,
        "conditionalCreate": false,
        "conditionalRead": "not-match",
        "conditionalUpdate": false,
        "conditionalDelete": "not-supported",
        "searchParam": search.collect::<Vec<_>>(),
    });
    let export = match ty.name() {
        "Patient" => operation("patient-export"),
        "Group" => operation("group-export"),
        _ => return resource,
    };
    resource["operation"] = json!([export]);
    resource
}

/// `$export` as Bulk Data Access defines it under this id.
fn operation(id: &str) -> Value {
    let base = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition";
    json!({"name": "export", "definition": format!("{base}/{id}")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_served() {
        let statement = statement(Timestamp::UNIX_EPOCH);
        let rest = &statement["rest"][0];
        let resources = rest["resource"].as_array().expect("resources");
        assert_eq!(resources.len(), 146);
        let with_operations: Vec<_> = resources
            .iter()
            .filter(|resource| resource.get("operation").is_some())
            .map(|resource| (&resource["type"], &resource["operation"][0]["definition"]))
            .collect();
        let definition =
            |id| json!(format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{id}"));
        assert_eq!(
            with_operations,
            [
                (&json!("Group"), &definition("group-export")),
                (&json!("Patient"), &definition("patient-export")),
            ]
        );
        assert_eq!(rest["operation"][0]["definition"], definition("export"));
    }
}
