//! The edge: routes, one file per kind of request; what crosses it is FHIR-shaped.

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};
use tracing::{Instrument, info_span};

pub use bodies::Bodies;
pub use limits::Limits;

use caller::Caller;

use crate::{
    error::ApiError,
    fhir::{ResourceType, outcome::IssueType},
    live::Hub,
    session::{Admission, Place, Roll, Times},
    store::{Lookup, Store, StoreError, Write, WriteError, Written, detached},
};

mod bodies;
mod bundle;
mod caller;
mod compress;
mod conditions;
mod entries;
mod export;
mod health;
mod limits;
mod metadata;
mod page;
mod read;
mod request;
mod search;
mod streams;
mod trace;
mod write;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The live part.
    pub hub: Arc<Hub>,
    /// Sizes and times.
    pub options: Arc<HttpOptions>,
    /// How many streams there may be.
    pub limits: Arc<Limits>,
    /// How much of bodies there may be.
    pub bodies: Arc<Bodies>,
    /// The open streams.
    pub roll: Arc<Roll>,
    /// The server is going away: no new streams, and the open ones end.
    pub drain: CancellationToken,
}

/// Sizes and times of the edge.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Origins whose pages may read from here; `*` is any.
    pub cors_origins: Vec<HeaderValue>,
    /// After how much silence an event stream gets a comment.
    pub keep_alive: Duration,
    /// How long a client of an ended stream waits before it comes again.
    pub retry: Duration,
    /// Over how much time open streams end when the server stops.
    pub drain_over: Duration,
    /// How long the store may be silent before `/readyz` says so.
    pub stale_after: Duration,
    /// How this server's URLs begin: `http`, or `https`.
    pub scheme: &'static str,
    /// What stands before `Type/id` in a `Location`: `/fhir`, or with scheme and host.
    pub base: Arc<str>,
    /// Renders `/metrics`.
    pub metrics: Option<PrometheusHandle>,
}

impl AppState {
    /// [`Store::read`], which runs to its end even if the caller goes away.
    async fn read(&self, ty: ResourceType, id: &str) -> Result<Lookup, StoreError> {
        let (store, id) = (Arc::clone(&self.store), id.to_owned());
        let span = info_span!("read", fhir.type = ty.name());
        detached(async move { store.read(ty, &id).await }.instrument(span)).await
    }

    /// [`Store::commit`], which runs to its end even if the caller goes away.
    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        let store = Arc::clone(&self.store);
        let span = info_span!("commit", fhirtail.writes = writes.len());
        detached(async move { store.commit(writes).await }.instrument(span)).await
    }

    /// What a stream is let in with.
    fn admission(&self, place: Place, caller: &mut Caller) -> Admission {
        let (cut_off, asked) = (caller.cut_off.clone(), std::mem::take(&mut caller.asked));
        Admission { place, cut_off, roll: Arc::clone(&self.roll), asked }
    }

    fn times(&self) -> Times {
        Times {
            keep_alive: self.options.keep_alive,
            retry: self.options.retry,
            drain: self.drain.clone(),
            drain_over: self.options.drain_over,
        }
    }
}

/// All routes.
pub fn router(state: AppState) -> Router {
    let (options, bodies) = (Arc::clone(&state.options), Arc::clone(&state.bodies));
    Router::new()
        .merge(resource_routes())
        .merge(export::routes())
        .merge(health::routes())
        .merge(page::routes())
        .merge(streams::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(compress::layer))
        .layer(DefaultBodyLimit::max(bodies.limit()))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(cors(&options.cors_origins))
        .layer(middleware::from_fn(trace::layer))
        .with_state(state)
}

/// Resources one by one, Bundles, and the CapabilityStatement.
fn resource_routes() -> Router<AppState> {
    Router::new()
        .route("/fhir", post(bundle::post))
        .route("/fhir/", post(bundle::post))
        .route("/fhir/metadata", get(metadata::get))
        .route(
            "/fhir/{type}",
            get(search::get)
                .post(write::create)
                .put(write::conditional)
                .delete(write::conditional)
                .patch(write::conditional),
        )
        .route("/fhir/{type}/_search", post(search::post))
        .route("/fhir/{type}/{id}", get(read::read).put(write::update).delete(write::delete))
        .route("/fhir/{type}/{id}/_history/{version}", get(read::vread))
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

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    // A list must not hold the wildcard, beside which every other origin is idle.
    let origins = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().cloned()),
    };
    const MINUTE: Duration = Duration::from_secs(60);
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::ACCEPT,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("prefer"),
        ])
        .expose_headers([
            header::ETAG,
            header::LAST_MODIFIED,
            header::LOCATION,
            HeaderName::from_static("preference-applied"),
            HeaderName::from_static("x-ignored-parameters"),
        ])
        .max_age(10 * MINUTE)
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}: FHIR begins at /fhir/.", uri.path()))
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        IssueType::NotSupported,
        format!("{method} is not done at {}.", uri.path()),
    )
}

/// A defect of ours: the caller hears so, and the server goes on.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    const TEXT: &str = "the server met a defect of its own; its log tells more.";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, IssueType::Exception, TEXT).into_response()
}
