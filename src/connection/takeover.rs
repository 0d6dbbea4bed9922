//! How an event stream gets the socket to itself, once hyper has written the head of its answer.
//!
//! The handler answers with a body that offers the stream and says nothing more. hyper flushes
//! the head; the guard around the socket sees that flush; then the connection is taken apart.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use http_body::Frame;

use crate::session::Outgoing;

/// Where a handler leaves a stream for its connection. Among the extensions of each request
/// whose connection can be taken over.
#[derive(Clone, Default)]
pub struct Takeover {
    state: Arc<Mutex<State>>,
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
    /// Who asks has `Accept-Encoding: gzip`.
    pub fn accept_gzip(&mut self) {
        self.gzip = true;
    }

    /// The answer whose stream goes on without hyper.
    pub fn answer(self, mut head: HeaderMap, outgoing: Outgoing) -> Response {
        if self.gzip {
            head.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        head.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        let stream = Offered { outgoing: Box::new(outgoing), gzip: self.gzip };
        (head, Body::new(Offer { takeover: self, stream: Some(stream) })).into_response()
    }

    /// Everything that was written before is flushed.
    pub(super) fn flushed(&self) {
        let mut state = self.lock();
        *state = match std::mem::take(&mut *state) {
            State::Offered(stream) => State::Flushed(stream),
            other => other,
        };
    }

    /// The stream to go on with.
    pub(super) fn take(&self) -> Option<Offered> {
        let mut state = self.lock();
        match std::mem::take(&mut *state) {
            State::Flushed(stream) => Some(stream),
            other => {
                *state = other;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Offer {
    takeover: Takeover,
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
            *self.takeover.lock() = State::Offered(stream);
        }
        Poll::Pending
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // hyper has dropped the answer before it was out: there is nobody to stream to.
        let mut state = self.takeover.lock();
        if matches!(*state, State::Offered(_)) {
            *state = State::Idle;
        }
    }
}
