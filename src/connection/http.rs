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
use tokio::net::TcpStream;
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

/// The kernel counts milliseconds in a C int.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

fn prepare(socket: &TcpStream, deadline: Duration) -> io::Result<()> {
    // Each event goes out when it is written: Nagle's algorithm would hold it back.
    socket.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let socket = socket2::SockRef::from(socket);
        // What can't be delivered shall wait in the ring, once for all, not in each socket.
        socket.set_tcp_notsent_lowat(MOST_UNSENT)?;
        // Who has vanished without a word still has room for a little: the kernel gives up on
        // what nobody acknowledges by the same deadline, not after a quarter of an hour.
        socket.set_tcp_user_timeout(Some(deadline.min(LONGEST)))?;
    }
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_knows_the_deadline() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let socket = TcpStream::connect(listener.local_addr()?).await?;
        for (deadline, known) in [(7, 7_000), (60 * 86_400, i32::MAX as u64)] {
            prepare(&socket, Duration::from_secs(deadline))?;
            let known = Some(Duration::from_millis(known));
            assert_eq!(socket2::SockRef::from(&socket).tcp_user_timeout()?, known);
        }
        Ok(())
    }
}
