//! A socket in hyper's hands: whoever takes nothing for too long is let go.
//!
//! hyper does not poll a body whose socket is stalled, so the deadline is here, where the
//! stalled write is.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{
    socket::Socket,
    takeover::Takeover,
    wire::{at_the_deadline, given_up},
};
use crate::session::CutOff;

/// What goes over a socket that many share.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// The last write waits for room.
    full: AtomicBool,
    /// Whoever had something to write when it was last their turn waits for room.
    behind: AtomicBool,
    /// When that was last so.
    behind_at: Mutex<Option<Instant>>,
    written: AtomicU64,
    /// An answer has no end but the connection's.
    until_close: AtomicBool,
}

impl Traffic {
    /// All has been written that there is, or that there is room for.
    pub(super) fn settles(&self) {
        let full = self.full.load(Relaxed);
        let was_behind = self.behind.swap(full, Relaxed);
        if full || was_behind {
            let now = Some(Instant::now());
            *self.behind_at.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }

    /// When there was last more to write than there was room for.
    pub(super) fn behind_at(&self) -> Option<Instant> {
        match self.is_behind() {
            true => Some(Instant::now()),
            false => *self.behind_at.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// There is more to write than there was room for.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.load(Relaxed)
    }

    /// What goes over it from here on is whole once the connection is closed in order.
    pub(super) fn lasts_until_close(&self) {
        self.until_close.store(true, Relaxed);
    }

    /// How many bytes were written.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }
}

pub(super) struct Guard {
    socket: Socket,
    /// What the client has said already, and is still to be read.
    said: Bytes,
    deadline: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    takeover: Takeover,
    cut_off: CutOff,
    traffic: Arc<Traffic>,
}

impl Guard {
    pub(super) fn new(
        socket: Socket,
        deadline: Duration,
        takeover: &Takeover,
        cut_off: &CutOff,
    ) -> Self {
        let (takeover, cut_off) = (takeover.clone(), cut_off.clone());
        let (said, traffic) = Default::default();
        Self { socket, said, deadline, waiting: None, takeover, cut_off, traffic }
    }

    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// What was read of it is read again.
    pub(super) fn unread(&mut self, said: Bytes) {
        self.said = said;
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
        self.traffic.full.store(written.is_pending(), Relaxed);
        self.socket.is_half(self.traffic.until_close.load(Relaxed));
        let written = match written {
            Poll::Ready(written) => written.map_err(|error| given_up(error, &self.cut_off)),
            Poll::Pending => {
                let (deadline, socket) = (self.deadline, &self.socket);
                let waiting = self.waiting.get_or_insert_with(|| {
                    // A socket that can't be told so is gone, as its next use will show.
                    let _ = socket.give_up_after(None);
                    Box::pin(sleep(deadline))
                });
                ready!(waiting.as_mut().poll(cx));
                at_the_deadline(&self.socket, bytes, &self.cut_off)
            }
        };
        self.waiting = None;
        self.traffic.written.fetch_add(*written.as_ref().unwrap_or(&0) as u64, Relaxed);
        Poll::Ready(written)
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.said.has_remaining() {
            let room = self.said.len().min(buffer.remaining());
            buffer.put_slice(&self.said.split_to(room));
            if self.said.is_empty() {
                // What was read into is given back.
                self.said = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
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
        // Nothing waits for the client to take it: from here on the kernel looks after it again.
        let _ = self.socket.give_up_after(Some(self.deadline));
        self.takeover.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self.socket).poll_shutdown(cx))?;
        self.socket.is_half(false);
        Poll::Ready(Ok(()))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use futures_util::FutureExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn the_kernel_looks_after_who_has_taken_all_again() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let socket = Socket::new(TcpStream::connect(listener.local_addr()?).await?, None);
        let (mut client, _) = listener.accept().await?;
        let deadline = Duration::from_secs(7);
        socket.give_up_after(Some(deadline))?;
        let mut guard = Guard::new(socket, deadline, &Takeover::default(), &CutOff::default());
        let known = |guard: &Guard| socket2::SockRef::from(&*guard.socket).tcp_user_timeout();
        let (bytes, mut written) = (vec![b'x'; 1 << 20], 0);
        while let Some(count) = guard.write(&bytes).now_or_never() {
            written += count?;
        }
        assert_eq!(known(&guard)?.unwrap_or_default(), Duration::ZERO, "a write waits");
        client.read_exact(&mut vec![0; written]).await?;
        guard.write_all(&bytes[..1]).await?;
        guard.flush().await?;
        assert_eq!(known(&guard)?, Some(deadline));
        Ok(())
    }
}
