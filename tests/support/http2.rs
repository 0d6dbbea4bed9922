//! A client of HTTP/2 whose streams and windows are in the test's hands, in the clear or over TLS.

use std::net::SocketAddr;

use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::{Stream, stream};
use h2::{
    Reason, RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use super::{
    certificate::Issued,
    stream::{EventStream, PATIENCE},
};

/// One connection. Clones share it.
#[derive(Clone)]
pub struct Http2 {
    requests: SendRequest<Bytes>,
    base: String,
}

/// What becomes of a connection.
pub type Ended = JoinHandle<Result<(), h2::Error>>;

impl Http2 {
    /// By prior knowledge: HTTP/2 from the first byte on, in the clear.
    pub async fn connect(address: SocketAddr) -> (Self, Ended) {
        Self::with(&Builder::new(), address).await
    }

    /// The same, where somebody may answer; `None`: nobody does.
    pub async fn reach(address: SocketAddr) -> Option<Self> {
        let socket = TcpStream::connect(address).await.ok()?;
        let (requests, connection) = Builder::new().handshake(socket).await.ok()?;
        tokio::spawn(connection);
        Some(Self { requests, base: format!("http://{address}") })
    }

    /// The same, with these windows.
    pub async fn with(builder: &Builder, address: SocketAddr) -> (Self, Ended) {
        let socket = TcpStream::connect(address).await.expect("a connection");
        Self::over(builder, socket, format!("http://{address}")).await
    }

    /// Over TLS, which has to agree on it.
    pub async fn encrypted(address: SocketAddr, issued: &Issued) -> (Self, Ended) {
        let stream = issued.connect(address, &["h2", "http/1.1"]).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(&Builder::new(), stream, format!("https://{address}")).await
    }

    async fn over<I>(builder: &Builder, io: I, base: String) -> (Self, Ended)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (requests, connection) = builder.handshake(io).await.expect("HTTP/2");
        (Self { requests, base }, tokio::spawn(connection))
    }

    /// How many streams the server lets it have, once it has said so.
    pub fn most_streams(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Asks; the body, if there is one, is for the test to send.
    pub async fn ask(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let ready = timeout(PATIENCE, self.requests.clone().ready());
        ready.await.expect("a stream more, in time")?.send_request(request, ends)
    }

    /// A request as [`ask`](Self::ask) takes it.
    pub fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    /// The answer to a GET, of whose body nothing is taken so far.
    pub async fn get(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<RecvStream>, h2::Error> {
        let (answer, _) = self.ask(self.request(Method::GET, path, headers), true).await?;
        timeout(PATIENCE, answer).await.expect("an answer in time")
    }

    /// An answer whose status is 200, and its whole body.
    pub async fn text(&self, path: &str) -> (HeaderMap, String) {
        let (head, body) = self.get(path, &[]).await.expect("an answer").into_parts();
        assert_eq!(head.status, 200, "{path}");
        let (body, reset) = take_all(body).await;
        assert_eq!(reset, None, "{path}");
        (head.headers, String::from_utf8(body).expect("text"))
    }

    /// Opens an event stream that must be granted, and whose events are taken as they are read.
    pub async fn open(&self, path: &str, headers: &[(&str, &str)]) -> EventStream {
        let (status, stream) = self.stream(path, headers).await.expect("an answer");
        assert_eq!(status, 200, "{path}");
        stream
    }

    /// The same, granted or not.
    pub async fn stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(StatusCode, EventStream), h2::Error> {
        let headers = [&[("accept", "text/event-stream")], headers].concat();
        let (head, body) = self.get(path, &headers).await?.into_parts();
        Ok((head.status, EventStream::new(head.headers, taken(body))))
    }
}

/// A body whose window is opened again as it is read.
fn taken(body: RecvStream) -> impl Stream<Item = Result<Bytes, h2::Error>> + Send {
    stream::unfold(body, |mut body| async {
        let part = body.data().await?;
        let part = part.and_then(|part| {
            body.flow_control().release_capacity(part.len())?;
            Ok(part)
        });
        Some((part, body))
    })
}

/// All that comes of a body, taken as it comes; why its stream was reset, if it was.
pub async fn take_all(body: RecvStream) -> (Vec<u8>, Option<Reason>) {
    read(body, true).await
}

/// The same, without taking any: its window is not opened again.
pub async fn take_nothing(body: RecvStream) -> (Vec<u8>, Option<Reason>) {
    read(body, false).await
}

async fn read(mut body: RecvStream, takes: bool) -> (Vec<u8>, Option<Reason>) {
    let mut read = Vec::new();
    loop {
        match timeout(PATIENCE, body.data()).await.expect("it goes on, or ends") {
            Some(Ok(part)) => {
                read.extend_from_slice(&part);
                if takes {
                    body.flow_control().release_capacity(part.len()).expect("a window");
                }
            }
            Some(Err(error)) => return (read, error.reason()),
            None => return (read, None),
        }
    }
}
