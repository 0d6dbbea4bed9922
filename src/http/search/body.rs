//! A search's answer while it is written: what is found is sent as the client takes it.

use std::io;

use async_stream::stream;
use axum::body::Body;
use bytes::Bytes;
use tokio::{
    pin,
    time::{Instant, sleep},
};

use super::reading::Reading;
use crate::{
    frame,
    search::{Answer, Search},
    session::{OpenStream, Phase, Times, count_sent, drained},
    store::StoreError,
};

/// About how many bytes are read before some are sent.
const CHUNK_BYTES: usize = 64 << 10;

/// A search that is under way.
pub(super) struct Found {
    pub(super) search: Search,
    pub(super) answer: Answer,
    pub(super) link: String,
    pub(super) reading: Reading,
    pub(super) open: OpenStream,
}

impl Found {
    /// The body: it is read as the client takes it, and ends with the client.
    pub(super) fn into_body(mut self, times: Times) -> Body {
        Body::from_stream(stream! {
            self.open.enters(Phase::History);
            let mut out = Vec::new();
            self.answer.open(&mut out, &self.link, &self.search.ignored);
            let silence = sleep(times.keep_alive);
            let drained = drained(&times);
            pin!(silence, drained);
            let mut whole = false;
            while !whole {
                if !out.is_empty() {
                    self.reading.rest();
                    yield Ok(Bytes::from(std::mem::take(&mut out)));
                    silence.as_mut().reset(Instant::now() + times.keep_alive);
                }
                let fetched = {
                    let fetch = self.reading.fetch();
                    pin!(fetch);
                    loop {
                        tokio::select! {
                            biased;
                            () = &mut drained => {
                                break Err(StoreError::Failed("the server is stopping".into()));
                            }
                            // Before what is fetched: it may be nothing, many times in a row.
                            () = &mut silence => {
                                // It tells the client that the search goes on, and the server
                                // that the client is there.
                                yield Ok(frame::BLANK);
                                silence.as_mut().reset(Instant::now() + times.keep_alive);
                            }
                            fetched = &mut fetch => break fetched,
                        }
                    }
                };
                whole = match fetched {
                    Ok(true) => self.write_found(&mut out),
                    Ok(false) => true,
                    Err(error) => {
                        // Without its end nobody takes a part for the whole.
                        self.open.ends(&error.to_string());
                        yield Err(io::Error::other(error.to_string()));
                        return;
                    }
                };
            }
            self.answer.close(&mut out);
            self.open.ends("all is sent");
            if !out.is_empty() {
                yield Ok(Bytes::from(out));
            }
        })
    }

    /// Writes what is found among the resources at hand. `true`: as many as were asked for.
    fn write_found(&mut self, out: &mut Vec<u8>) -> bool {
        // A count is of all that is found.
        let most = self.search.options.count.filter(|_| !self.answer.counts);
        let (before, start) = (self.answer.found, out.len());
        let Some(part) = self.reading.take(CHUNK_BYTES) else { return false };
        out.reserve(CHUNK_BYTES + CHUNK_BYTES / 4);
        let mut whole = false;
        for index in part.range.clone() {
            whole = most.is_some_and(|most| self.answer.found >= most);
            let (false, Some(key)) = (whole, part.batch.key(index)) else { break };
            let line = part.batch.line(index);
            let json = line.strip_suffix(b"\n").unwrap_or(line);
            if self.search.matches(json) {
                self.answer.resource(out, key.doc(), json);
            }
        }
        let (events, bytes) = (self.answer.found - before, out.len() - start);
        self.open.sent(events, bytes);
        count_sent(self.answer.shape.name(), events, bytes as u64);
        whole || most.is_some_and(|most| self.answer.found >= most)
    }
}
