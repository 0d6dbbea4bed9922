//! What a caller can be told: one error, its HTTP status and its OperationOutcome.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    fhir::outcome::{self, IssueType},
    store::StoreError,
};

/// The media type of FHIR JSON.
pub const FHIR_JSON: &str = "application/fhir+json";

/// A refusal: what was wrong and what to send instead.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{diagnostics}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The kind of issue.
    pub code: IssueType,
    /// One or two sentences for people.
    pub diagnostics: String,
    /// The parameter, header or element at fault.
    pub expression: Vec<String>,
    /// When to come again (`Retry-After`).
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// Any refusal.
    pub fn new(status: StatusCode, code: IssueType, diagnostics: impl Into<String>) -> Self {
        let diagnostics = diagnostics.into();
        Self { status, code, diagnostics, expression: Vec::new(), retry_after: None }
    }

    /// 400: the parameter, header or element `name` is wrong.
    pub fn invalid(name: &str, diagnostics: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, IssueType::Value, diagnostics).at(name)
    }

    /// 404.
    pub fn not_found(diagnostics: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, IssueType::NotFound, diagnostics)
    }

    /// Names the parameter, header or element at fault.
    #[must_use]
    pub fn at(mut self, name: &str) -> Self {
        self.expression.push(name.to_owned());
        self
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::Unavailable(_) | StoreError::SnapshotExpired => Self {
                retry_after: Some(Duration::from_secs(5)),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, IssueType::Transient, text)
            },
            StoreError::PositionLost(_) => Self::new(StatusCode::GONE, IssueType::Incomplete, text),
            StoreError::Failed(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, IssueType::Exception, text)
            }
        }
    }
}

/// Closes the connection after an answer. HTTP/2 takes no notice.
pub(crate) const CLOSE: HeaderValue = HeaderValue::from_static("close");

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = outcome::error(self.code, &self.diagnostics, &self.expression);
        let mut response = (self.status, [(header::CONTENT_TYPE, FHIR_JSON)], body).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = HeaderValue::from(wait.as_secs());
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        // The rest of a request, should it come, is not waited for, and who is turned away keeps no
        // connection from others.
        if self.status == StatusCode::REQUEST_TIMEOUT || self.code == IssueType::Throttled {
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        response
    }
}
