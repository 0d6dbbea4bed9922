//! How an event stream gets the socket to itself, once hyper has written the head of its answer.
//!
//! The handler answers with a body that offers the stream and says nothing more. hyper flushes
//! the head; the guard around the socket sees that flush; then the connection is taken apart.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::Frame;

use crate::session::Outgoing;

/// Where a handler leaves a stream for its connection. Among the extensions of each request
/// whose connection can be taken over.
#[derive(Clone, Default)]
pub struct Takeover(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// A stream waits until the head of its answer is flushed.
    Offered(Box<Outgoing>),
    /// Nothing of the answer is left in hyper's hands.
    Flushed(Box<Outgoing>),
}

impl Takeover {
    /// The body of an answer whose stream goes on without hyper.
    pub fn body(self, outgoing: Outgoing) -> Body {
        Body::new(Offer { takeover: self, outgoing: Some(Box::new(outgoing)) })
    }

    /// Everything that was written before is flushed.
    pub(super) fn flushed(&self) {
        let mut state = self.lock();
        *state = match std::mem::take(&mut *state) {
            State::Offered(outgoing) => State::Flushed(outgoing),
            other => other,
        };
    }

    /// The stream to go on with.
    pub(super) fn take(&self) -> Option<Box<Outgoing>> {
        let mut state = self.lock();
        match std::mem::take(&mut *state) {
            State::Flushed(outgoing) => Some(outgoing),
            other => {
                *state = other;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Offer {
    takeover: Takeover,
    outgoing: Option<Box<Outgoing>>,
}

impl HttpBody for Offer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // Nobody wakes this: whoever polls it takes the connection apart after the next flush.
        if let Some(outgoing) = self.outgoing.take() {
            *self.takeover.lock() = State::Offered(outgoing);
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
