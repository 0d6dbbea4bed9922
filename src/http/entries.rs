//! From the entries of a Bundle to reads and writes. Pure.

use std::collections::HashSet;

use axum::http::StatusCode;

use super::{
    conditions::expectation,
    request::{Instance, resource_id, resource_type},
    write::{put, same_id, same_type, search_unsupported},
};
use crate::{
    error::ApiError,
    fhir::{
        ResourceType,
        bundle::{BadEntry, Entry, EntryRequest},
        links::{Links, conditional_reference},
        outcome::IssueType,
        resource::{Resource, new_id},
    },
    store::{Action, Expect, Write},
};

/// The entries of a Bundle, as far as they can be read.
pub(super) type Entries = Vec<Result<Entry, BadEntry>>;

/// The writes of a transaction, in the order of its entries, with the links between them
/// resolved.
pub(super) fn writes_of(entries: Entries) -> Result<Vec<Write>, ApiError> {
    let mut links = Links::default();
    let mut named = HashSet::new();
    let mut writes = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let (write, full_url) = write_of(entry).map_err(|error| in_entry(index, error))?;
        if !named.insert((write.ty, write.id.clone())) {
            let why = format!("{}/{} is named twice", write.ty, write.id);
            return Err(in_entry(index, ApiError::invalid("request.url", why)));
        }
        if let (Some(url), Action::Put(_)) = (&full_url, &write.action)
            && !links.insert(url, write.ty, &write.id)
        {
            let why = format!("another entry has the fullUrl {url}");
            return Err(in_entry(index, ApiError::invalid("fullUrl", why)));
        }
        writes.push((write, full_url));
    }
    let resolved = |(mut write, full_url): (Write, Option<String>)| {
        if let Action::Put(resource) = &mut write.action {
            links.resolve(resource, full_url.as_deref());
        }
        write
    };
    Ok(writes.into_iter().map(resolved).collect())
}

fn write_of(entry: Result<Entry, BadEntry>) -> Result<(Write, Option<String>), ApiError> {
    let mut entry = entry?;
    let full_url = entry.full_url.take();
    match plan(entry)? {
        Planned::Write(write) => Ok((write, full_url)),
        Planned::Read { .. } => {
            let why = "reads are not supported in a transaction: send them in a batch";
            let status = StatusCode::BAD_REQUEST;
            Err(ApiError::new(status, IssueType::NotSupported, why).at("request.method"))
        }
    }
}

/// What an entry asks for.
pub(super) enum Planned {
    /// A read, for who has not that version yet.
    Read {
        /// The resource.
        target: Instance,
        /// `ifNoneMatch`.
        if_none_match: Option<String>,
    },
    /// A write.
    Write(Write),
}

/// What `request.url` names.
enum Place {
    Type(ResourceType),
    Instance(Instance),
}

/// What an entry asks for.
///
/// # Errors
/// What is wrong with it, by the element below the entry.
pub(super) fn plan(entry: Entry) -> Result<Planned, ApiError> {
    let request = entry.request.ok_or_else(|| ApiError::invalid("request", "it is missing"))?;
    if request.if_none_exist.is_some() {
        return Err(search_unsupported("a conditional create").at("request.ifNoneExist"));
    }
    let place = place(&request.url).map_err(|error| below("request.url", error))?;
    let write = match (request.method.as_str(), place) {
        ("GET", Place::Instance(target)) => {
            return Ok(Planned::Read { target, if_none_match: request.if_none_match });
        }
        ("POST", Place::Type(ty)) => put(body(entry.resource, ty)?, new_id(), Expect::Absent),
        ("PUT", Place::Instance(Instance { ty, id })) => {
            let resource = body(entry.resource, ty)?;
            same_id(&resource, &id).map_err(|error| below("resource", error))?;
            put(resource, id, expect(&request)?)
        }
        ("DELETE", Place::Instance(Instance { ty, id })) => {
            Write { ty, id, action: Action::Delete, expect: expect(&request)? }
        }
        (method, _) => return Err(impossible(method, &request.url)),
    };
    Ok(Planned::Write(write))
}

fn place(url: &str) -> Result<Place, ApiError> {
    if url.contains('?') {
        return Err(search_unsupported(&format!("'{url}'")));
    }
    match url.split_once('/') {
        None => resource_type(url).map(Place::Type),
        Some((ty, id)) => {
            Ok(Place::Instance(Instance { ty: resource_type(ty)?, id: resource_id(id)? }))
        }
    }
}

fn impossible(method: &str, url: &str) -> ApiError {
    let why = match method {
        "POST" => "POST goes to a Type, without an id".to_owned(),
        "GET" | "PUT" | "DELETE" => format!("{method} goes to Type/id, and not to {url}"),
        _ => format!("'{method}' is not supported: send GET, POST, PUT or DELETE"),
    };
    let status = StatusCode::BAD_REQUEST;
    ApiError::new(status, IssueType::NotSupported, why).at("request.method")
}

fn body(resource: Option<Resource>, ty: ResourceType) -> Result<Resource, ApiError> {
    let resource = resource.ok_or_else(|| ApiError::invalid("resource", "it is missing"))?;
    same_type(&resource, ty).map_err(|error| below("resource", error))?;
    if let Some(reference) = conditional_reference(&resource) {
        let what = format!("the conditional reference '{reference}'");
        return Err(search_unsupported(&what).at("resource"));
    }
    Ok(resource)
}

fn expect(request: &EntryRequest) -> Result<Expect, ApiError> {
    expectation(request.if_match.as_deref(), request.if_none_match.as_deref())
        .map_err(|error| ApiError { expression: vec!["request".into()], ..error })
}

impl From<BadEntry> for ApiError {
    fn from(BadEntry { at, why }: BadEntry) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, IssueType::Structure, why);
        if at.is_empty() { error } else { error.at(at) }
    }
}

/// The error as one of an element below `parent`.
fn below(parent: &str, mut error: ApiError) -> ApiError {
    match error.expression.as_mut_slice() {
        [] => error.at(parent),
        names => {
            names.iter_mut().for_each(|name| *name = format!("{parent}.{name}"));
            error
        }
    }
}

/// The error as one of `Bundle.entry[index]`.
pub(super) fn in_entry(index: usize, error: ApiError) -> ApiError {
    let error = below(&format!("Bundle.entry[{index}]"), error);
    let at = error.expression.first().map_or("", String::as_str);
    ApiError { diagnostics: format!("{at}: {}", error.diagnostics), ..error }
}
