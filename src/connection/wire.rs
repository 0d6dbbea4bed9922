//! The socket of one event stream, once the head of its answer is sent.

use std::{
    io::{self, IoSlice},
    time::Duration,
};

use bytes::{Buf, Bytes};
use metrics::counter;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    chunked::{LAST, size_line},
    socket::Socket,
};

/// A socket that carries a chunked body.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    /// How long a client may take nothing of what is there for it.
    deadline: Duration,
}

impl Wire {
    pub(super) fn new(socket: Socket, deadline: Duration) -> Self {
        Self { socket, deadline }
    }

    /// Writes what the socket takes now; how much that was.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
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
                Err(error) => return Err(error),
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
            self.room().await?;
            self.now(&mut bytes)?;
        }
        Ok(())
    }

    async fn room(&self) -> io::Result<()> {
        match timeout(self.deadline, self.socket.writable()).await {
            Ok(room) => room,
            Err(_) => Err(too_slow()),
        }
    }

    /// Ends the body, and the connection.
    pub(super) async fn end(mut self) {
        // Whoever does not hear it has gone.
        if self.all(LAST).await.is_ok() {
            let _ = self.socket.shutdown().await;
        }
    }

    /// Whether the client has gone, as far as is known. What it says is not listened to.
    pub(super) fn has_hung_up(&self) -> bool {
        let mut said = [0; 512];
        match self.socket.try_read(&mut said) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Until the client has gone.
    pub(super) async fn hung_up(&self) {
        while self.socket.readable().await.is_ok() && !self.has_hung_up() {
            tokio::task::yield_now().await;
        }
    }
}

/// A client has taken nothing for longer than the deadline.
pub(super) fn too_slow() -> io::Error {
    counter!("fhirtail_slow_clients_dropped_total").increment(1);
    io::Error::new(io::ErrorKind::TimedOut, "the client took nothing for too long")
}
