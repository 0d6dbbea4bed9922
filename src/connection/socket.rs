//! A client's socket, counted while it is open.

use std::ops::{Deref, DerefMut};

use metrics::gauge;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};

use crate::telemetry::Counted;

/// A socket, whoever has it in hand.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    _open: Counted,
    _room: Option<OwnedSemaphorePermit>,
}

impl Socket {
    /// A socket that was let in, and keeps its place until it is closed.
    pub(super) fn new(stream: TcpStream, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, _open: Counted::new(gauge!("fhirtail_connections")), _room: room }
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
