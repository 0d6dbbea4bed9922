//! HTTP: from requests to the store and back. Every refusal is an OperationOutcome.

use std::sync::Arc;

use axum::{
    Router,
    http::{Method, StatusCode, Uri},
    routing::{get, post},
};

use crate::{
    error::ApiError,
    fhir::{ResourceType, outcome::IssueType},
    store::{Lookup, Store, StoreError, Write, WriteError, Written},
};

pub mod bundle;
pub mod conditions;
pub mod entries;
pub mod metadata;
pub mod read;
pub mod request;
pub mod write;

/// What every handler knows.
#[derive(Debug, Clone)]
pub struct AppState {
    /// Where the resources are.
    pub store: Arc<dyn Store>,
    /// The largest body that is read, in bytes.
    pub body_limit: usize,
    /// What stands before `Type/id` in a `Location`: `/fhir`, or with scheme and host.
    pub base: Arc<str>,
}

impl AppState {
    /// [`Store::read`], which runs to its end even if the caller goes away.
    async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError> {
        let (store, id) = (Arc::clone(&self.store), id.to_owned());
        detached(async move { store.read(ty, &id).await }).await
    }

    /// [`Store::commit`], which runs to its end even if the caller goes away.
    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        let store = Arc::clone(&self.store);
        detached(async move { store.commit(writes).await }).await
    }
}

/// Runs a call of the store in a task of its own: a driver's future is never dropped half-way.
async fn detached<T, E>(call: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let broken = |e| Err(StoreError::Failed(format!("a call of the store broke off: {e}")).into());
    tokio::spawn(call).await.unwrap_or_else(broken)
}

/// Runs what takes long and never waits (a large body's parsing) where it holds up no other
/// request.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let broken = |e| Err(ApiError::new(status, IssueType::Exception, format!("{e}")));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(broken)
}

/// Resources one by one, Bundles, and the CapabilityStatement, below `/fhir`.
///
/// It has no fallbacks: see [`not_found`] and [`method_not_allowed`].
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/fhir", post(bundle::post))
        .route("/fhir/", post(bundle::post))
        .route("/fhir/metadata", get(metadata::get))
        .route(
            "/fhir/{type}",
            post(write::create)
                .put(write::conditional)
                .delete(write::conditional)
                .patch(write::conditional),
        )
        .route("/fhir/{type}/{id}", get(read::read).put(write::update).delete(write::delete))
        .route("/fhir/{type}/{id}/_history/{version}", get(read::vread))
}

/// The fallback where no route is.
pub async fn not_found(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", uri.path()))
}

/// The fallback where a route is, but not for the method.
pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let why = format!("{method} is not possible on {}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, IssueType::NotSupported, why)
}
