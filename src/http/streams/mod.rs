//! `/streams`: which streams are open, for whom, and where each is. A page for people at
//! `/streams`, the same as JSON at `/streams.json`.

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{AppState, page};
use crate::{error::ApiError, fhir::outcome::IssueType, request::pairs};

mod html;
mod view;
mod wanted;

use view::View;
use wanted::Wanted;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/streams", get(as_page)).route("/streams.json", get(as_json))
}

async fn as_json(
    State(app): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let wanted = Wanted::parse(pairs(query.unwrap_or_default().as_bytes()))?;
    let text = serde_json::to_string(&View::of(&app, &wanted)).map_err(|error| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::new(status, IssueType::Exception, error.to_string())
    })?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok((headers, text).into_response())
}

async fn as_page(
    State(app): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let wanted = Wanted::parse(pairs(query.unwrap_or_default().as_bytes()))?;
    let text = html::page(&View::of(&app, &wanted), &wanted);
    let mut headers = page::guarded("text/html; charset=utf-8", page::WITH_FORMS);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok((headers, text).into_response())
}
