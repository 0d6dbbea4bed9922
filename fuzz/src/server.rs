//! The whole edge in process: the router over a real embedded store, without sockets.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use fhirtail::{
    config::LimitArgs,
    http::{AppState, Bodies, HttpOptions, Limits, router},
    live::{Hub, HubOptions},
    store::embedded::{EmbeddedOptions, EmbeddedStore},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;

/// The largest body that is read.
pub const BODY_LIMIT: usize = 64 << 10;

/// After so many requests it starts over with an empty store.
const LIFE: usize = 20_000;

/// A server of its own store.
pub struct Server {
    runtime: Runtime,
    stop: CancellationToken,
    router: Router,
    _folder: TempDir,
    asked: usize,
}

impl Server {
    /// A server with an empty store.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        // In memory where there is such a folder: nothing here outlives the process.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::tempdir_in(place).expect("a folder");
        let stop = CancellationToken::new();
        let state = runtime.block_on(state(folder.path(), &stop));
        Self { runtime, stop, router: router(state), _folder: folder, asked: 0 }
    }

    /// An answer; its body through `read`.
    pub fn ask<T>(
        &mut self,
        request: Request<Body>,
        read: impl AsyncFnOnce(Response<Body>) -> T,
    ) -> T {
        if self.asked == LIFE {
            *self = Self::start();
        }
        self.asked += 1;
        self.runtime.block_on(async {
            let Ok(response) = self.router.call(request).await;
            read(response).await
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn state(folder: &Path, stop: &CancellationToken) -> AppState {
    let options = EmbeddedOptions { cache_bytes: 8 << 20, ..EmbeddedOptions::default() };
    let store = EmbeddedStore::open(folder, options).expect("a store");
    let live = HubOptions { ring_bytes: 1 << 20, ..HubOptions::default() };
    let hub = Hub::start(store.clone(), live, TaskTracker::new(), stop.clone()).await;
    let limits = LimitArgs { max_streams: 1_000, max_streams_per_address: None, max_scans: 64 };
    let options = HttpOptions {
        scheme: "http",
        cors_origins: vec!["http://app.example".parse().expect("a header")],
        keep_alive: Duration::from_secs(15),
        retry: Duration::from_secs(3),
        drain_over: Duration::from_secs(5),
        stale_after: Duration::from_secs(15),
        base: "/fhir".into(),
        metrics: None,
    };
    AppState {
        store,
        hub: hub.expect("a tail"),
        options: Arc::new(options),
        limits: Arc::new(Limits::new(&limits)),
        bodies: Arc::new(Bodies::new(BODY_LIMIT, Duration::from_secs(30))),
        roll: Arc::default(),
        drain: CancellationToken::new(),
    }
}
