//! A session as what is written to one client: keep-alive while nothing happens, and a farewell
//! on drain.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    time::Duration,
};

use async_stream::stream;
use axum::body::Body;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::TryStreamExt;
use tokio::{
    pin,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Session,
    open::{Admission, OpenStream, Phase, count_sent},
};
use crate::{
    fhir::outcome::{self, IssueType},
    frame::{self, Format},
};

/// A client of a stream that failed waits so many times longer than one that was cut off.
const PATIENCE: u32 = 5;

/// The times of a stream.
#[derive(Debug, Clone)]
pub struct Times {
    /// After how much silence a comment is sent, or a blank line.
    pub keep_alive: Duration,
    /// How long a client waits before it comes again.
    pub retry: Duration,
    /// Ends the streams, spread over `drain_over`.
    pub drain: CancellationToken,
    /// Over how much time the open streams end once `drain` is cancelled.
    pub drain_over: Duration,
}

/// One client's stream. Dropping it ends it.
pub struct Outgoing {
    /// What is sent.
    pub session: Session,
    /// What is told of it.
    pub open: OpenStream,
    times: Times,
    begun: bool,
    /// When its client was last sent anything, as of when it was given away.
    heard_at: Instant,
}

/// What comes next of a stream.
pub enum Piece {
    /// Bytes to write.
    Chunk(Bytes),
    /// All is written, the client is level with the ring: from here on anybody may carry it who
    /// reads the ring.
    Level(Box<Outgoing>),
}

impl Outgoing {
    /// A stream that takes a place among the server's.
    #[must_use]
    pub fn new(session: Session, times: Times, admission: Admission) -> Self {
        let open = OpenStream::new(session.format.name(), admission);
        Self { session, open, times, begun: false, heard_at: Instant::now() }
    }

    /// After how much silence it is due a comment.
    #[must_use]
    pub fn keep_alive(&self) -> Duration {
        self.times.keep_alive
    }

    /// When its client was last sent anything, once it is given away.
    #[must_use]
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// As the body of an answer.
    pub fn into_body(self) -> Body {
        let chunks = Box::new(self).pieces(false).try_filter_map(|piece| {
            std::future::ready(Ok(match piece {
                Piece::Chunk(chunk) => Some(chunk),
                Piece::Level(_) => None,
            }))
        });
        Body::from_stream(chunks)
    }

    /// Piece by piece, as long as the client takes more. With `may_leave` the stream is given
    /// away as soon as it is level.
    ///
    /// # Errors
    /// The stream breaks off.
    pub fn pieces(
        mut self: Box<Self>,
        may_leave: bool,
    ) -> impl Stream<Item = io::Result<Piece>> + Send {
        let times = self.times.clone();
        let is_sse = self.session.format == Format::Sse;
        let alive = if is_sse { frame::KEEP_ALIVE } else { frame::BLANK };
        stream! {
            if is_sse && !std::mem::replace(&mut self.begun, true) {
                // First bytes at once, so that a browser's EventSource opens.
                yield Ok(Piece::Chunk(frame::retry(millis(times.retry))));
            }
            let silence = sleep(times.keep_alive);
            let drained = drained(&times);
            pin!(silence, drained);
            while !self.session.is_done() {
                if may_leave && self.session.is_level() && !times.drain.is_cancelled() {
                    self.open.enters(Phase::Live);
                    let heard_at = silence.deadline().checked_sub(times.keep_alive);
                    self.heard_at = heard_at.unwrap_or_else(Instant::now);
                    yield Ok(Piece::Level(self));
                    return;
                }
                let stepped = {
                    let step = self.session.step();
                    pin!(step);
                    loop {
                        tokio::select! {
                            biased;
                            () = &mut drained => break None,
                            // Before the step: many in a row may find nothing, and none waits.
                            () = &mut silence => {
                                yield Ok(Piece::Chunk(alive.clone()));
                                silence.as_mut().reset(Instant::now() + times.keep_alive);
                            }
                            stepped = &mut step => break Some(stepped),
                        }
                    }
                };
                self.open.enters(self.session.phase());
                let (at, reading) = self.session.whereabouts();
                self.open.is_at(at, reading);
                while let Some(chunk) = self.take_chunk() {
                    self.session.rest();
                    yield Ok(Piece::Chunk(chunk));
                    silence.as_mut().reset(Instant::now() + times.keep_alive);
                }
                match stepped {
                    Some(Ok(())) => {}
                    Some(Err(ended)) => {
                        let why = ended.to_string();
                        self.open.ends(&why);
                        if is_sse {
                            let outcome = outcome::error(IssueType::Exception, &why, &[]);
                            yield Ok(Piece::Chunk(frame::outcome(&outcome)));
                        }
                        yield farewell(is_sse, &why, times.retry * PATIENCE);
                        return;
                    }
                    None => {
                        const WHY: &str = "the server is stopping";
                        self.open.ends(WHY);
                        yield farewell(is_sse, WHY, spread(times.retry));
                        return;
                    }
                }
            }
            self.open.ends("all is sent");
        }
    }

    fn take_chunk(&mut self) -> Option<Bytes> {
        let (events, chunk) = self.session.take_out();
        if chunk.is_empty() {
            return None;
        }
        self.open.sent(events, chunk.len());
        count_sent(self.session.format.name(), events, chunk.len() as u64);
        Some(chunk)
    }

    /// Its client no longer keeps up, or never did.
    pub fn falls_behind(&mut self) {
        self.open.enters(Phase::Behind);
    }
}

/// The end of a stream that has not sent all: an event stream says when to come again; any
/// other breaks off without its last chunk, so that nobody takes half a result for the whole.
fn farewell(is_sse: bool, why: &str, retry: Duration) -> io::Result<Piece> {
    match is_sse {
        true => Ok(Piece::Chunk(frame::retry(millis(retry)))),
        false => Err(io::Error::other(why.to_owned())),
    }
}

/// Returns once a stream is to end since the server stops: at a random moment of the time that
/// there is for it.
pub async fn drained(times: &Times) {
    times.drain.cancelled().await;
    sleep(times.drain_over.mul_f64(random())).await;
}

/// A wait of about `retry`, so that clients don't come all at once.
#[must_use]
pub fn spread(retry: Duration) -> Duration {
    retry.mul_f64(0.5 + random())
}

/// A number in [0, 1).
fn random() -> f64 {
    // The standard library's hasher is seeded at random: enough to spread clients.
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

/// Whole milliseconds, for `retry:`.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
