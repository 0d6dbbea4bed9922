//! One connection as long as hyper speaks HTTP on it.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::ConnectInfo,
    http::{Request, Response, Version},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tower_service::Service as _;

use super::{
    Connections,
    coding::Coding,
    direct::Direct,
    greeting::{Tongue, tongue},
    guard::{Guard, Traffic},
    http2,
    socket::Socket,
    takeover::{Offered, Takeover},
    tls,
    wire::Wire,
};
use crate::session::CutOff;

/// What a client may leave in the kernel's hands of what is written to it, in bytes.
const MOST_UNSENT: u32 = 256 << 10;

/// Who is at the other end of a connection.
pub(super) struct Client<'c> {
    pub(super) shared: &'c Connections,
    pub(super) peer: SocketAddr,
    /// Where it is said if the connection is cut off.
    pub(super) cut_off: CutOff,
    /// It came while the server stops: it gets one answer.
    pub(super) draining: bool,
}

pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Answers on a connection until its end, or until a stream gets the socket to itself.
pub(super) async fn speak(
    shared: &Connections,
    socket: Socket,
    peer: SocketAddr,
) -> Option<Direct> {
    let (cut_off, draining) = (CutOff::default(), shared.drain.is_cancelled());
    let client = Client { shared, peer, cut_off, draining };
    let spoken = match prepare(&socket, shared.options.write_deadline) {
        Ok(()) => match shared.tls() {
            None => client.in_the_clear(socket).await,
            Some(config) => client.encrypted(socket, config).await.map(|()| None),
        },
        Err(error) => Err(error.into()),
    };
    spoken.unwrap_or_else(|error| {
        super::ended(peer, &error);
        None
    })
}

fn prepare(socket: &Socket, deadline: Duration) -> io::Result<()> {
    // Each event goes out when it is written: Nagle's algorithm would hold it back.
    socket.set_nodelay(true)?;
    // What can't be delivered shall wait in the ring, once for all, not in each socket.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(&**socket).set_tcp_notsent_lowat(MOST_UNSENT)?;
    socket.give_up_after(Some(deadline))?;
    Ok(())
}

impl Client<'_> {
    async fn in_the_clear(&self, socket: Socket) -> Result<Option<Direct>, Error> {
        let takeover = Takeover::of_socket();
        let mut guard = self.guard(socket, &takeover);
        let traffic = guard.traffic();
        match self.begins(tongue(&mut guard)).await? {
            Tongue::Http1 => {
                let Some((stream, guard)) = self.http1(guard, takeover, traffic).await? else {
                    return Ok(None);
                };
                let Offered { outgoing, gzip } = stream;
                let (socket, cut_off) = (guard.into_socket(), self.cut_off.clone());
                let wire = Wire::new(socket, self.shared.patience(), cut_off);
                let (peer, coding) = (self.peer, Coding::new(gzip));
                Ok(Some(Direct { wire, peer, coding, outgoing }))
            }
            Tongue::Http2 => {
                http2::speak(self, guard, traffic).await?;
                Ok(None)
            }
        }
    }

    /// No stream gets this socket: what goes over it nobody may write but TLS.
    async fn encrypted(&self, socket: Socket, config: Arc<ServerConfig>) -> Result<(), Error> {
        let takeover = Takeover::default();
        let guard = self.guard(socket, &takeover);
        let traffic = guard.traffic();
        match self.begins(tls::accept(guard, config)).await? {
            None => Ok(()),
            Some(stream) if tls::speaks_http2(&stream) => {
                Ok(http2::speak(self, stream, traffic).await?)
            }
            Some(stream) => self.http1(stream, takeover, traffic).await.map(drop),
        }
    }

    fn guard(&self, socket: Socket, takeover: &Takeover) -> Guard {
        Guard::new(socket, self.shared.options.write_deadline, takeover, &self.cut_off)
    }

    /// What comes before the first request. It has as long as a request's head; and who has said
    /// nothing so far when the server stops is let go.
    async fn begins<T>(&self, begins: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let begins = timeout(self.shared.options.head_deadline, begins);
        tokio::select! {
            // What has come by then is heard.
            biased;
            begun = begins => begun.unwrap_or_else(|late| Err(late.into())),
            () = self.shared.drain.cancelled(), if !self.draining => {
                Err(io::Error::other("the server is stopping"))
            }
        }
    }

    /// Speaks HTTP/1. A stream may take its IO away.
    async fn http1<I>(
        &self,
        io: I,
        takeover: Takeover,
        traffic: Arc<Traffic>,
    ) -> Result<Option<(Offered, I)>, Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
    {
        // Who comes while streams end gets one answer.
        let mut draining = self.draining;
        let mut connection = http1::Builder::new()
            .keep_alive(!draining)
            // Who has said all that it will say may still listen.
            .half_close(true)
            .timer(TokioTimer::new())
            .header_read_timeout(self.shared.options.head_deadline)
            .serve_connection(TokioIo::new(io), self.service(&takeover, traffic));
        let mut drained = Box::pin(self.shared.drain.cancelled());
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
        let offered = offered.await?;
        Ok(offered.map(|offered| (offered, connection.into_parts().io.into_inner())))
    }

    fn service(
        &self,
        takeover: &Takeover,
        traffic: Arc<Traffic>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    > + use<> {
        let (routes, takeover) = (self.routes(), takeover.clone());
        let cut_off = self.cut_off.clone();
        service_fn(move |request: Request<Incoming>| {
            // HTTP/1.0 knows no chunks.
            let has_chunks = request.version() == Version::HTTP_11;
            let (takeover, traffic) = (has_chunks.then(|| takeover.clone()), Arc::clone(&traffic));
            let answer = routes.answer(request.map(Body::new), takeover, cut_off.clone());
            async move {
                let answer = answer.await?;
                if !has_chunks && answer.body().size_hint().exact().is_none() {
                    traffic.lasts_until_close();
                }
                Ok(answer)
            }
        })
    }

    /// The router, as this client's connection asks it.
    pub(super) fn routes(&self) -> Routes {
        Routes { router: self.shared.router.clone(), peer: self.peer }
    }
}

/// The router, and whose requests it answers.
#[derive(Clone)]
pub(super) struct Routes {
    router: Router,
    peer: SocketAddr,
}

impl Routes {
    /// The router is told by extensions of each request who asks, how an event stream is carried,
    /// and where it is said if it is cut off.
    pub(super) fn answer(
        &self,
        mut request: Request<Body>,
        takeover: Option<Takeover>,
        cut_off: CutOff,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(self.peer));
        extensions.insert(cut_off);
        if let Some(takeover) = takeover {
            extensions.insert(takeover);
        }
        self.router.clone().call(request)
    }
}
