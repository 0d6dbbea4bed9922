//! The server: store, tail and edge put together, and taken apart in order when it stops.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    config::ServerArgs,
    connection::{ConnectionOptions, Connections},
    files,
    http::{self, AppState, Bodies, HttpOptions, Limits},
    live::Hub,
    store::{Store, StoreError},
    tls::{Certificate, TlsError},
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
    /// There is no certificate to encrypt with.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    connection: ConnectionOptions,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
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
        let certificate = Certificate::load(&args.tls)?;
        let listener =
            TcpListener::bind(wanted).await.map_err(|error| ServeError::Listen(wanted, error))?;
        let address = listener.local_addr()?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let hub = Hub::start(Arc::clone(&store), args.live.into(), tasks.clone(), stop.clone());
        let tls = certificate.map(|(certificate, config)| {
            let (used, using) = watch::channel(config);
            tasks.spawn(certificate.renew(used, stop.clone()));
            using
        });
        let options = Arc::new(options(args, metrics));
        let drain = CancellationToken::new();
        let hub = hub.await?;
        let room = files::make_room(args.limit);
        let limits = Arc::new(Limits::new(&room.limits));
        let roll = Arc::default();
        let bodies = Arc::new(Bodies::new(args.stream.body_limit, args.stream.read_deadline));
        let state = AppState { store, hub, options, limits, bodies, roll, drain };
        let connection = ConnectionOptions {
            keep_alive: args.stream.keep_alive,
            drain_over: args.stream.drain,
            write_deadline: args.stream.write_deadline,
            head_deadline: args.stream.read_deadline,
            most: room.connections,
        };
        Ok(Self { listener, address, state, connection, tls, tasks, stop })
    }

    /// Where it listens; with port 0, the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says in one line where it is, what it serves and how to see something.
    pub fn announce(&self) {
        let store = self.state.store.describe();
        let at = format!("{}://{}", self.state.options.scheme, self.address);
        info!(
            "fhirtail serves {store} at {at}/fhir; see it in a browser at {at}/ or with: curl -N \
             -H 'Accept: text/event-stream' '{at}/fhir/$export'"
        );
    }

    /// Serves until `shutdown`, then ends the open streams, the tail and the store.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { listener, state, connection, tls, tasks, stop, .. } = self;
        let (drain, drain_over) = (state.drain.clone(), state.options.drain_over);
        let (store, hub) = (Arc::clone(&state.store), Arc::clone(&state.hub));
        let router = http::router(state);
        let connections = Connections::new(router, &hub, connection, tls, drain.clone());
        let ending = async {
            shutdown.await;
            info!("stopping: streams end within {drain_over:?}");
            drain.cancel();
            if !connections.end(drain_over + LAST_WAIT).await {
                warn!("some connections did not end; they are cut");
            }
        };
        // Whoever comes while streams end is told to come again.
        tokio::select! {
            () = connections.accept(&listener) => {}
            () = ending => {}
        }
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(LAST_WAIT, tasks.wait()).await.is_err() {
            warn!("the store did not answer to the last; going without");
        }
        if tokio::time::timeout(LAST_WAIT, tokio::spawn(async move { store.close().await }))
            .await
            .is_err()
        {
            warn!("the store does not close in time; going without");
        }
    }
}

fn options(args: &ServerArgs, metrics: Option<PrometheusHandle>) -> HttpOptions {
    HttpOptions {
        cors_origins: args.listen.cors_origins.clone(),
        keep_alive: args.stream.keep_alive,
        retry: args.stream.retry,
        drain_over: args.stream.drain,
        scheme: if args.tls.tls_cert.is_some() { "https" } else { "http" },
        stale_after: Duration::from_secs(15),
        base: "/fhir".into(),
        metrics,
    }
}
