//! Writes of one resource: create, update, delete.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use super::{
    AppState, blocking,
    conditions::{Return, etag, expectation, http_date, preferred_return},
    request::{Instance, JsonBody, OfType, TakesJson, text_of},
};
use crate::{
    error::{ApiError, FHIR_JSON},
    fhir::{
        ResourceType,
        outcome::{self, IssueType},
        resource::{Resource, new_id},
    },
    store::{Action, Effect, Expect, Rule, StoreError, Write, WriteError, Written},
};

/// From this size on a body is parsed away from the event loop, in bytes.
const LARGE: usize = 64 << 10;

/// `POST /fhir/{type}`: creates under an id of ours.
pub(super) async fn create(
    State(app): State<AppState>,
    OfType(ty): OfType,
    _: TakesJson,
    headers: HeaderMap,
    JsonBody(body, _share): JsonBody,
) -> Result<Response, ApiError> {
    if headers.contains_key("if-none-exist") {
        return Err(search_unsupported("a conditional create").at("If-None-Exist"));
    }
    let resource = parse(body).await?;
    same_type(&resource, ty)?;
    commit_one(&app, put(resource, new_id(), Expect::Absent), &headers).await
}

/// `PUT /fhir/{type}/{id}`: replaces, or creates under the caller's id.
pub(super) async fn update(
    State(app): State<AppState>,
    Instance { ty, id }: Instance,
    _: TakesJson,
    headers: HeaderMap,
    JsonBody(body, _share): JsonBody,
) -> Result<Response, ApiError> {
    let expect = expectation_of(&headers)?;
    let resource = parse(body).await?;
    same_type(&resource, ty)?;
    same_id(&resource, &id)?;
    commit_one(&app, put(resource, id, expect), &headers).await
}

/// `DELETE /fhir/{type}/{id}`: 204, also for what was not there.
pub(super) async fn delete(
    State(app): State<AppState>,
    Instance { ty, id }: Instance,
    _: TakesJson,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let write = Write { ty, id, action: Action::Delete, expect: expectation_of(&headers)? };
    commit_one(&app, write, &headers).await
}

/// `PUT`, `DELETE` and `PATCH` of `/fhir/{type}`, which FHIR selects the resource for by a
/// search.
pub(super) async fn conditional(OfType(ty): OfType) -> ApiError {
    search_unsupported(&format!("a write to {ty} without an id"))
}

/// 400: `what` would need a search.
pub(super) fn search_unsupported(what: &str) -> ApiError {
    let why = format!("{what} is not supported yet, since it needs a search: name Type/id instead");
    ApiError::new(StatusCode::BAD_REQUEST, IssueType::NotSupported, why)
}

/// The write that puts a resource under an id.
pub(super) fn put(resource: Resource, id: String, expect: Expect) -> Write {
    let (ty, resource) = (resource.ty(), resource.with_id(&id));
    Write { ty, id, action: Action::Put(resource), expect }
}

/// # Errors
/// 400 where the resource is of another type.
pub(super) fn same_type(resource: &Resource, ty: ResourceType) -> Result<(), ApiError> {
    if resource.ty() == ty {
        return Ok(());
    }
    let why = format!("resourceType is {}, but the URL says {ty}", resource.ty());
    Err(ApiError::invalid("resourceType", why))
}

/// # Errors
/// 400 where the resource has no or another id.
pub(super) fn same_id(resource: &Resource, id: &str) -> Result<(), ApiError> {
    match resource.id() {
        Some(own) if own == id => Ok(()),
        Some(own) => Err(ApiError::invalid("id", format!("id is {own}, but the URL says {id}"))),
        None => Err(ApiError::invalid("id", format!("id is missing: the URL says {id}"))),
    }
}

/// What a failed write is answered. A Bundle says which entry it was.
impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Conflict { found, .. } => {
                let why = match found {
                    Some(version) => format!("the current version is {}", etag(version)),
                    None => "there is no current version".to_owned(),
                };
                Self::new(StatusCode::PRECONDITION_FAILED, IssueType::Conflict, why)
            }
            WriteError::Unstorable { why, .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, IssueType::Invalid, why)
            }
            WriteError::Rule { rule, .. } => {
                let (status, code) = match rule {
                    Rule::Unique(_) => (StatusCode::CONFLICT, IssueType::Duplicate),
                    Rule::Validator => (StatusCode::UNPROCESSABLE_ENTITY, IssueType::BusinessRule),
                };
                Self::new(status, code, rule.to_string())
            }
            WriteError::Store(error) => error.into(),
        }
    }
}

/// The status that says what a write did.
pub(super) fn status(effect: Effect) -> StatusCode {
    match effect {
        Effect::Created => StatusCode::CREATED,
        Effect::Updated | Effect::Unchanged => StatusCode::OK,
        Effect::Deleted | Effect::Missing => StatusCode::NO_CONTENT,
    }
}

/// One sentence about what a write did.
pub(super) fn said(name: &str, written: &Written) -> Bytes {
    let version = written.version;
    outcome::information(&match written.effect {
        Effect::Created => format!("{name} was created as version {version}"),
        Effect::Updated => format!("{name} was updated to version {version}"),
        Effect::Unchanged => format!("{name} holds the same already: it stays version {version}"),
        Effect::Deleted => format!("{name} was deleted (version {version})"),
        Effect::Missing => format!("there was no {name} to delete"),
    })
}

/// # Errors
/// The store gave no outcome for a write: a defect of the store.
pub(super) fn outcome_of(written: Option<Written>) -> Result<Written, StoreError> {
    written.ok_or_else(|| StoreError::Failed("the store did not say what a write did".into()))
}

async fn parse(body: Bytes) -> Result<Resource, ApiError> {
    let large = body.len() >= LARGE;
    let parse = move || Ok(Resource::parse(&body)?);
    if large { blocking(parse).await } else { parse() }
}

fn expectation_of(headers: &HeaderMap) -> Result<Expect, ApiError> {
    let if_none_match = text_of(headers, &header::IF_NONE_MATCH)?;
    expectation(text_of(headers, &header::IF_MATCH)?, if_none_match)
}

async fn commit_one(
    app: &AppState,
    write: Write,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let name = format!("{}/{}", write.ty, write.id);
    let written = outcome_of(app.commit(vec![write]).await?.pop())?;
    Ok(answer(app, &name, written, preferred_return(headers)))
}

fn answer(app: &AppState, name: &str, written: Written, prefer: Option<Return>) -> Response {
    let said = said(name, &written);
    let body = match prefer.unwrap_or(Return::Representation) {
        Return::Minimal => None,
        Return::Representation => written.json.clone(),
        Return::Outcome => Some(said),
    };
    let headers = headers(app, name, &written);
    let status = match (status(written.effect), &body) {
        (StatusCode::NO_CONTENT, Some(_)) => StatusCode::OK,
        (status, _) => status,
    };
    match body {
        Some(json) => (status, [(header::CONTENT_TYPE, FHIR_JSON)], headers, json).into_response(),
        None => (status, headers).into_response(),
    }
}

fn headers(app: &AppState, name: &str, written: &Written) -> HeaderMap {
    let exists = written.effect != Effect::Missing;
    let location = (written.effect == Effect::Created)
        .then(|| format!("{}/{name}/_history/{}", app.options.base, written.version));
    let named: [(HeaderName, Option<String>); 3] = [
        (header::LOCATION, location),
        (header::ETAG, exists.then(|| etag(written.version))),
        (header::LAST_MODIFIED, http_date(written.last_updated).filter(|_| exists)),
    ];
    named.into_iter().filter_map(|(name, value)| Some((name, value?.parse().ok()?))).collect()
}
