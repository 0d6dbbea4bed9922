//! The socket of one event stream, once the head of its answer is sent.

use std::{
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use metrics::counter;
use tokio::{io::AsyncWriteExt, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    chunked::{LAST, size_line},
    socket::Socket,
};
use crate::session::CutOff;

/// For how long a client is waited for.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// How long it may take nothing of what is there for it.
    pub(super) deadline: Duration,
    /// Once this is cancelled, `drain_over` is what it has left.
    pub(super) drain: CancellationToken,
    pub(super) drain_over: Duration,
}

/// A socket that carries a chunked body.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    patience: Arc<Patience>,
    cut_off: CutOff,
    /// How many bytes the client has sent since it asked.
    heard: AtomicUsize,
}

/// How many bytes a client may send that nobody asked it for.
const MOST_HEARD: usize = 64 << 10;

impl Wire {
    pub(super) fn new(socket: Socket, patience: Arc<Patience>, cut_off: CutOff) -> Self {
        Self { socket, patience, cut_off, heard: AtomicUsize::new(0) }
    }

    /// Writes what the socket takes now; how much that was.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(given_up(error, &self.cut_off)),
            written => written,
        }
    }

    /// Nothing waits for the client to take it.
    pub(super) fn rests(&self) {
        self.watched_for(Some(self.patience.deadline));
    }

    fn watched_for(&self, deadline: Option<Duration>) {
        // A socket that can't be told so is gone, as its next use will show.
        let _ = self.socket.give_up_after(deadline);
    }

    /// Writes as much of a part of a body, as one chunk, as the socket takes now; gives the rest.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn chunk_now(&self, body: Bytes) -> io::Result<impl Buf + use<>> {
        // An empty chunk would end the body; there is none.
        let size = Bytes::from(size_line(body.len()));
        let mut bytes = size.chain(body).chain(&b"\r\n"[..]);
        self.now(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes until all is written or the socket takes no more.
    fn now(&self, bytes: &mut impl Buf) -> io::Result<()> {
        while bytes.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = bytes.chunks_vectored(&mut slices);
            match self.socket.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(given_up(error, &self.cut_off)),
            }
        }
        Ok(())
    }

    /// Writes what already is a chunk, or the rest of one.
    ///
    /// # Errors
    /// The connection is gone, or its client has taken nothing for too long.
    pub(super) async fn all(&self, mut bytes: impl Buf) -> io::Result<()> {
        self.now(&mut bytes)?;
        while bytes.has_remaining() {
            if !self.room().await? {
                let written = at_the_deadline(&self.socket, bytes.chunk(), &self.cut_off)?;
                bytes.advance(written);
            }
            self.now(&mut bytes)?;
        }
        Ok(())
    }

    /// Waits until there is room; `false`: by the deadline nobody said so.
    async fn room(&self) -> io::Result<bool> {
        let Patience { deadline, drain, drain_over } = &*self.patience;
        self.watched_for(None);
        tokio::select! {
            room = self.socket.writable() => match room {
                Ok(()) => Ok(true),
                Err(error) => Err(given_up(error, &self.cut_off)),
            },
            () = sleep(*deadline) => Ok(false),
            () = async {
                drain.cancelled().await;
                sleep(*drain_over).await;
            } => {
                const WHY: &str = "the server is stopping, and the client takes nothing";
                self.cut_off.say(WHY);
                Err(io::Error::new(io::ErrorKind::TimedOut, WHY))
            }
        }
    }

    /// Ends the body with a last chunk, and the connection.
    pub(super) async fn end(mut self, last: Bytes) {
        // Whoever does not hear it has gone.
        if self.all(last.chain(LAST)).await.is_ok() {
            let _ = self.socket.shutdown().await;
        }
    }

    /// Whether the client has gone, as far as is known. What it says is not listened to; one that
    /// goes on and on is let go.
    pub(super) fn has_hung_up(&self) -> bool {
        let mut said = [0; 4096];
        loop {
            match self.socket.try_read(&mut said) {
                Ok(0) => return true,
                Ok(count) if self.heard.fetch_add(count, Relaxed) + count > MOST_HEARD => {
                    self.cut_off.say("the client sent what nobody asked it for");
                    return true;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    given_up(error, &self.cut_off);
                    return true;
                }
            }
        }
    }

    /// Until the client has gone.
    pub(super) async fn hung_up(&self) {
        while self.socket.readable().await.is_ok() && !self.has_hung_up() {}
    }
}

/// What a socket takes that has not become writable by the deadline: something, if its client has
/// taken something meanwhile.
pub(super) fn at_the_deadline(
    socket: &Socket,
    bytes: &[u8],
    cut_off: &CutOff,
) -> io::Result<usize> {
    match socket.squeeze_in(bytes) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(too_slow(cut_off)),
        written => written.map_err(|error| given_up(error, cut_off)),
    }
}

/// A client has taken nothing for longer than the deadline.
pub(super) fn too_slow(cut_off: &CutOff) -> io::Error {
    const WHY: &str = "the client took nothing for too long";
    counter!("fhirtail_slow_clients_dropped_total").increment(1);
    cut_off.say(WHY);
    io::Error::new(io::ErrorKind::TimedOut, WHY)
}

/// The kernel, too, gives up on who takes nothing: on who does not even acknowledge.
pub(super) fn given_up(error: io::Error, cut_off: &CutOff) -> io::Error {
    match error.kind() {
        io::ErrorKind::TimedOut => too_slow(cut_off),
        _ => error,
    }
}
