//! From one JSON text to writes: a resource is one, a Bundle as many as it has entries.
//!
//! Every write has a fixed id, so that loading the same text again gives the same state: the
//! resource's own, the one its `fullUrl` names, or one made of its content.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    fhir::{
        ResourceType,
        bundle::{Bundle, BundleKind, Entry, EntryRequest},
        links::Links,
        resource::{Invalid, Resource, is_id},
    },
    store::{Action, Expect, Write},
};

/// What stands at one line of a text, counted from 1: a write, or why there is none.
pub(super) type Unpacked = (u64, Result<Write, String>);

/// What can be told of a text without building it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe<'t> {
    #[serde(borrow)]
    resource_type: Option<Cow<'t, str>>,
    #[serde(borrow)]
    r#type: Option<&'t RawValue>,
    #[serde(borrow)]
    id: Option<&'t RawValue>,
    #[serde(borrow)]
    entry: Option<&'t RawValue>,
}

/// The writes of a text. With `keep_bundles`, or where entries are no separate resources
/// (document, message, history), a Bundle is a resource like any other.
pub(super) fn unpack(text: &[u8], keep_bundles: bool) -> Vec<Unpacked> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let probe = serde_json::from_slice::<Probe>(text).ok();
    if let Some(probe) = &probe
        && !keep_bundles
        && holds_entries(probe)
    {
        return match Bundle::parse(text) {
            Ok(bundle) => {
                let told = entry_lines(text, probe).into_iter().zip(writes(bundle));
                told.filter_map(|(line, write)| Some((line, write.transpose()?))).collect()
            }
            Err(Invalid(why)) => vec![(fault(text, None), Err(why))],
        };
    }
    match Resource::parse(text) {
        Ok(resource) => {
            let id = own_or_content_id(&resource);
            vec![(1, Ok(put(resource, &id)))]
        }
        Err(Invalid(why)) => vec![(fault(text, probe.as_ref()), Err(why))],
    }
}

fn holds_entries(probe: &Probe<'_>) -> bool {
    let code = probe.r#type.and_then(|code| serde_json::from_str::<&str>(code.get()).ok());
    probe.resource_type.as_deref() == Some("Bundle")
        && matches!(
            code.and_then(BundleKind::parse),
            Some(
                BundleKind::Batch
                    | BundleKind::Transaction
                    | BundleKind::Collection
                    | BundleKind::Searchset
            )
        )
}

/// The line on which each entry begins.
fn entry_lines(text: &[u8], probe: &Probe<'_>) -> Vec<u64> {
    let entry = probe.entry.map_or("[]", RawValue::get);
    let entries: Vec<&RawValue> = serde_json::from_str(entry).unwrap_or_default();
    let (mut line, mut at) = (1, 0);
    entries
        .into_iter()
        .map(|entry| {
            let start = offset(text, entry.get());
            line += line_breaks(&text[at..start]);
            at = start;
            line
        })
        .collect()
}

/// Where a part of a text begins.
fn offset(text: &[u8], part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len())
}

fn line_breaks(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The line at fault: where the JSON breaks off or an illegal id stands, else the first.
fn fault(text: &[u8], probe: Option<&Probe<'_>>) -> u64 {
    if let Err(e) = serde_json::from_slice::<IgnoredAny>(text) {
        return e.line() as u64;
    }
    let id = probe.and_then(|probe| probe.id).map_or("", RawValue::get);
    let is_legal = |id: &str| serde_json::from_str::<&str>(id).is_ok_and(is_id);
    if id.is_empty() || is_legal(id) { 1 } else { 1 + line_breaks(&text[..offset(text, id)]) }
}

/// One result per entry; `None` where it asks for nothing to be written.
fn writes(bundle: Bundle) -> Vec<Result<Option<Write>, String>> {
    let mut links = Links::default();
    let planned: Vec<_> = bundle
        .entries()
        .enumerate()
        .map(|(index, entry)| {
            let in_entry = |why: String| format!("Bundle.entry[{index}]: {why}");
            let entry = entry.map_err(|bad| in_entry(format!("{} {bad}", bad.at)))?;
            let full_url = entry.full_url.clone();
            let Some(write) = write(entry).map_err(in_entry)? else { return Ok(None) };
            if let (Some(url), Action::Put(_)) = (&full_url, &write.action) {
                // Of two entries with one fullUrl (two versions, in a search's answer) the later
                // is meant, as it is the one that stays.
                let _ = links.insert(url, write.ty, &write.id);
            }
            Ok(Some((write, full_url)))
        })
        .collect();
    let resolved = |(mut write, full_url): (Write, Option<String>)| {
        if let Action::Put(resource) = &mut write.action {
            links.resolve(resource, full_url.as_deref());
        }
        write
    };
    planned.into_iter().map(|entry| entry.map(|write| write.map(resolved))).collect()
}

fn write(entry: Entry) -> Result<Option<Write>, String> {
    let Entry { full_url, resource, request } = entry;
    match (request, resource) {
        (None, None) => Err("there is no resource to load".into()),
        (None, Some(resource)) => {
            let id = resource.id().map(str::to_owned);
            let id = id.or_else(|| url_id(full_url.as_deref()?));
            let id = id.unwrap_or_else(|| content_id(&resource));
            Ok(Some(put(resource, &id)))
        }
        (Some(request), None) if matches!(request.method.as_str(), "GET" | "HEAD") => Ok(None),
        (Some(request), resource) => requested(&request, full_url.as_deref(), resource).map(Some),
    }
}

fn requested(
    request: &EntryRequest,
    full_url: Option<&str>,
    resource: Option<Resource>,
) -> Result<Write, String> {
    let EntryRequest { method, url, .. } = request;
    match (method.as_str(), resource) {
        ("PUT", Some(resource)) => {
            let id = instance(url, resource.ty())?;
            match resource.id() {
                Some(own) if own != id => Err(format!("its id is {own}, but PUT goes to {url}")),
                _ => Ok(put(resource, &id)),
            }
        }
        // ifNoneExist is not asked: the fixed id makes a second create an update.
        ("POST", Some(resource)) if url.trim_matches('/') == resource.ty().name() => {
            let named = full_url.and_then(urn_id);
            let own = || resource.id().map(str::to_owned);
            let id = named.or_else(own).or_else(|| url_id(full_url?));
            let id = id.unwrap_or_else(|| content_id(&resource));
            Ok(put(resource, &id))
        }
        ("DELETE", _) => {
            let (ty, id) = type_and_id(url).ok_or_else(|| no_instance(url))?;
            Ok(Write { ty, id, action: Action::Delete, expect: Expect::Any })
        }
        (method, _) => Err(format!("{method} {url} is nothing that can be loaded")),
    }
}

fn put(resource: Resource, id: &str) -> Write {
    let resource = resource.with_id(id);
    Write {
        ty: resource.ty(),
        id: id.to_owned(),
        action: Action::Put(resource),
        expect: Expect::Any,
    }
}

fn instance(url: &str, ty: ResourceType) -> Result<String, String> {
    match type_and_id(url) {
        Some((named, id)) if named == ty => Ok(id),
        _ => Err(no_instance(url)),
    }
}

fn no_instance(url: &str) -> String {
    format!("'{url}' is no Type/id; conditional requests are not supported")
}

/// `Type/id`, or a URL that ends in it.
fn type_and_id(url: &str) -> Option<(ResourceType, String)> {
    let (rest, id) = url.rsplit_once('/')?;
    let ty = rest.rsplit('/').next().and_then(ResourceType::parse)?;
    is_id(id).then(|| (ty, id.to_owned()))
}

/// The id in `urn:uuid:` or `urn:oid:`.
fn urn_id(full_url: &str) -> Option<String> {
    let id = full_url.strip_prefix("urn:uuid:").or_else(|| full_url.strip_prefix("urn:oid:"))?;
    is_id(id).then(|| id.to_owned())
}

fn url_id(full_url: &str) -> Option<String> {
    urn_id(full_url).or_else(|| type_and_id(full_url).map(|(_, id)| id))
}

fn own_or_content_id(resource: &Resource) -> String {
    resource.id().map_or_else(|| content_id(resource), str::to_owned)
}

/// An id that is the same for the same content: its FNV-1a hash of 128 bits.
fn content_id(resource: &Resource) -> String {
    format!("{:032x}", fnv1a(&resource.to_json()))
}

fn fnv1a(bytes: &[u8]) -> u128 {
    let step = |hash: u128, byte: &u8| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    };
    let basis = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    bytes.iter().fold(basis, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9";

    fn told(text: &str) -> Vec<String> {
        let tell = |(line, result): Unpacked| match result {
            Ok(Write { action: Action::Put(resource), .. }) => {
                format!("{line} {}", String::from_utf8_lossy(&resource.to_json()))
            }
            Ok(write) => format!("{line} delete {}/{}", write.ty, write.id),
            Err(why) => format!("{line} {why}"),
        };
        unpack(text.as_bytes(), false).into_iter().map(tell).collect()
    }

    #[test]
    fn a_transaction_becomes_writes_with_fixed_ids() {
        let text = format!(
            r#"{{"resourceType":"Bundle","type":"transaction","entry":[
{{"fullUrl":"{A}","resource":{{"resourceType":"Patient","id":"x"}},"request":{{"method":"POST","url":"Patient","ifNoneExist":"a=b"}}}},
{{"resource":{{"resourceType":"Basic","subject":{{"reference":"{A}"}}}},"request":{{"method":"PUT","url":"http://h/fhir/Basic/b"}}}},

{{"request":{{"method":"DELETE","url":"Group/g"}}}},
{{"resource":{{"resourceType":"Patient"}},"request":{{"method":"PUT","url":"Patient?identifier=1"}}}},
{{"resource":{{"resourceType":"Patient","id":"1"}},"request":{{"method":"PUT","url":"Patient/2"}}}},
{{"resource":{{"resourceType":"Parameters"}},"request":{{"method":"POST","url":"ValueSet/$lookup"}}}},
{{"resource":{{"resourceType":"Patient","id":"a b"}},"request":{{"method":"POST","url":"Patient"}}}},
{{"request":{{"method":"GET","url":"Patient/1"}}}}]}}"#
        );
        let told = told(&text);
        let id = &A[9..];
        assert_eq!(told[0], format!(r#"2 {{"resourceType":"Patient","id":"{id}"}}"#));
        let basic = format!(
            r#"3 {{"resourceType":"Basic","id":"b","subject":{{"reference":"Patient/{id}"}}}}"#
        );
        assert_eq!(told[1], basic);
        assert_eq!(told[2], "5 delete Group/g");
        let parts = [
            "6 Bundle.entry[3]: 'Patient?identifier=1' is no Type/id",
            "7 Bundle.entry[4]: its id is 1, but PUT goes to Patient/2",
            "8 Bundle.entry[5]: POST ValueSet/$lookup is nothing that can be loaded",
            "9 Bundle.entry[6]: resource id \"a b\"",
        ];
        assert_eq!(told.len(), 3 + parts.len());
        for (told, part) in told[3..].iter().zip(parts) {
            assert!(told.starts_with(part), "{told}");
        }
    }

    #[test]
    fn a_collection_keeps_ids_and_finds_some_for_those_without() {
        let told = told(&format!(
            r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"fullUrl":"{A}","resource":{{"resourceType":"Patient","id":"own"}}}},{{"fullUrl":"{A}","resource":{{"resourceType":"Basic"}}}},{{"fullUrl":"http://h/Basic/url","resource":{{"resourceType":"Basic"}}}},{{"resource":{{"resourceType":"Basic"}}}}]}}"#
        ));
        let ids = [
            "own",
            &A[9..],
            "url",
            &content_id(&Resource::parse(br#"{"resourceType":"Basic"}"#).expect("a resource")),
        ];
        for (told, id) in told.iter().zip(ids) {
            assert!(told.contains(&format!(r#""id":"{id}""#)), "{told}");
        }
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn other_bundles_and_kept_ones_are_resources() {
        for (code, keep) in [("document", false), ("history", false), ("collection", true)] {
            let text =
                format!(r#"{{"resourceType":"Bundle","id":"b","type":"{code}","entry":[]}}"#);
            let unpacked = unpack(text.as_bytes(), keep);
            let (1, Ok(write)) = &unpacked[0] else { panic!("{unpacked:?}") };
            assert_eq!((write.ty.name(), write.id.as_str()), ("Bundle", "b"));
        }
    }

    #[test]
    fn a_fault_has_a_line() {
        let cases = [
            ("{\"resourceType\":\"Patient\",\n\n\"id\":\"a b\"}", "3 id \"a b\" is not an id"),
            ("{\"resourceType\":\n\"Patient\",\n}", "3 the text is not JSON"),
            ("{\"resourceType\":\n\"Patent\"}", "1 'Patent' is no resource type"),
            ("\u{feff}[]", "1 a resource is a JSON object"),
            (
                "{\"resourceType\":\"Bundle\",\"type\":\"batch\",\"entry\":7}",
                "1 Bundle.entry is not",
            ),
        ];
        for (text, part) in cases {
            let told = told(text);
            assert!(told[0].starts_with(part), "{}", told[0]);
        }
    }

    #[test]
    fn the_same_content_has_the_same_id() {
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        let id = |text: &str| content_id(&Resource::parse(text.as_bytes()).expect("valid"));
        let one = id(r#"{"resourceType":"Basic","x":1.0}"#);
        assert_eq!(one, id("{ \"resourceType\": \"Basic\", \"x\": 1.0 }"));
        assert_ne!(one, id(r#"{"resourceType":"Basic","x":1.00}"#));
        assert!(is_id(&one) && one.len() == 32);
    }
}
