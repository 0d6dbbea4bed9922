//! One connection as long as hyper speaks HTTP on it.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    task::Poll,
};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, Response, Version},
};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, pin, time::timeout};
use tower_service::Service as _;

use super::{
    Connections, direct::Direct, guard::Guard, socket::Socket, takeover::Takeover, wire::Wire,
};

/// What a client may leave in the kernel's hands of what is written to it, in bytes.
const MOST_UNSENT: u32 = 256 << 10;

/// With how many letters HTTP/2 begins that no HTTP/1 method begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI ";

/// Answers on a connection until its end, or until a stream gets the socket to itself.
pub(super) async fn speak(
    shared: &Connections,
    socket: Socket,
    peer: SocketAddr,
) -> Option<Direct> {
    let spoken = match prepare(&socket) {
        Ok(()) => match timeout(shared.options.head_deadline, is_http2(&socket)).await {
            // Both are large, and not yet needed while a connection waits for its first bytes.
            Ok(Ok(true)) => Box::pin(http2(shared, socket, peer)).await,
            Ok(Ok(false)) => Box::pin(http1(shared, socket, peer)).await,
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err("it has asked for nothing".into()),
        },
        Err(error) => Err(error.into()),
    };
    spoken.unwrap_or_else(|error| {
        super::ended(peer, &error);
        None
    })
}

type Spoken = Result<Option<Direct>, Box<dyn std::error::Error + Send + Sync>>;

fn prepare(socket: &TcpStream) -> io::Result<()> {
    // Each event goes out when it is written: Nagle's algorithm would hold it back.
    socket.set_nodelay(true)?;
    // What can't be delivered shall wait in the ring, once for all, not in each socket.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(socket).set_tcp_notsent_lowat(MOST_UNSENT)?;
    Ok(())
}

/// Whether the first bytes are HTTP/2's. Waits for them.
async fn is_http2(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let count = socket.peek(&mut first).await?;
        let seen = &first[..count];
        if count == 0 || seen == PREFACE || !PREFACE.starts_with(seen) {
            return Ok(seen == PREFACE);
        }
        // A few letters of a preface: more must come, and peek would not wait for them.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn http2(shared: &Connections, socket: Socket, peer: SocketAddr) -> Spoken {
    let guard = Guard::new(socket, shared.options.write_deadline, Takeover::default());
    let service = service(shared, peer, None);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(guard), service);
    pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended?,
        () = shared.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await?;
        }
    }
    Ok(None)
}

async fn http1(shared: &Connections, socket: Socket, peer: SocketAddr) -> Spoken {
    let takeover = Takeover::default();
    let guard = Guard::new(socket, shared.options.write_deadline, takeover.clone());
    let service = service(shared, peer, Some(takeover.clone()));
    // Who comes while streams end gets one answer.
    let mut draining = shared.drain.is_cancelled();
    let mut connection = http1::Builder::new()
        .keep_alive(!draining)
        .timer(TokioTimer::new())
        .header_read_timeout(shared.options.head_deadline)
        .serve_connection(TokioIo::new(guard), service);
    let mut drained = Box::pin(shared.drain.cancelled());
    let outgoing = poll_fn(|cx| {
        if !draining && drained.as_mut().poll(cx).is_ready() {
            draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        let ended = Pin::new(&mut connection).poll(cx);
        match takeover.take() {
            Some(outgoing) => Poll::Ready(Ok(Some(outgoing))),
            None => ended.map_ok(|()| None),
        }
    });
    let Some(outgoing) = outgoing.await? else { return Ok(None) };
    let socket = connection.into_parts().io.into_inner().into_socket();
    let wire = Wire::new(socket, shared.options.write_deadline);
    Ok(Some(Direct { wire, peer, outgoing }))
}

/// The router, told by extensions of each request who asks and whether the connection can be
/// taken over.
fn service(
    shared: &Connections,
    peer: SocketAddr,
    takeover: Option<Takeover>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
> + use<> {
    let router = shared.router.clone();
    service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let takeover = takeover.clone().filter(|_| request.version() == Version::HTTP_11);
        if let Some(takeover) = takeover {
            request.extensions_mut().insert(takeover);
        }
        router.clone().call(request)
    })
}
