//! From the listener to the sockets: who is let in, who speaks HTTP to whom, who carries a
//! stream.
//!
//! ```text
//! accept ─▶ greeting, tls ─▶ http, http2 (hyper) ─▶ router ─▶ answer
//!              │ an event stream over plain HTTP/1.1
//!              ▼
//!           direct: a task of its own writes what its session says ──┐
//!              ▲ lags, starts over, drain                            │ level with the ring
//!              └──────────────────────── crowd ◀─────────────────────┘
//! ```
//!
//! hyper reads the request and writes the head of the answer. From there on the stream has the
//! socket to itself: while it is level with the ring it costs a position and a socket, and each
//! change goes to the socket from the one frame that all share. Over HTTP/2, whose sockets many
//! streams share, and over TLS a stream stays a body in hyper's hands.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use metrics::counter;
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{live::Hub, seldom::Seldom};

mod audience;
mod audiences;
mod carrier;
mod chunked;
mod clock;
mod coding;
mod crowd;
mod direct;
mod flow;
mod greeting;
mod guard;
mod gzip;
mod http;
mod http2;
mod index;
mod socket;
mod takeover;
mod tls;
mod wire;

pub use takeover::Takeover;

use crowd::Crowd;
use socket::Socket;
use wire::Patience;

/// Times of connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionOptions {
    /// After how much silence a stream gets a comment.
    pub keep_alive: Duration,
    /// How long a client may take nothing of what is there for it.
    pub write_deadline: Duration,
    /// Over how much time streams end once the server drains.
    pub drain_over: Duration,
    /// How long a client may take for the head of a request.
    pub head_deadline: Duration,
    /// How many connections may be open at once; who comes then waits to be let in.
    pub most: usize,
}

/// What a client that takes nothing has left at least once the server drains: one that is just
/// slow gets its farewell.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What connections share.
#[derive(Clone)]
pub struct Connections {
    router: Router,
    options: ConnectionOptions,
    crowd: Arc<Crowd>,
    patience: Arc<Patience>,
    room: Arc<Semaphore>,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    tasks: TaskTracker,
    drain: CancellationToken,
    cut: CancellationToken,
}

impl Connections {
    /// For a server whose streams follow `hub`, encrypted by `tls` where there is one. `drain` ends
    /// what is open once it is answered.
    #[must_use]
    pub fn new(
        router: Router,
        hub: &Arc<Hub>,
        options: ConnectionOptions,
        tls: Option<watch::Receiver<Arc<ServerConfig>>>,
        drain: CancellationToken,
    ) -> Self {
        let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
        let crowd = Crowd::start(hub, options.keep_alive, &tasks, &drain, &cut);
        let patience = Arc::new(Patience {
            deadline: options.write_deadline,
            drain: drain.clone(),
            drain_over: options.drain_over.max(LAST_WORD),
        });
        let room = Arc::new(Semaphore::new(options.most.min(Semaphore::MAX_PERMITS)));
        Self { router, options, crowd, patience, room, tls, tasks, drain, cut }
    }

    /// How a connection that opens now is encrypted, if it is.
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.borrow()))
    }

    fn patience(&self) -> Arc<Patience> {
        Arc::clone(&self.patience)
    }

    /// Lets in whoever comes, until dropped.
    pub async fn accept(&self, listener: &TcpListener) {
        let seldom = Seldom::new();
        loop {
            // Nobody closes it: at worst there is room for all.
            let room = Arc::clone(&self.room).acquire_owned().await.ok();
            match listener.accept().await {
                Ok((socket, peer)) => self.open(Socket::new(socket, room), peer),
                Err(error) => {
                    // Mostly too many open files: those who wait in the queue don't go away.
                    counter!("fhirtail_accept_failures_total").increment(1);
                    seldom.say(|more| warn!(%error, more, "a connection can't be accepted"));
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn open(&self, socket: Socket, peer: SocketAddr) {
        let (shared, cut) = (self.clone(), self.cut.clone());
        let carried = async move {
            // hyper's part is large, and not needed once a stream has the socket.
            if let Some(direct) = Box::pin(http::speak(&shared, socket, peer)).await {
                Box::pin(shared.crowd.carry(direct)).await;
            }
        };
        self.tasks.spawn(async move { cut.run_until_cancelled(carried).await });
    }

    /// Waits until each connection has ended, but no longer than `most`; what then still stands
    /// is cut. Says whether nothing had to be.
    pub async fn end(&self, most: Duration) -> bool {
        self.tasks.close();
        let ended = tokio::time::timeout(most, self.tasks.wait()).await.is_ok();
        self.cut.cancel();
        self.tasks.wait().await;
        ended
    }
}

/// What a client does to its own connection is no matter for the log.
fn ended(peer: SocketAddr, why: &dyn std::fmt::Display) {
    debug!(%peer, %why, "a connection has ended");
}
