//! One event stream on its own socket, in a task of its own: while it reads its history, lags,
//! starts over or says good-bye.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::pin;

use super::{crowd::Seat, wire::Wire};
use crate::session::{Outgoing, Piece};

/// A stream and where it goes.
pub(super) struct Direct {
    pub(super) wire: Wire,
    pub(super) peer: SocketAddr,
    pub(super) outgoing: Box<Outgoing>,
}

impl Direct {
    /// Writes `unsent`, then piece by piece. Returns a stream that has come level with the ring;
    /// `None`: it has ended.
    pub(super) async fn run(self, unsent: Bytes) -> Option<Seat> {
        let Self { wire, peer, outgoing } = self;
        match carry(&wire, outgoing, unsent).await {
            Ok(Some(outgoing)) => Seat::take(Self { wire, peer, outgoing }),
            Ok(None) => {
                wire.end().await;
                None
            }
            Err(error) => {
                super::ended(peer, &error);
                None
            }
        }
    }
}

async fn carry(
    wire: &Wire,
    mut outgoing: Box<Outgoing>,
    unsent: Bytes,
) -> io::Result<Option<Box<Outgoing>>> {
    if let Err(error) = wire.all(unsent).await {
        outgoing.open.ends(&error.to_string());
        return Err(error);
    }
    let pieces = outgoing.pieces(true);
    pin!(pieces);
    loop {
        let piece = tokio::select! {
            biased;
            piece = pieces.next() => piece,
            () = wire.hung_up() => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        match piece.transpose()? {
            Some(Piece::Chunk(chunk)) => wire.chunk(chunk).await?,
            Some(Piece::Level(outgoing)) => return Ok(Some(outgoing)),
            None => return Ok(None),
        }
    }
}
