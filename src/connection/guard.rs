//! A socket in hyper's hands: whoever takes nothing for too long is let go.
//!
//! hyper does not poll a body whose socket is stalled, so the deadline is here, where the
//! stalled write is.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    socket::Socket,
    takeover::Takeover,
    wire::{at_the_deadline, given_up},
};
use crate::session::CutOff;

pub(super) struct Guard {
    socket: Socket,
    deadline: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    takeover: Takeover,
    cut_off: CutOff,
}

impl Guard {
    pub(super) fn new(
        socket: Socket,
        deadline: Duration,
        takeover: &Takeover,
        cut_off: &CutOff,
    ) -> Self {
        let (takeover, cut_off) = (takeover.clone(), cut_off.clone());
        Self { socket, deadline, waiting: None, takeover, cut_off }
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    fn in_time(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            return written.map_err(|error| given_up(error, &self.cut_off));
        }
        let (deadline, socket) = (self.deadline, &self.socket);
        let waiting = self.waiting.get_or_insert_with(|| {
            // A socket that can't be told so is gone, as its next use will show.
            let _ = socket.give_up_after(None);
            Box::pin(sleep(deadline))
        });
        ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(at_the_deadline(&self.socket, bytes, &self.cut_off))
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.socket).poll_write(cx, bytes);
        self.in_time(cx, written, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.socket).poll_write_vectored(cx, slices);
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.in_time(cx, written, first.map_or(&[], |slice| slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper flushes once it has written all that it holds.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self.socket).poll_flush(cx))?;
        self.takeover.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_shutdown(cx)
    }
}
