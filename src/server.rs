//! The server: store, tail and edge put together, and taken apart in order when it stops.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    config::ServerArgs,
    http::{self, AppState, HttpOptions},
    live::Hub,
    store::{Store, StoreError},
};

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is open to others.
    #[error(
        "{0} can be reached from outside, and nobody is asked who they are: listen on 127.0.0.1, \
         or say --insecure-public if something in front of it asks"
    )]
    Public(SocketAddr),
    /// The address can't be had.
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listener failed.
    #[error("the listener failed: {0}")]
    Io(#[from] std::io::Error),
}

/// How long after the drain connections that still stand are waited for.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    state: AppState,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    /// Listens, and starts to read the store's change log.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(
        args: &ServerArgs,
        store: Arc<dyn Store>,
        metrics: Option<PrometheusHandle>,
    ) -> Result<Self, ServeError> {
        let wanted = args.listen.listen;
        if !wanted.ip().is_loopback() && !args.listen.insecure_public {
            return Err(ServeError::Public(wanted));
        }
        let listener =
            TcpListener::bind(wanted).await.map_err(|error| ServeError::Listen(wanted, error))?;
        let address = listener.local_addr()?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let hub = Hub::start(Arc::clone(&store), args.live.into(), tasks.clone(), stop.clone());
        let options = Arc::new(options(args, metrics));
        let drain = CancellationToken::new();
        let state = AppState { store, hub: hub.await?, options, drain };
        Ok(Self { listener, address, state, tasks, stop })
    }

    /// Where it listens; with port 0, the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says in one line where it is, what it serves and how to see something.
    pub fn announce(&self) {
        let (address, store) = (self.address, self.state.store.describe());
        info!(
            "fhirtail serves {store} at http://{address}/fhir; see it in a browser at \
             http://{address}/ or with: curl -N -H 'Accept: text/event-stream' \
             'http://{address}/fhir/$export'"
        );
    }

    /// Serves until `shutdown`, then ends the open streams, the tail and the store.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let Self { listener, state, tasks, stop, .. } = self;
        let (drain, drain_over) = (state.drain.clone(), state.options.drain_over);
        let store = Arc::clone(&state.store);
        let serve = axum::serve(NoDelay(listener), http::router(state))
            .with_graceful_shutdown(drain.clone().cancelled_owned());
        let mut serving = tokio::spawn(async move { serve.await });
        let served = tokio::select! {
            served = &mut serving => served.unwrap_or_else(|broken| Err(broken.into())),
            () = shutdown => {
                info!("stopping: streams end within {drain_over:?}");
                drain.cancel();
                if tokio::time::timeout(drain_over + LAST_WAIT, &mut serving).await.is_err() {
                    warn!("some connections did not end; they are cut");
                    serving.abort();
                }
                Ok(())
            }
        };
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(LAST_WAIT, tasks.wait()).await.is_err() {
            warn!("the store did not answer to the last; going without");
        }
        store.close().await;
        Ok(served?)
    }
}

fn options(args: &ServerArgs, metrics: Option<PrometheusHandle>) -> HttpOptions {
    HttpOptions {
        body_limit: args.stream.body_limit,
        cors_origins: args.listen.cors_origins.clone(),
        keep_alive: args.stream.keep_alive,
        retry: args.stream.retry,
        drain_over: args.stream.drain,
        stale_after: Duration::from_secs(15),
        base: "/fhir".into(),
        metrics,
    }
}

/// Each event goes out when it is written: Nagle's algorithm would hold it back.
struct NoDelay(TcpListener);

impl axum::serve::Listener for NoDelay {
    type Io = tokio::net::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let accepted = axum::serve::Listener::accept(&mut self.0).await;
        if let Err(error) = accepted.0.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        accepted
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
