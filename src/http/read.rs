//! One resource by its id, as stored.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    AppState,
    conditions::{etag, has_current, http_date},
    request::{Instance, TakesJson, VersionOf, text_of},
};
use crate::{
    error::{ApiError, FHIR_JSON},
    fhir::{instant, outcome::IssueType},
    store::Lookup,
};

/// A resource's current version.
#[derive(Debug)]
pub(super) struct Current {
    /// Compact JSON.
    pub json: Bytes,
    /// Its version number; 0: none that is a number.
    pub version: u64,
    /// Its `meta.lastUpdated`.
    pub last_updated: Option<Timestamp>,
}

/// `GET /fhir/{type}/{id}`
pub(super) async fn read(
    State(app): State<AppState>,
    target: Instance,
    _: TakesJson,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let current = find(&app, &target).await?;
    let known = text_of(&headers, &header::IF_NONE_MATCH)?;
    Ok(match known.is_some_and(|known| has_current(known, current.version)) {
        true => (StatusCode::NOT_MODIFIED, validators(&current)).into_response(),
        false => answer(current),
    })
}

/// `GET /fhir/{type}/{id}/_history/{version}`, for the current version: no other is kept.
pub(super) async fn vread(
    State(app): State<AppState>,
    VersionOf { target, version }: VersionOf,
    _: TakesJson,
) -> Result<Response, ApiError> {
    let current = find(&app, &target).await?;
    if current.version.to_string() == version {
        return Ok(answer(current));
    }
    let Instance { ty, id } = target;
    let why = format!("only the current version of {ty}/{id} is kept: {}", current.version);
    Err(ApiError::not_found(why))
}

/// The current version of a resource.
///
/// # Errors
/// 404, 410 for what was deleted, or what the store fails with.
pub(super) async fn find(
    app: &AppState,
    Instance { ty, id }: &Instance,
) -> Result<Current, ApiError> {
    match app.read(*ty, id).await? {
        Lookup::Found { json, version } => {
            Ok(Current { last_updated: last_updated(&json), json, version })
        }
        Lookup::Absent => Err(ApiError::not_found(format!("there is no {ty}/{id}"))),
        Lookup::Deleted { version } => {
            let why = format!("{ty}/{id} was deleted (version {version})");
            Err(ApiError::new(StatusCode::GONE, IssueType::Deleted, why))
        }
    }
}

fn answer(current: Current) -> Response {
    let content_type = [(header::CONTENT_TYPE, FHIR_JSON)];
    (content_type, validators(&current), current.json).into_response()
}

fn validators(current: &Current) -> HeaderMap {
    let tag = (current.version != 0).then(|| etag(current.version));
    let date = current.last_updated.and_then(http_date);
    let named = [(header::ETAG, tag), (header::LAST_MODIFIED, date)];
    named.into_iter().filter_map(|(name, value)| Some((name, value?.parse().ok()?))).collect()
}

fn last_updated(json: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Stamped {
        meta: Meta,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        last_updated: String,
    }
    let stamped: Stamped = serde_json::from_slice(json).ok()?;
    instant::parse(&stamped.meta.last_updated)
}
