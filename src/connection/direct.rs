//! One event stream on its own socket, in a task of its own: while it reads its history, lags,
//! starts over or says good-bye.
//!
//! Thousands of them may have much to send at once, after a restart say. They take turns, so
//! that the queue of who wants to run stays short and the level streams hear of a change at
//! once; and what waits for its turn is a position, not a chunk.

use std::{future::poll_fn, io, net::SocketAddr, pin::Pin, task::Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::{
    pin,
    sync::{Semaphore, SemaphorePermit},
};

use super::{chunked::chunk, coding::Coding, crowd::Seat, wire::Wire};
use crate::session::{Outgoing, Piece};

/// A stream and where it goes.
pub(super) struct Direct {
    pub(super) wire: Wire,
    pub(super) peer: SocketAddr,
    pub(super) coding: Coding,
    pub(super) outgoing: Box<Outgoing>,
}

impl Direct {
    /// Writes `unsent`, then piece by piece, each in one of the `turns`. Returns a stream that
    /// has come level with the ring, where it `may_leave`; `None`: it has ended.
    pub(super) async fn run(
        self,
        unsent: Bytes,
        turns: &Semaphore,
        may_leave: bool,
    ) -> Option<Seat> {
        let Self { wire, peer, mut coding, outgoing } = self;
        if let Err(error) = wire.all(unsent).await {
            super::ended(peer, &error);
            return None;
        }
        match carry(&wire, &mut coding, outgoing.pieces(may_leave), turns).await {
            Ok(Some(outgoing)) => Seat::take(Self { wire, peer, coding, outgoing }),
            Ok(None) => {
                wire.end(chunk(&coding.end())).await;
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
    coding: &mut Coding,
    pieces: impl Stream<Item = io::Result<Piece>>,
    turns: &Semaphore,
) -> io::Result<Option<Box<Outgoing>>> {
    pin!(pieces);
    loop {
        let (piece, turn) = tokio::select! {
            biased;
            next = in_turn(pieces.as_mut(), turns) => next,
            () = wire.hung_up() => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        match piece.transpose()? {
            Some(Piece::Chunk(chunk)) => {
                let rest = wire.chunk_now(coding.encode(chunk)?)?;
                drop(turn);
                wire.all(rest).await?;
                wire.rests();
            }
            Some(Piece::Level(outgoing)) => return Ok(Some(outgoing)),
            None => return Ok(None),
        }
    }
}

/// The next piece, made within a turn that goes on with it. While there is none, others have
/// the turn.
async fn in_turn<'t, S: Stream>(
    mut pieces: Pin<&mut S>,
    turns: &'t Semaphore,
) -> (Option<S::Item>, Option<SemaphorePermit<'t>>) {
    loop {
        // Nobody closes them: at worst it does not wait.
        let turn = turns.acquire().await.ok();
        let next = poll_fn(|cx| Poll::Ready(pieces.as_mut().poll_next(cx))).await;
        match next {
            Poll::Ready(piece) => return (piece, turn),
            Poll::Pending => drop(turn),
        }
        // The pieces wake this task.
        let mut woken = false;
        poll_fn(|_| match std::mem::replace(&mut woken, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::Arc, time::Duration};

    use futures_util::FutureExt;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
        sync::mpsc,
    };

    use super::*;
    use crate::{
        connection::{Patience, Socket},
        session::CutOff,
    };

    #[tokio::test]
    async fn a_piece_is_made_in_a_turn_and_waited_for_in_none() {
        let turns = Semaphore::new(1);
        let (tell, mut told) = mpsc::channel(1);
        let pieces = async_stream::stream! {
            while let Some(piece) = told.recv().await {
                yield piece;
            }
        };
        pin!(pieces);
        {
            let next = in_turn(pieces.as_mut(), &turns);
            pin!(next);
            assert!(next.as_mut().now_or_never().is_none());
            assert_eq!(turns.available_permits(), 1, "there is none to be made");
            let others = turns.try_acquire().expect("a turn");
            tell.send("piece").await.expect("somebody waits");
            assert!(next.as_mut().now_or_never().is_none(), "it is not its turn");
            drop(others);
            let (piece, turn) = next.await;
            assert_eq!((piece, turns.available_permits()), (Some("piece"), 0));
            drop(turn);
        }
        drop(tell);
        let (end, _) = in_turn(pieces, &turns).await;
        assert_eq!(end, None);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_looks_after_who_has_taken_a_piece_again() -> io::Result<()> {
        // More than the sockets between server and client hold.
        const BYTES: usize = 32 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let socket = TcpStream::connect(listener.local_addr()?).await?;
        let (mut client, _) = listener.accept().await?;
        let (same, known) = (socket2::SockRef::from(&socket).try_clone()?, Cell::new(None));
        let deadline = Duration::from_secs(7);
        let patience = Patience { deadline, drain: Default::default(), drain_over: deadline };
        let wire = Wire::new(Socket::new(socket, None), Arc::new(patience), CutOff::default());
        let known = &known;
        let pieces = async_stream::stream! {
            yield Ok(Piece::Chunk(vec![b'x'; BYTES].into()));
            known.set(same.tcp_user_timeout().expect("a socket"));
        };
        let taken = async {
            let (mut part, mut taken) = (vec![0; 1 << 16], 0);
            while taken < BYTES {
                taken += client.read(&mut part).await?;
            }
            io::Result::Ok(())
        };
        let (mut coding, turns) = (Coding::new(false), Semaphore::new(1));
        let (carried, taken) = tokio::join!(carry(&wire, &mut coding, pieces, &turns), taken);
        assert!(carried?.is_none());
        taken?;
        assert_eq!(known.take(), Some(deadline));
        Ok(())
    }
}
