//! A session as a response body: keep-alive while nothing happens, and a farewell on drain.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    time::Duration,
};

use async_stream::stream;
use axum::body::Body;
use bytes::Bytes;
use metrics::{counter, gauge};
use tokio::{
    pin,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Session;
use crate::{
    fhir::outcome::{self, IssueType},
    frame::{self, Format},
};

/// A client of a stream that failed waits so many times longer than one that was cut off.
const PATIENCE: u32 = 5;

/// The times of a stream.
#[derive(Debug, Clone)]
pub struct BodyOptions {
    /// After how much silence a comment is sent.
    pub keep_alive: Duration,
    /// How long a client waits before it comes again.
    pub retry: Duration,
    /// Ends the streams, spread over `drain_over`.
    pub drain: CancellationToken,
    /// Over how much time the open streams end once `drain` is cancelled.
    pub drain_over: Duration,
}

/// The body of a session. Dropping it ends the session.
pub fn body(session: Session, options: BodyOptions) -> Body {
    Body::from_stream(stream! {
        let mut open = OpenStream::new(session.format);
        let mut session = session;
        let format = session.format;
        if format == Format::Sse {
            // First bytes at once, so that a browser's EventSource opens.
            yield Ok(frame::retry(millis(options.retry)));
        }
        let silence = sleep(options.keep_alive);
        let drained = drained(&options);
        pin!(silence, drained);
        while !session.is_done() {
            let stepped = {
                let step = session.step();
                pin!(step);
                loop {
                    tokio::select! {
                        stepped = &mut step => break Some(stepped),
                        () = &mut silence, if format == Format::Sse => {
                            yield Ok(frame::KEEP_ALIVE);
                            silence.as_mut().reset(Instant::now() + options.keep_alive);
                        }
                        () = &mut drained => break None,
                    }
                }
            };
            let chunk = session.take_out();
            if !chunk.is_empty() {
                open.sent(chunk.len());
                silence.as_mut().reset(Instant::now() + options.keep_alive);
                yield Ok(chunk);
            }
            match stepped {
                Some(Ok(())) => {}
                Some(Err(ended)) => {
                    let why = ended.to_string();
                    open.ends(&why);
                    if format == Format::Sse {
                        let outcome = outcome::error(IssueType::Exception, &why, &[]);
                        yield Ok(frame::outcome(&outcome));
                    }
                    yield farewell(format, &why, options.retry * PATIENCE);
                    return;
                }
                None => {
                    open.ends("the server is stopping");
                    yield farewell(format, "the server is stopping", spread(options.retry));
                    return;
                }
            }
        }
        open.ends("all is sent");
    })
}

/// The end of a stream that has not sent all: an event stream says when to come again; any
/// other breaks off without its last chunk, so that nobody takes half a result for the whole.
fn farewell(format: Format, why: &str, retry: Duration) -> Result<Bytes, io::Error> {
    match format {
        Format::Sse => Ok(frame::retry(millis(retry))),
        Format::Ndjson => Err(io::Error::other(why.to_owned())),
    }
}

async fn drained(options: &BodyOptions) {
    options.drain.cancelled().await;
    sleep(options.drain_over.mul_f64(random())).await;
}

fn spread(retry: Duration) -> Duration {
    retry.mul_f64(0.5 + random())
}

/// A number in [0, 1).
fn random() -> f64 {
    // The standard library's hasher is seeded at random: enough to spread clients.
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Counts a stream while it is open, and tells once how it ended.
struct OpenStream {
    format: &'static str,
    opened: Instant,
    bytes: usize,
    why: String,
}

impl OpenStream {
    fn new(format: Format) -> Self {
        let format = match format {
            Format::Sse => "sse",
            Format::Ndjson => "ndjson",
        };
        gauge!("fhirtail_streams", "format" => format).increment(1.0);
        counter!("fhirtail_streams_total", "format" => format).increment(1);
        let why = "the client went".to_owned();
        Self { format, opened: Instant::now(), bytes: 0, why }
    }

    fn sent(&mut self, bytes: usize) {
        self.bytes += bytes;
        counter!("fhirtail_sent_bytes_total", "format" => self.format).increment(bytes as u64);
    }

    fn ends(&mut self, why: &str) {
        why.clone_into(&mut self.why);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!("fhirtail_streams", "format" => self.format).decrement(1.0);
        let seconds = self.opened.elapsed().as_secs_f64();
        info!(format = self.format, bytes = self.bytes, seconds, why = self.why, "stream ended");
    }
}
