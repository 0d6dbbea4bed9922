//! A client's socket, counted while it is open.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use metrics::gauge;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};

use crate::telemetry::Counted;

/// A socket, whoever has it in hand.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// The kernel has a deadline for it.
    watched: AtomicBool,
    /// What it carries ends where it ends, and is not whole.
    half: bool,
    _open: Counted,
    _room: Option<OwnedSemaphorePermit>,
}

impl Socket {
    /// A socket that was let in, and keeps its place until it is closed.
    pub(super) fn new(stream: TcpStream, room: Option<OwnedSemaphorePermit>) -> Self {
        let (watched, open) = (AtomicBool::new(false), gauge!("fhirtail_connections"));
        Self { stream, watched, half: false, _open: Counted::new(open), _room: room }
    }

    /// Whether what it carries would look whole if it were closed now, and is not.
    pub(super) fn is_half(&mut self, half: bool) {
        self.half = half;
    }

    /// Writes what the kernel has room for, be it little: it tells that a socket is writable only
    /// once a good part of what waited there has been taken.
    pub(super) fn squeeze_in(&self, bytes: &[u8]) -> io::Result<usize> {
        socket2::SockRef::from(&self.stream).send(bytes)
    }

    /// Has the kernel give up on who acknowledges nothing for so long: who has vanished without a
    /// word still has room for a little. By itself it does so after a quarter of an hour.
    ///
    /// It also gives up on who takes what there is, but slowly, and so has no room for a whole
    /// segment in all that time: `None` where a write waits, and has a deadline of its own. All
    /// deadlines of one socket are the same: it is told only whether there is one, and asked again
    /// at each stall and each rest costs nothing.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn give_up_after(&self, deadline: Option<Duration>) -> io::Result<()> {
        /// The kernel counts milliseconds in a C int.
        const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);
        if self.watched.swap(deadline.is_some(), Relaxed) == deadline.is_some() {
            return Ok(());
        }
        let deadline = deadline.map(|deadline| deadline.min(LONGEST));
        socket2::SockRef::from(&self.stream).set_tcp_user_timeout(deadline)
    }

    /// Only Linux can be told.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn give_up_after(&self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Socket {
    /// By itself the kernel closes in order, whatever was sent: half an answer ends by a reset.
    fn drop(&mut self) {
        if self.half {
            // A socket that can't be told so is gone.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_knows_the_deadline() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let stream = TcpStream::connect(listener.local_addr()?).await?;
        let socket = Socket::new(stream, None);
        let known = || socket2::SockRef::from(&*socket).tcp_user_timeout();
        for (deadline, told) in [(7, 7_000), (60 * 86_400, i32::MAX as u64)] {
            socket.give_up_after(Some(Duration::from_secs(deadline)))?;
            assert_eq!(known()?, Some(Duration::from_millis(told)));
            socket.give_up_after(None)?;
            assert_eq!(known()?.unwrap_or_default(), Duration::ZERO);
        }
        Ok(())
    }
}
