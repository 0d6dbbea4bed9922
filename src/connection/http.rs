//! One connection as long as hyper speaks HTTP on it.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, Response, Version},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tower_service::Service as _;

use super::{
    Connections,
    coding::Coding,
    direct::Direct,
    guard::Guard,
    socket::Socket,
    takeover::{Offered, Takeover},
    wire::Wire,
};
use crate::session::CutOff;

/// What a client may leave in the kernel's hands of what is written to it, in bytes.
const MOST_UNSENT: u32 = 256 << 10;

/// Answers on a connection until its end, or until a stream gets the socket to itself.
pub(super) async fn speak(
    shared: &Connections,
    socket: Socket,
    peer: SocketAddr,
) -> Option<Direct> {
    let spoken = match prepare(&socket, shared.options.write_deadline) {
        Ok(()) => http1(shared, socket, peer).await,
        Err(error) => Err(error.into()),
    };
    spoken.unwrap_or_else(|error| {
        super::ended(peer, &error);
        None
    })
}

type Spoken = Result<Option<Direct>, Box<dyn std::error::Error + Send + Sync>>;

fn prepare(socket: &Socket, deadline: Duration) -> io::Result<()> {
    // Each event goes out when it is written: Nagle's algorithm would hold it back.
    socket.set_nodelay(true)?;
    // What can't be delivered shall wait in the ring, once for all, not in each socket.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(&**socket).set_tcp_notsent_lowat(MOST_UNSENT)?;
    socket.give_up_after(Some(deadline))?;
    Ok(())
}

async fn http1(shared: &Connections, socket: Socket, peer: SocketAddr) -> Spoken {
    let (takeover, cut_off) = (Takeover::default(), CutOff::default());
    let guard = Guard::new(socket, shared.options.write_deadline, &takeover, &cut_off);
    let service = service(shared, peer, &takeover, &cut_off);
    // Who comes while streams end gets one answer.
    let mut draining = shared.drain.is_cancelled();
    let mut connection = http1::Builder::new()
        .keep_alive(!draining)
        // Who has said all that it will say may still listen.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(shared.options.head_deadline)
        .serve_connection(TokioIo::new(guard), service);
    let mut drained = Box::pin(shared.drain.cancelled());
    let offered = poll_fn(|cx| {
        if !draining && drained.as_mut().poll(cx).is_ready() {
            draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        let ended = Pin::new(&mut connection).poll(cx);
        match takeover.take() {
            Some(offered) => Poll::Ready(Ok(Some(offered))),
            None => ended.map_ok(|()| None),
        }
    });
    let Some(Offered { outgoing, gzip }) = offered.await? else { return Ok(None) };
    let socket = connection.into_parts().io.into_inner().into_socket();
    let wire = Wire::new(socket, shared.patience(), cut_off);
    Ok(Some(Direct { wire, peer, coding: Coding::new(gzip), outgoing }))
}

/// The router, told by extensions of each request who asks, whether the connection can be taken
/// over, and where it is said if it is cut off.
fn service(
    shared: &Connections,
    peer: SocketAddr,
    takeover: &Takeover,
    cut_off: &CutOff,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
> + use<> {
    let router = shared.router.clone();
    let (takeover, cut_off) = (takeover.clone(), cut_off.clone());
    service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(cut_off.clone());
        if request.version() == Version::HTTP_11 {
            request.extensions_mut().insert(takeover.clone());
        }
        router.clone().call(request)
    })
}
