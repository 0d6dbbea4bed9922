//! One connection as HTTP/2: many streams, each a body in hyper's hands, and bounds for each
//! thing of which a client could want too much.

use std::{
    convert::Infallible,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, header},
};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::http2,
    service::{Service, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    clock::Clock,
    flow::{Flow, PIECE, Pieces},
    guard::Traffic,
    http::Client,
    takeover::Takeover,
    wire::too_slow,
};
use crate::session::CutOff;

/// Requests under way on one connection. Each may hold a [`PIECE`] of its answer, and as much again
/// in its session.
const MOST_STREAMS: u32 = 128;

/// h2 lets streams write in turn, a piece at most.
const ROUND: u64 = MOST_STREAMS as u64 * PIECE as u64;

/// All of a request's head: as long a URL as there can be, and as much besides as on HTTP/1.1.
const MOST_HEAD: u32 = 128 << 10;

/// What a client may send before it is read: of one body, and of all.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// RFC 9113's smallest, and first: a frame of one stream keeps the others waiting.
const FRAME: u32 = 16 << 10;

/// What names of headers are remembered by.
const HEADER_TABLE: u32 = 4096;

/// How many streams may be reset before they are looked at (CVE-2023-44487), and how many may be
/// reset by us since their client does not keep to the protocol (CVE-2025-8671). Then the
/// connection ends.
const RESET_EARLY: usize = 20;
const RESET_BY_US: usize = 1024;

/// Answers on a connection until its end.
pub(super) async fn speak<I>(
    client: &Client<'_>,
    io: I,
    traffic: Arc<Traffic>,
) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let options = &client.shared.options;
    let (requests, mut known) = watch::channel(Requests::default());
    let runs = Runs::new(client, requests, &traffic);
    let connection = http2::Builder::new(runs)
        .timer(Clock(Arc::clone(&traffic)))
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(MOST_HEAD)
        .header_table_size(HEADER_TABLE)
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(PIECE)
        .max_pending_accept_reset_streams(RESET_EARLY)
        .max_local_error_reset_streams(RESET_BY_US)
        // Who has vanished, or does not even answer a PING, is let go.
        .keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.write_deadline)
        .serve_connection(TokioIo::new(io), service(client));
    let mut connection = pin!(connection);
    tokio::select! {
        ended = spoken(connection.as_mut(), client, &traffic) => return ended,
        () = idle(known.clone(), options.head_deadline) => {}
        () = drained(client, &mut known) => {}
    }
    // GOAWAY: what is asked by now is answered, and what is open goes on to its end.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = spoken(connection, client, &traffic) => ended,
        // Nor does the client go.
        () = idle(known, options.head_deadline) => Ok(()),
    }
}

/// Polls a connection to its end.
async fn spoken<C>(
    mut connection: Pin<&mut C>,
    client: &Client<'_>,
    traffic: &Traffic,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let ended = poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        // While it waits it has written what it could.
        traffic.settles();
        polled
    });
    let ended = ended.await;
    if ended.as_ref().is_err_and(hyper::Error::is_timeout) {
        // A PING was not answered.
        too_slow(&client.cut_off);
    }
    ended
}

/// Returns once the connection is to end since the server stops. Whoever comes while it does gets
/// one answer.
async fn drained(client: &Client<'_>, requests: &mut watch::Receiver<Requests>) {
    client.shared.drain.cancelled().await;
    if client.draining && requests.wait_for(|requests| requests.asked > 0).await.is_err() {
        pending::<()>().await;
    }
}

/// Returns once nothing has been asked for so long, and nothing is open.
async fn idle(mut requests: watch::Receiver<Requests>, deadline: Duration) {
    loop {
        let rests = requests.wait_for(|requests| requests.open == 0).await;
        let Ok(asked) = rests.map(|requests| requests.asked) else { return pending().await };
        let more = requests.wait_for(|requests| requests.asked > asked);
        if timeout(deadline, more).await.is_err() {
            return;
        }
    }
}

/// The requests of a connection.
#[derive(Debug, Default)]
struct Requests {
    open: usize,
    asked: u64,
}

/// One of them, until it is answered.
struct Open(Arc<watch::Sender<Requests>>);

impl Open {
    fn new(requests: &Arc<watch::Sender<Requests>>) -> Self {
        requests.send_modify(|requests| {
            requests.open += 1;
            requests.asked += 1;
        });
        Self(Arc::clone(requests))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|requests| requests.open -= 1);
    }
}

/// A request and its answer.
#[derive(Debug)]
struct Exchange {
    flow: Arc<Flow>,
    cut_off: CutOff,
}

impl Exchange {
    fn new(cut_off: CutOff, traffic: Arc<Traffic>) -> Arc<Self> {
        Arc::new(Self { flow: Arc::new(Flow::new(traffic, ROUND)), cut_off })
    }
}

tokio::task_local! {
    /// That of the task.
    static EXCHANGE: Arc<Exchange>;
}

/// Runs each request in a task of its own, as long as its client takes the answer.
#[derive(Clone)]
struct Runs {
    requests: Arc<watch::Sender<Requests>>,
    tasks: TaskTracker,
    cut: CancellationToken,
    cut_off: CutOff,
    traffic: Arc<Traffic>,
    deadline: Duration,
}

impl Runs {
    fn new(client: &Client<'_>, requests: watch::Sender<Requests>, traffic: &Arc<Traffic>) -> Self {
        Self {
            requests: Arc::new(requests),
            tasks: client.shared.tasks.clone(),
            cut: client.shared.cut.clone(),
            cut_off: client.cut_off.clone(),
            traffic: Arc::clone(traffic),
            deadline: client.shared.options.write_deadline,
        }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Runs {
    fn execute(&self, answering: F) {
        let (open, deadline) = (Open::new(&self.requests), self.deadline);
        let exchange = Exchange::new(self.cut_off.of_one(), Arc::clone(&self.traffic));
        let run = async move {
            let _open = open;
            let mut answering = pin!(EXCHANGE.scope(Arc::clone(&exchange), answering));
            if !exchange.flow.keeps(answering.as_mut(), deadline).await {
                // Before it is dropped, so that the stream can say why it ends. Dropped in
                // mid-answer, hyper's future resets its stream.
                too_slow(&exchange.cut_off);
            }
        };
        let cut = self.cut.clone();
        self.tasks.spawn(async move { cut.run_until_cancelled(run).await });
    }
}

/// The router, told by extensions of each request what those of HTTP/1.1 are told.
fn service(
    client: &Client<'_>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Pieces>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Pieces>, Infallible>> + Send + 'static,
> + use<> {
    let routes = client.routes();
    service_fn(move |request: Request<Incoming>| {
        let routes = routes.clone();
        async move {
            // It runs in the exchange's task, always.
            let exchange = EXCHANGE.try_with(Arc::clone);
            let exchange =
                exchange.unwrap_or_else(|_| Exchange::new(CutOff::default(), Arc::default()));
            let mut request = request.map(Body::new);
            let authority = request.uri().authority().map(|host| host.as_str().to_owned());
            // What HTTP/1.1 has as a header, whoever asks for it.
            if let Some(Ok(host)) = authority.map(HeaderValue::try_from) {
                request.headers_mut().insert(header::HOST, host);
            }
            let cut_off = exchange.cut_off.clone();
            let answer = routes.answer(request, Some(Takeover::default()), cut_off).await?;
            Ok(answer.map(|body| Pieces::of(body, Arc::clone(&exchange.flow))))
        }
    })
}
