//! How an event stream gets the socket to itself, once hyper has written the head of its answer.
//!
//! The handler answers with a body that offers the stream and says nothing more. hyper flushes
//! the head; the guard around the socket sees that flush; then the connection is taken apart.
//!
//! Where the socket carries others' streams too (HTTP/2), or what nobody but TLS may write, the
//! stream stays a body in hyper's hands, written in the same way.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use async_stream::try_stream;
use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_core::Stream;
use futures_util::StreamExt;
use http_body::Frame;
use tokio::pin;

use super::coding::Coding;
use crate::session::{Outgoing, Piece};

/// Where a handler leaves a stream for its connection. Among the extensions of each request that
/// is not of HTTP/1.0, which knows no chunks.
#[derive(Clone, Default)]
pub struct Takeover {
    /// `None`: it stays in hyper's hands.
    socket: Option<Arc<Mutex<State>>>,
    /// The stream is to be encoded.
    gzip: bool,
}

/// A stream that goes on without hyper.
pub(super) struct Offered {
    pub(super) outgoing: Box<Outgoing>,
    pub(super) gzip: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// A stream waits until the head of its answer is flushed.
    Offered(Offered),
    /// Nothing of the answer is left in hyper's hands.
    Flushed(Offered),
}

impl Takeover {
    /// Of a connection whose socket a stream may have.
    pub(super) fn of_socket() -> Self {
        Self { socket: Some(Arc::default()), gzip: false }
    }

    /// Who asks has `Accept-Encoding: gzip`.
    pub fn accept_gzip(&mut self) {
        self.gzip = true;
    }

    /// The answer whose stream goes on without hyper, where it can.
    pub fn answer(self, mut head: HeaderMap, outgoing: Outgoing) -> Response {
        if self.gzip {
            head.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        head.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        let Some(socket) = self.socket else {
            let body = coded(outgoing, Coding::new(self.gzip));
            return (head, Body::from_stream(body)).into_response();
        };
        // It ends with the connection, and no other request goes over it (RFC 9112 §9.6).
        head.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let stream = Offered { outgoing: Box::new(outgoing), gzip: self.gzip };
        (head, Body::new(Offer { socket, stream: Some(stream) })).into_response()
    }

    /// Everything that was written before is flushed.
    pub(super) fn flushed(&self) {
        let Some(socket) = &self.socket else { return };
        let mut state = lock(socket);
        *state = match std::mem::take(&mut *state) {
            State::Offered(stream) => State::Flushed(stream),
            other => other,
        };
    }

    /// The stream to go on with.
    pub(super) fn take(&self) -> Option<Offered> {
        let mut state = lock(self.socket.as_ref()?);
        match std::mem::take(&mut *state) {
            State::Flushed(stream) => Some(stream),
            other => {
                *state = other;
                None
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream as a body that hyper writes.
fn coded(outgoing: Outgoing, mut coding: Coding) -> impl Stream<Item = io::Result<Bytes>> {
    try_stream! {
        let begin = coding.begin();
        if !begin.is_empty() {
            yield begin;
        }
        let pieces = Box::new(outgoing).pieces(false);
        pin!(pieces);
        while let Some(piece) = pieces.next().await {
            if let Piece::Chunk(chunk) = piece? {
                yield coding.encode(chunk)?;
            }
        }
        let end = coding.end();
        if !end.is_empty() {
            yield end;
        }
    }
}

struct Offer {
    socket: Arc<Mutex<State>>,
    stream: Option<Offered>,
}

impl HttpBody for Offer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Nobody wakes this: whoever polls it takes the connection apart after the next flush.
        if let Some(stream) = self.stream.take() {
            *lock(&self.socket) = State::Offered(stream);
        }
        Poll::Pending
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // hyper has dropped the answer before it was out: there is nobody to stream to.
        let mut state = lock(&self.socket);
        if matches!(*state, State::Offered(_)) {
            *state = State::Idle;
        }
    }
}
