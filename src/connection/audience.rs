//! Streams of one voice that stand at about the same place of the ring.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use metrics::histogram;
use tokio::time::Instant;

use super::{chunked::Chunk, coding::SharedChunk, direct::Direct};
use crate::{
    frame::{self, Format},
    live::{Entry, Hub, Page},
    position::LogPosition,
    session::{CHECKPOINT_AFTER, Spoken, Standing, Voice, count_sent},
    telemetry::{COMMIT_TO_SOCKET, seconds_since},
};

/// About how many bytes of changes are said at once.
pub(super) const PAGE_BYTES: usize = 64 << 10;

/// A stream in the crowd.
pub(super) struct Seat {
    direct: Direct,
    /// Its place; all up to where its carrier is, if that is further, is delivered too.
    stands: Standing,
    /// When it last got anything.
    heard_at: Instant,
}

/// Why a stream leaves the crowd.
pub(super) enum Leaves {
    /// It needs a task of its own, which first writes what is unsent.
    Needs(Bytes),
    /// Its connection is gone.
    Gone(String),
}

impl Seat {
    /// A stream that has come level; `None`: it was not.
    pub(super) fn take(mut direct: Direct) -> Option<Self> {
        let stands = direct.outgoing.session.sit()?;
        let heard_at = direct.outgoing.heard_at();
        Some(Self { direct, stands, heard_at })
    }

    pub(super) fn at(&self) -> LogPosition {
        self.stands.at
    }

    pub(super) fn voice(&self) -> Voice {
        self.direct.outgoing.session.voice()
    }

    /// No change up to here that is not delivered concerns it.
    pub(super) fn comes_to(&mut self, at: LogPosition) {
        self.stands.at = self.stands.at.max(at);
    }

    /// Follows in a task of its own again.
    pub(super) fn leave(mut self) -> Direct {
        self.direct.outgoing.session.rise(self.stands);
        self.direct
    }

    /// Its client does not take all at once.
    pub(super) fn falls_behind(&mut self) {
        self.direct.outgoing.falls_behind();
    }

    /// Ends it.
    pub(super) fn end(mut self, why: &str) {
        super::ended(self.direct.peer, &why);
        self.direct.outgoing.open.ends(why);
    }

    /// Writes a whole chunk, or says why it can't stay.
    fn write(&mut self, chunk: &SharedChunk, now: Instant) -> Result<(), Leaves> {
        let gone = |error| Leaves::Gone(told(&error));
        let chunk = chunk.of(&mut self.direct.coding).map_err(gone)?;
        let written = self.direct.wire.try_write(chunk).map_err(gone)?;
        self.heard_at = now;
        match written == chunk.len() {
            true => Ok(()),
            false => Err(Leaves::Needs(chunk.slice(written..))),
        }
    }

    /// What is written next moves the client to a position.
    fn tell(&mut self, position: LogPosition, now: Instant) {
        (self.stands.told, self.stands.told_at) = (position, now);
    }
}

/// A client that goes is no failure, and has one name whatever the system calls it.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => "the client went".into(),
        _ => error.to_string(),
    }
}

/// A page of the ring, and what of it may concern an audience.
#[derive(Clone, Copy)]
pub(super) struct Part<'p> {
    /// Nothing up to here is left to be said.
    pub(super) after: LogPosition,
    pub(super) page: &'p Page,
    pub(super) due: &'p [&'p Entry],
    /// Some of it repeats what others of it, or of earlier pages, have said.
    repeats: bool,
}

impl<'p> Part<'p> {
    pub(super) fn new(after: LogPosition, page: &'p Page, due: &'p [&'p Entry]) -> Self {
        let repeats = due.iter().any(|entry| entry.change.repeats.is_some());
        Self { after, page, due, repeats }
    }
}

/// What a page has after a place, as one chunk.
struct Said {
    after: LogPosition,
    /// For whom alone, where that makes a difference: who has all of the ring since here.
    origin: Option<LogPosition>,
    spoken: Spoken,
    /// How many bytes of the body.
    len: usize,
    chunk: SharedChunk,
}

/// How many places of an audience are remembered within one page.
const PLACES: usize = 4;

/// Streams of one voice.
pub(super) struct Audience {
    pub(super) voice: Arc<Voice>,
    pub(super) seats: Vec<Seat>,
    /// What was last said: most stand at one place.
    said: VecDeque<Said>,
    now: Instant,
    /// When the changes were committed that are said for the first time.
    committed: Vec<Timestamp>,
    newest: LogPosition,
    measures: bool,
    events: u64,
    bytes: u64,
}

impl Audience {
    pub(super) fn new(voice: Arc<Voice>) -> Self {
        Self {
            voice,
            // Where each follows a patient of its own, it sits alone.
            seats: Vec::with_capacity(1),
            said: VecDeque::new(),
            now: Instant::now(),
            committed: Vec::new(),
            newest: LogPosition::default(),
            measures: false,
            events: 0,
            bytes: 0,
        }
    }

    /// Something is to be said; `measures`, to all that sit here.
    pub(super) fn begin(&mut self, measures: bool) {
        self.now = Instant::now();
        self.measures = measures;
        self.said.clear();
    }

    /// Counts what was sent since [`begin`](Self::begin).
    pub(super) fn finish(&mut self) {
        self.said.clear();
        if self.bytes > 0 {
            count_sent(Format::Sse.name(), self.events, self.bytes);
            (self.events, self.bytes) = (0, 0);
        }
        for committed in self.committed.drain(..) {
            histogram!(COMMIT_TO_SOCKET).record(seconds_since(committed));
        }
    }

    /// Gives a stream all that the ring has for it.
    pub(super) fn catch_up(&mut self, hub: &Hub, seat: &mut Seat) -> Result<(), Leaves> {
        loop {
            let page = hub.read(seat.stands.at, PAGE_BYTES);
            let page = page.ok_or_else(|| Leaves::Needs(Bytes::new()))?;
            let due: Vec<_> = page.all().collect();
            self.said.clear();
            self.speak_to(Part::new(seat.stands.at, &page, &due), seat)?;
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Gives a stream what a page has for it.
    pub(super) fn speak_to(&mut self, part: Part<'_>, seat: &mut Seat) -> Result<(), Leaves> {
        seat.comes_to(part.after);
        let Standing { at, origin, .. } = seat.stands;
        let index = self.say(part, at, part.repeats.then_some(origin));
        let said = &self.said[index];
        let Spoken { events, told, end, starts_over } = said.spoken;
        seat.stands.at = end;
        let (events, bytes) = told.map_or((0, 0), |_| (events, said.len));
        seat.direct.outgoing.open.delivers(end, events, bytes);
        if let Some(told) = told {
            self.events += events;
            self.bytes += bytes as u64;
            seat.tell(told, self.now);
            seat.write(&said.chunk, self.now)?;
        }
        match starts_over {
            true => Err(Leaves::Needs(Bytes::new())),
            false => Ok(()),
        }
    }

    /// Finds the words for what follows a place.
    fn say(&mut self, part: Part<'_>, after: LogPosition, origin: Option<LogPosition>) -> usize {
        let known = self.said.iter().position(|said| (said.after, said.origin) == (after, origin));
        known.unwrap_or_else(|| {
            self.said.truncate(PLACES - 1);
            let said = self.put(part, after, origin);
            self.said.push_front(said);
            0
        })
    }

    fn put(&mut self, part: Part<'_>, after: LogPosition, origin: Option<LogPosition>) -> Said {
        let mut chunk = Chunk::new();
        let (committed, newest, measures) = (&mut self.committed, self.newest, self.measures);
        let is_news = |entry: &&Entry| origin.is_none_or(|at| entry.change.is_news_to(at));
        let due = part.due.iter().copied().filter(is_news);
        let spoken = self.voice.speak(after, part.page, due, chunk.body(), |change| {
            if measures && change.position > newest {
                committed.push(change.committed);
            }
        });
        if measures {
            self.newest = newest.max(spoken.end);
        }
        let len = chunk.len();
        Said { after, origin, spoken, len, chunk: SharedChunk::new(chunk) }
    }

    /// Lets go whose client has gone; says something to whom nothing was said for long.
    pub(super) fn look_after(&mut self, seat: &mut Seat) -> Result<(), Leaves> {
        if seat.direct.wire.has_hung_up() {
            return Err(Leaves::Gone("the client went".into()));
        }
        let Standing { at, told, told_at, .. } = seat.stands;
        seat.direct.outgoing.open.delivers(at, 0, 0);
        let moved = at != told && self.now >= told_at + CHECKPOINT_AFTER;
        let silent = self.now >= seat.heard_at + seat.direct.outgoing.keep_alive();
        if !moved && !silent {
            return Ok(());
        }
        let mut chunk = Chunk::new();
        if moved {
            self.voice.checkpoint(at, chunk.body());
            self.bytes += chunk.len() as u64;
            seat.direct.outgoing.open.sent(0, chunk.len());
            seat.tell(at, self.now);
        } else {
            chunk.body().extend_from_slice(&frame::KEEP_ALIVE);
        }
        seat.direct.wire.rests();
        seat.write(&SharedChunk::new(chunk), self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fhir::ResourceType,
        plan::{Grant, Plan, Scope},
        position::Epoch,
        store::{Change, ChangeKind, DocId, Window},
    };

    fn upsert(time: u64, repeats: Option<u64>) -> Arc<Entry> {
        let kind = ChangeKind::Upsert {
            ty: ResourceType::parse("Basic").unwrap(),
            id: "1".into(),
            doc: DocId::Text("1".into()),
            updated_ms: None,
            json: Bytes::from_static(b"{}"),
            before: crate::store::Before::Unknown,
        };
        let position = LogPosition { time, consumed: 1 };
        let repeats = repeats.map(|time| LogPosition { time, consumed: 1 });
        Entry::new(Change { repeats, ..Change::new(position, Timestamp::UNIX_EPOCH, kind) })
    }

    /// Two at one place, who sat down before a change and behind it: what repeats that is for the
    /// second alone.
    #[test]
    fn what_repeats_a_change_is_for_who_sat_down_behind_it() {
        let plan = Plan::new(Scope::System, None, Window::default(), true, Grant::Everything);
        let mut audience = Audience::new(Arc::new(Voice::new(&plan, None, Epoch(1))));
        let at = |time| LogPosition { time, consumed: 1 };
        let page = |repeats| {
            let entries = vec![upsert(1, None), upsert(3, repeats)];
            Page { entries, level: at(3), ..Page::default() }
        };
        for (repeats, of_two) in [(Some(1), [0, 1]), (None, [1, 1])] {
            let page = page(repeats);
            let due: Vec<_> = page.all().collect();
            let part = Part::new(at(2), &page, &due);
            audience.begin(false);
            for (origin, events) in [at(0), at(2)].into_iter().zip(of_two) {
                let said = audience.say(part, at(2), part.repeats.then_some(origin));
                let spoken = audience.said[said].spoken;
                assert_eq!((spoken.events, spoken.end), (events, at(3)), "{repeats:?} {origin:?}");
            }
            assert_eq!(audience.said.len(), 1 + usize::from(repeats.is_some()));
        }
    }
}
