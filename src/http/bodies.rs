//! Bodies of requests: how large one may be, how long it may take, and how much of them there may be
//! at once.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use futures_util::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::{error::ApiError, fhir::outcome::IssueType};

/// The bytes that a permit stands for.
const UNIT: usize = 1024;

/// So many bytes may be done at once, or one body that has more.
const AT_ONCE: usize = 4 << 20;

/// How many of the largest bodies may have come.
const WAITING: usize = 8;

/// How many entries a Bundle may have, and how many of all may be done at once. The smallest takes 2
/// bytes, and a thousand with its answer.
pub(super) const MOST_ENTRIES: usize = 50_000;

/// What may still come, and what may still be done.
#[derive(Debug)]
pub struct Bodies {
    limit: usize,
    deadline: Duration,
    /// For bytes that have come. Nobody waits for these: who has a part of a body would keep from
    /// others what he waits for.
    come: Arc<Semaphore>,
    /// For whole bodies that are read as JSON and done: as a tree a text takes up to thirty times the
    /// memory.
    done: Arc<Semaphore>,
    /// For entries. Who has these waits for nothing else.
    entries: Arc<Semaphore>,
}

/// A whole body, and its share of what may be done at once.
#[derive(Debug)]
pub(super) struct Whole {
    /// As it was sent.
    pub text: Bytes,
    /// To be kept until the request is done.
    pub share: Share,
}

/// What a body keeps from others.
#[derive(Debug)]
pub(super) struct Share {
    _held: [Option<OwnedSemaphorePermit>; 2],
}

impl Bodies {
    /// Of at most `limit` bytes each, of which the next part comes within `deadline`.
    #[must_use]
    pub fn new(limit: usize, deadline: Duration) -> Self {
        let semaphore = |bytes: usize| {
            Arc::new(Semaphore::new(bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS)))
        };
        Self {
            limit,
            deadline,
            come: semaphore(limit.max(AT_ONCE).saturating_mul(WAITING)),
            done: semaphore(AT_ONCE),
            entries: Arc::new(Semaphore::new(MOST_ENTRIES)),
        }
    }

    /// The largest body, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Reads a body, and waits for its turn to be done.
    ///
    /// # Errors
    /// 413 where it is too large, 408 where it stops, 400 where it breaks off, 503 where there is too
    /// much of others.
    pub(super) async fn read(&self, body: Body) -> Result<Whole, ApiError> {
        let mut frames = body.into_data_stream();
        let mut whole = Vec::new();
        let mut come = None;
        let start = Instant::now();
        loop {
            let left = most_time(self.deadline, whole.len()).saturating_sub(start.elapsed());
            let frame = timeout(left.min(self.deadline), frames.next()).await;
            let Some(frame) = frame.map_err(|_| too_late(self.deadline))? else { break };
            let frame = frame.map_err(|e| {
                let why = format!("the body broke off: {e}");
                ApiError::new(StatusCode::BAD_REQUEST, IssueType::Structure, why)
            })?;
            self.allows(whole.len() + frame.len())?;
            self.hold(&mut come, whole.len() + frame.len())?;
            whole.extend_from_slice(&frame);
        }
        let turn = self.turn(&self.done, units(whole.len().min(AT_ONCE))).await?;
        Ok(Whole { text: whole.into(), share: Share { _held: [come, turn] } })
    }

    /// Waits until so many entries of a Bundle may be done, which is at most [`MOST_ENTRIES`].
    ///
    /// # Errors
    /// 503 where there are too many of others.
    pub(super) async fn entries(&self, count: usize) -> Result<Share, ApiError> {
        let count = u32::try_from(count.min(MOST_ENTRIES)).unwrap_or(u32::MAX);
        Ok(Share { _held: [self.turn(&self.entries, count).await?, None] })
    }

    async fn turn(
        &self,
        of: &Arc<Semaphore>,
        count: u32,
    ) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        let turn = timeout(self.deadline, Arc::clone(of).acquire_many_owned(count)).await;
        // Never closed.
        Ok(turn.map_err(|_| too_many())?.ok())
    }

    /// # Errors
    /// 413 where so many bytes are too many.
    pub(super) fn allows(&self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= self.limit {
            return Ok(());
        }
        let why = format!("the body is larger than {} bytes", self.limit);
        Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, IssueType::TooLong, why))
    }

    /// Takes what is lacking for so many bytes.
    fn hold(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), ApiError> {
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacking = units(bytes).saturating_sub(u32::try_from(has).unwrap_or(u32::MAX));
        let more =
            Arc::clone(&self.come).try_acquire_many_owned(lacking).map_err(|_| too_many())?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// How long so many bytes of a body may take in all. Who sends a byte now and then keeps no deadline
/// between two of them from passing, and is not waited for for ever.
fn most_time(deadline: Duration, bytes: usize) -> Duration {
    /// Bytes a second.
    const SLOWEST: u64 = 1024;
    deadline.saturating_mul(10) + Duration::from_secs(bytes as u64 / SLOWEST)
}

fn too_late(deadline: Duration) -> ApiError {
    let seconds = deadline.as_secs_f64();
    let why = format!(
        "the body stopped: nothing more of it came for {seconds} s, or next to nothing for ten \
         times that. Send it again"
    );
    ApiError::new(StatusCode::REQUEST_TIMEOUT, IssueType::Timeout, why)
}

fn too_many() -> ApiError {
    let why = "this server has as many bytes of bodies as it takes at once: send it again later";
    let refusal = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueType::Throttled, why);
    ApiError { retry_after: Some(Duration::from_secs(5)), ..refusal }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(7);

    fn of(bytes: usize) -> Body {
        vec![b' '; bytes].into()
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_done_at_once_than_one_body_may_have() {
        let bodies = Bodies::new(2 * AT_ONCE, DEADLINE);
        let small = bodies.read(of(1)).await.expect("a turn");
        let (large, ()) = tokio::join!(bodies.read(of(2 * AT_ONCE)), async {
            // Paused time passes only where everybody waits.
            tokio::time::sleep(DEADLINE / 2).await;
            drop(small);
        });
        let large = large.expect("its turn, once the small one is done");
        let refused = bodies.read(of(1)).await.expect_err("no turn");
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.retry_after.is_some());
        drop(large);
        assert_eq!(bodies.read(of(5)).await.expect("a turn").text.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_is_bounded_and_nobody_waits_for_it() {
        let bodies = Arc::new(Bodies::new(AT_ONCE, DEADLINE));
        // One is done, and the others wait for that.
        let first = bodies.read(of(AT_ONCE)).await.expect("a turn");
        let read = || {
            tokio::spawn({
                let bodies = Arc::clone(&bodies);
                async move { bodies.read(of(AT_ONCE)).await.map(drop) }
            })
        };
        let waiting: Vec<_> = (1..WAITING).map(|_| read()).collect();
        while bodies.come.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        let refused = bodies.read(of(1)).await.expect_err("no room");
        assert_eq!(
            (refused.status, start.elapsed()),
            (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO)
        );
        drop(first);
        for waited in waiting {
            waited.await.expect("no panic").expect("its turn");
        }
        assert_eq!(bodies.come.available_permits(), WAITING * AT_ONCE / UNIT);
        assert_eq!(bodies.done.available_permits(), AT_ONCE / UNIT);
    }

    #[tokio::test(start_paused = true)]
    async fn entries_wait_for_each_other() {
        let bodies = Bodies::new(10, DEADLINE);
        let all = bodies.entries(MOST_ENTRIES).await.expect("a turn");
        let refused = bodies.entries(1).await.expect_err("no turn");
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(all);
        bodies.entries(MOST_ENTRIES).await.expect("a turn");
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused_whatever_the_others_have() {
        let bodies = Bodies::new(10, DEADLINE);
        assert_eq!(bodies.read(of(10)).await.expect("a body").text.len(), 10);
        let refused = bodies.read(of(11)).await.expect_err("too large");
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(bodies.come.available_permits(), WAITING * AT_ONCE / UNIT);
    }
}
