//! What a write takes: just what an independent reader of JSON and the rules of FHIR's own JSON
//! allow, kept member by member and digit by digit; and the same of Bundles.
#![no_main]

use std::{collections::HashSet, sync::LazyLock};

use fhirtail::fhir::{
    ResourceType,
    bundle::{Bundle, BundleKind},
    compartment::{group_members, patients_of},
    links::{Links, conditional_reference},
    resource::{MAX_DEPTH, Resource},
};
use fhirtail_fuzz::json::Json;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

/// `None`: so deep that the rule's edge decides, which counts a number as a level.
fn allowed(json: &Json) -> Option<bool> {
    let depth = json.depth();
    if (MAX_DEPTH..=MAX_DEPTH + 1).contains(&depth) {
        return None;
    }
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let fits = |members: &[(String, Json)]| {
        let names: HashSet<_> = members.iter().map(|(name, _)| name).collect();
        names.len() == members.len() && names.into_iter().all(|name| is_name(name))
    };
    Some(depth <= MAX_DEPTH && json.every_object(&fits))
}

fn is_resource(json: &Json) -> bool {
    let is_id = |id: &str| {
        (1..=64).contains(&id.len())
            && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
    };
    let ty = json.get("resourceType").and_then(Json::text);
    ty.is_some_and(|ty| ResourceType::parse(ty).is_some())
        && json.get("id").is_none_or(|id| id.text().is_some_and(is_id))
        && json.get("meta").is_none_or(|meta| meta.members().is_some())
}

fn text(resource: &Resource) -> String {
    String::from_utf8(resource.to_json().to_vec()).expect("UTF-8")
}

fn check_resource(bytes: &[u8], json: Option<&Json>) {
    let read = Resource::parse(bytes);
    let allowed = json.map_or(Some(false), |json| Some(allowed(json)? && is_resource(json)));
    if let Some(allowed) = allowed {
        assert_eq!(read.is_ok(), allowed, "{read:?}");
    }
    let (Ok(resource), Some(json)) = (read, json) else { return };
    assert_eq!(text(&resource), json.compact(), "kept as it was");
    let stamped = resource.clone().with_id("a-1").stamped(7, Timestamp::UNIX_EPOCH);
    check_stamp(json, &Json::read(&text(&stamped)).expect("JSON"));
    check_patients(&resource, json);
    let _ = conditional_reference(&resource);
    resolve(resource);
}

/// Id and stamp are there, and all else is as it was.
fn check_stamp(before: &Json, after: &Json) {
    let texts = |names: &[&str]| names.iter().try_fold(after, |json, name| json.get(name));
    assert_eq!(texts(&["id"]).and_then(Json::text), Some("a-1"));
    assert_eq!(texts(&["meta", "versionId"]).and_then(Json::text), Some("7"));
    let updated = texts(&["meta", "lastUpdated"]).and_then(Json::text);
    assert_eq!(updated, Some("1970-01-01T00:00:00.000Z"));
    let others = |json: &Json, not: &[&str]| -> Vec<(String, Json)> {
        let members = json.members().unwrap_or_default().iter();
        members.filter(|(name, _)| !not.contains(&name.as_str())).cloned().collect()
    };
    assert_eq!(others(before, &["id", "meta"]), others(after, &["id", "meta"]));
    let meta = |json: &Json| {
        json.get("meta").map(|meta| others(meta, &["versionId", "lastUpdated"])).unwrap_or_default()
    };
    assert_eq!(meta(before), meta(after));
}

/// The table that the product reads too: type, then paths.
static PATHS: LazyLock<Vec<(&str, Vec<&str>)>> = LazyLock::new(|| {
    let table = include_str!("../../src/fhir/compartment_patient.txt");
    let rows = table.lines().filter(|row| !row.starts_with('#'));
    rows.filter_map(|row| row.split_once(' ')).map(|(ty, p)| (ty, p.split(' ').collect())).collect()
});

/// Whose a resource is, by the table.
fn check_patients(resource: &Resource, json: &Json) {
    let ty = resource.ty();
    let mut expected = Vec::new();
    if ty.name() == "Patient" {
        expected.push("self".to_owned());
    }
    let paths = PATHS.iter().find(|(name, _)| *name == ty.name());
    for path in paths.iter().flat_map(|(_, paths)| paths) {
        along(json, path.split('.').chain(["reference"]).collect(), &mut expected);
    }
    expected.sort();
    expected.dedup();
    let found = patients_of(ty, "self", json.compact().as_bytes()).expect("JSON");
    assert!(found.iter().map(|id| &**id).eq(expected), "{found:?}");
    if ty.name() == "Group" {
        let _ = group_members(json.compact().as_bytes());
    }
}

fn along(json: &Json, path: Vec<&str>, patients: &mut Vec<String>) {
    match json {
        Json::Array(items) => items.iter().for_each(|item| along(item, path.clone(), patients)),
        Json::String(text) if path.is_empty() => {
            let rest = text.strip_prefix("Patient/").unwrap_or_default();
            let (id, version) = rest.split_once("/_history/").unwrap_or((rest, "1"));
            let is_id = |id: &str| {
                (1..=64).contains(&id.len())
                    && id.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
            };
            patients.extend((is_id(id) && is_id(version)).then(|| id.to_owned()));
        }
        Json::Object(_) => {
            if let Some((name, path)) = path.split_first()
                && let Some(value) = json.get(name)
            {
                along(value, path.to_vec(), patients);
            }
        }
        _ => {}
    }
}

/// Links that name nothing change nothing; those that do leave a resource.
fn resolve(mut resource: Resource) {
    let before = text(&resource);
    Links::default().resolve(&mut resource, Some("http://x/fhir/Patient/1"));
    assert_eq!(text(&resource), before);
    let mut links = Links::default();
    let patient = ResourceType::parse("Patient").expect("a type");
    for url in ["urn:uuid:1", "http://x/fhir/Patient/1"] {
        assert!(links.insert(url, patient, "new"));
    }
    links.resolve(&mut resource, Some("http://x/fhir/Patient/2"));
    Resource::parse(text(&resource).as_bytes()).expect("a resource");
}

fn check_bundle(bytes: &[u8], json: Option<&Json>) {
    let read = Bundle::parse(bytes);
    let Some(json) = json else { return assert!(read.is_err()) };
    let Some(allowed) = allowed(json) else { return };
    let code = json.get("type").and_then(Json::text);
    let entries = match json.get("entry") {
        None => Some(&[][..]),
        Some(Json::Array(entries)) => Some(&entries[..]),
        Some(_) => None,
    };
    let expected = allowed
        && json.get("resourceType").and_then(Json::text) == Some("Bundle")
        && code.is_some_and(|code| BundleKind::parse(code).is_some())
        && entries.is_some();
    assert_eq!(read.is_ok(), expected);
    let (Ok(bundle), Some(entries)) = (read, entries) else { return };
    assert_eq!(bundle.count(), entries.len());
    for (entry, json) in bundle.entries().zip(entries) {
        let Ok(entry) = entry else { continue };
        let asked = entry.request.as_ref().map(|request| (&*request.method, &*request.url));
        let request = json.get("request");
        let part = |name| request.and_then(|request| request.get(name)).and_then(Json::text);
        assert_eq!(asked, part("method").zip(part("url")));
        let resource = json.get("resource").map(Json::compact);
        assert_eq!(entry.resource.as_ref().map(text), resource);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let json = str::from_utf8(bytes).ok().and_then(Json::read);
    check_resource(bytes, json.as_ref());
    check_bundle(bytes, json.as_ref());
});
