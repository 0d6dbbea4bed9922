//! One answer of HTTP/2 on its way to a client that takes it, or does not.
//!
//! Each stream of a connection has a window of its own, which its client opens as it reads. hyper
//! does not poll a body whose window is closed, and what it was given lies in h2's buffers, even
//! after the body's end. So an answer is given away piece by piece, the next one once the last
//! has gone to the socket; and whoever takes nothing of one for too long has its stream reset,
//! beside others on the connection that go on.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::guard::Traffic;

/// The largest piece: what a stream whose client takes nothing has in h2's buffers.
pub(super) const PIECE: usize = 64 << 10;

/// What of an answer is given away and not yet taken.
#[derive(Debug)]
pub(super) struct Flow {
    left: Mutex<Left>,
    traffic: Arc<Traffic>,
    /// After so many bytes on its connection each stream of it has had its turn.
    round: u64,
}

#[derive(Debug)]
struct Left {
    bytes: usize,
    /// Since when nothing of them was taken, and how much had gone over the connection then.
    since: Instant,
    written: u64,
    /// Who waits until all is.
    waits: Option<Waker>,
}

impl Flow {
    pub(super) fn new(traffic: Arc<Traffic>, round: u64) -> Self {
        let (since, written) = (Instant::now(), traffic.written());
        let left = Mutex::new(Left { bytes: 0, since, written, waits: None });
        Self { left, traffic, round }
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gives(&self, bytes: usize) {
        let mut left = self.lock();
        left.bytes += bytes;
        (left.since, left.written) = (Instant::now(), self.traffic.written());
    }

    fn took(&self, bytes: usize) {
        let mut left = self.lock();
        left.bytes = left.bytes.saturating_sub(bytes);
        (left.since, left.written) = (Instant::now(), self.traffic.written());
        if left.bytes == 0
            && let Some(waits) = left.waits.take()
        {
            waits.wake();
        }
    }

    fn is_taken(&self) -> bool {
        self.lock().bytes == 0
    }

    fn poll_taken(&self, cx: &Context<'_>) -> Poll<()> {
        let mut left = self.lock();
        if left.bytes == 0 {
            return Poll::Ready(());
        }
        left.waits = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Since when the client has taken nothing of what is there for it.
    fn stalled_since(&self) -> Option<Instant> {
        let left = self.lock();
        (left.bytes > 0).then_some(left.since)
    }

    /// Whether it is for its client alone that nothing was taken: on a slow connection a stream
    /// may wait longer for its turn than any client should be waited for.
    fn has_had_its_turn(&self) -> bool {
        !self.traffic.is_behind() || self.traffic.written() > self.lock().written + self.round
    }

    /// Runs whatever answers, as long as its client takes what it gives; else `false`.
    pub(super) async fn keeps(
        &self,
        answering: impl Future<Output = ()>,
        deadline: Duration,
    ) -> bool {
        tokio::pin!(answering);
        // Once set it stays until it fires: most pieces are taken at once.
        let mut alarm: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            if answering.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            loop {
                let due = self.stalled_since().map(|since| since + deadline);
                let alarm = match (&mut alarm, due) {
                    (None, None) => return Poll::Pending,
                    (Some(alarm), _) => alarm,
                    (none, Some(due)) => none.insert(Box::pin(sleep_until(due))),
                };
                ready!(alarm.as_mut().poll(cx));
                let now = Instant::now();
                match due {
                    // It has moved on meanwhile.
                    Some(due) if due > now => alarm.as_mut().reset(due),
                    Some(_) if self.has_had_its_turn() => return Poll::Ready(false),
                    Some(_) => alarm.as_mut().reset(now + deadline),
                    None => break,
                }
            }
            alarm = None;
            Poll::Pending
        })
        .await
    }
}

/// A body that is given away piece by piece.
pub(super) struct Pieces {
    body: Body,
    /// What the body has said, and is not given away.
    rest: Bytes,
    flow: Arc<Flow>,
}

impl Pieces {
    pub(super) fn of(body: Body, flow: Arc<Flow>) -> Self {
        Self { body, rest: Bytes::new(), flow }
    }
}

impl HttpBody for Pieces {
    type Data = Taken;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Taken>, axum::Error>>> {
        // Its end, too, waits: h2 would keep what is left of a stream that has ended, for ever.
        ready!(self.flow.poll_taken(cx));
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let most = self.rest.len().min(PIECE);
        let bytes = self.rest.split_to(most);
        self.flow.gives(bytes.len());
        Poll::Ready(Some(Ok(Frame::data(Taken { bytes, flow: Arc::clone(&self.flow) }))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream() && self.flow.is_taken()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked for before anything is given away.
        self.body.size_hint()
    }
}

/// Bytes that know when they are on the wire, or dropped with their stream.
pub(super) struct Taken {
    bytes: Bytes,
    flow: Arc<Flow>,
}

impl Buf for Taken {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.flow.took(count);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.flow.took(self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::pending};

    use super::*;

    fn flow() -> Flow {
        Flow::new(Arc::default(), 1_000)
    }

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn next(pieces: &mut Pieces) -> Option<Taken> {
        let frame = poll_fn(|cx| Pin::new(&mut *pieces).poll_frame(cx)).await?;
        frame.expect("no error").into_data().ok()
    }

    #[tokio::test]
    async fn the_next_piece_and_the_end_wait_until_the_last_is_taken() {
        let flow = Arc::new(flow());
        let mut pieces = Pieces::of(Body::from(vec![b'x'; PIECE + 7]), Arc::clone(&flow));
        assert_eq!(pieces.size_hint().exact(), Some(PIECE as u64 + 7));
        let mut first = next(&mut pieces).await.expect("a piece");
        assert_eq!(first.remaining(), PIECE);
        assert!(next(&mut pieces).now_or_never().is_none());
        first.advance(PIECE - 1);
        assert!(next(&mut pieces).now_or_never().is_none());
        first.advance(1);
        let last = next(&mut pieces).await.expect("the rest");
        assert_eq!(last.remaining(), 7);
        assert!(!pieces.is_end_stream() && next(&mut pieces).now_or_never().is_none());
        drop(last);
        assert!(next(&mut pieces).await.is_none());
        assert!(pieces.is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_not_kept_and_who_takes_a_little_is() {
        let flow = flow();
        let start = Instant::now();
        let takes = async {
            for _ in 0..3 {
                flow.gives(2);
                tokio::time::sleep(DEADLINE * 2 / 3).await;
                flow.took(1);
                tokio::time::sleep(DEADLINE * 2 / 3).await;
                flow.took(1);
                tokio::time::sleep(DEADLINE * 3).await;
            }
            flow.gives(1);
            pending::<()>().await;
        };
        assert!(!flow.keeps(takes, DEADLINE).await);
        assert_eq!(start.elapsed(), DEADLINE * 4 / 3 * 3 + DEADLINE * 9 + DEADLINE);
        assert!(flow.keeps(async {}, DEADLINE).await);
    }
}
