//! `$export`: a request becomes a session, and its frames the body.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::AppState;
use crate::{
    error::ApiError,
    fhir::{ResourceType, outcome::IssueType, resource::is_id},
    frame::{self, Format},
    plan::{Grant, Plan, Scope},
    request::{ExportRequest, Level, Pairs},
    session::{Session, body},
    store::{Lookup, StoreError},
};

pub(super) fn routes() -> Router<AppState> {
    // Some clients write '$' as '%24', which the router would not take for the same.
    ["$export", "%24export"].into_iter().fold(Router::new(), |router, export| {
        router
            .route(&format!("/fhir/{export}"), get(system))
            .route(&format!("/fhir/{{type}}/{export}"), get(of_type))
            .route(&format!("/fhir/Group/{{id}}/{export}"), get(of_group))
    })
}

async fn system(
    State(app): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    export(app, Level::System, query, headers).await
}

async fn of_type(
    State(app): State<AppState>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let level = match ResourceType::parse(&name) {
        Some(_) if name == "Patient" => Level::Patients,
        Some(ty) => Level::Type(ty),
        None => {
            let text = format!("{name:?} is no resource type of FHIR R4 (4.0.1).");
            return Err(ApiError::not_found(text));
        }
    };
    export(app, level, query, headers).await
}

async fn of_group(
    State(app): State<AppState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if !is_id(&id) {
        return Err(ApiError::invalid("id", format!("{id:?} can't be the id of a Group.")));
    }
    export(app, Level::Group(id), query, headers).await
}

async fn export(
    app: AppState,
    level: Level,
    query: Option<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let request = ExportRequest::parse(level, pairs(query)?, &headers, Grant::Everything)?;
    if app.drain.is_cancelled() {
        return come_again(&app, &request);
    }
    match check_scope(&app, &request.plan).await {
        Ok(()) => {}
        Err(Refused::Caller(error)) => return Err(error),
        Err(Refused::Store(StoreError::Unavailable(_))) if request.format == Format::Sse => {
            return come_again(&app, &request);
        }
        Err(Refused::Store(error)) => return Err(error.into()),
    }
    let ended = !request.plan.follow && request.start.as_ref().is_some_and(|p| p.scan.is_none());
    if ended && request.format == Format::Sse {
        // All of a stream that ends has been sent: 204 keeps an EventSource from coming again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let head = head(&request)?;
    let ExportRequest { plan, format, start, .. } = request;
    let (store, hub) = (Arc::clone(&app.store), Arc::clone(&app.hub));
    let session = Session::new(Arc::new(plan), store, hub, format, start);
    Ok((head, body(session, app.body_options())).into_response())
}

fn pairs(query: Option<String>) -> Result<Pairs, ApiError> {
    let uri = format!("/?{}", query.unwrap_or_default());
    let bad = |text: String| ApiError::invalid("query", format!("the query can't be read: {text}"));
    let uri = uri.parse().map_err(|_| bad("it has characters that no URL has".into()))?;
    let Query(pairs) = Query::try_from_uri(&uri).map_err(|error| bad(error.body_text()))?;
    Ok(pairs)
}

enum Refused {
    Caller(ApiError),
    Store(StoreError),
}

/// What only the store knows: whether the group is there, and whether a compartment can be
/// followed without a leak.
async fn check_scope(app: &AppState, plan: &Plan) -> Result<(), Refused> {
    if let (Scope::Group(id), Some(ty)) = (&plan.scope, ResourceType::parse("Group")) {
        match app.read(ty, id).await.map_err(Refused::Store)? {
            Lookup::Found { .. } => {}
            Lookup::Absent | Lookup::Deleted { .. } => {
                let text = format!("there is no Group/{id}.");
                return Err(Refused::Caller(ApiError::not_found(text).at("id")));
            }
        }
    }
    if plan.follow && plan.is_restricted() {
        plan.types.iter().try_for_each(|ty| app.store.before_images(*ty)).map_err(|mend| {
            let text = format!(
                "this export can't go on live: it must tell when a resource leaves a \
                 compartment. {mend}"
            );
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Refused::Caller(ApiError::new(status, IssueType::NotSupported, text))
        })?;
    }
    Ok(())
}

/// An EventSource gives up for good on any status but 200: what it should survive is told in
/// the stream.
fn come_again(app: &AppState, request: &ExportRequest) -> Result<Response, ApiError> {
    if request.format == Format::Ndjson {
        return Err(StoreError::Unavailable("it is going away or its store is".into()).into());
    }
    let millis = u64::try_from(app.options.retry.as_millis()).unwrap_or(u64::MAX);
    Ok((head(request)?, Body::from(frame::retry(millis))).into_response())
}

fn head(request: &ExportRequest) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    let media_type = HeaderValue::from_static(request.format.media_type());
    headers.insert(header::CONTENT_TYPE, media_type);
    let cache = HeaderValue::from_static("no-store, no-transform");
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if request.preferred {
        headers.insert("preference-applied", HeaderValue::from_static("respond-eventsource"));
    }
    if !request.ignored.is_empty() {
        let ignored = request.ignored.join(", ");
        let ignored: String = ignored.chars().filter(char::is_ascii_graphic).take(500).collect();
        if let Ok(value) = HeaderValue::from_str(&ignored) {
            headers.insert("x-ignored-parameters", value);
        }
    }
    Ok(headers)
}
