//! The log: one change stream over the whole database, read batch by batch in a task of its own.
//!
//! The cursor is a plain one over `$changeStream`, so nothing resumes behind our back: an error
//! ends the reader, and its user opens another at the position it has come to.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt;
use mongodb::{
    bson::doc,
    raw_batch_cursor::{RawBatch, RawBatchCursor},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tracing::debug;

use super::{
    Shared,
    change_stream::open_cursor,
    deferred::{self, BeforeDeferred},
    errors,
    event::{Event, token_time},
    log,
    lookup::{self, Place},
    mapping::{self, Step},
    silence::Patience,
    walk::{Element, Elements},
};
use crate::{
    position::LogPosition,
    store::{ChangeBatch, Changes, StoreError},
};

/// How long [`Changes::next`] waits before it answers "nothing".
const PATIENCE: Duration = Duration::from_secs(1);

/// How many documents are looked up for one batch, and about how many bytes of them: a thousand events
/// without theirs are small, what they stand for need not be.
const MOST_LOOKED_UP: usize = 32;
const LOOKED_UP_BYTES: usize = 16 << 20;

/// The reading end of the task.
#[derive(Debug)]
pub(super) struct Reader {
    batches: mpsc::Receiver<Result<ChangeBatch, StoreError>>,
    level: LogPosition,
    task: JoinHandle<()>,
}

impl Reader {
    /// Opens the change stream and starts the task, which ends once the reader is dropped.
    pub(super) async fn open(shared: Arc<Shared>, after: LogPosition) -> Result<Self, StoreError> {
        shared.answered(shared.freshen_catalog()).await?;
        let tail = Tail::open(shared, after).await?;
        let (sender, batches) = mpsc::channel(1);
        let task = tokio::spawn(tail.run(sender));
        Ok(Self { batches, level: after, task })
    }

    /// Whether the log honours a position.
    pub(super) async fn probe(shared: &Shared, after: LogPosition) -> Result<(), StoreError> {
        open_cursor(shared, after.time).await.map(drop)
    }
}

#[async_trait]
impl Changes for Reader {
    async fn next(&mut self) -> Result<ChangeBatch, StoreError> {
        match timeout(PATIENCE, self.batches.recv()).await {
            Ok(Some(Ok(batch))) => {
                self.level = batch.level;
                Ok(batch)
            }
            Ok(Some(Err(error))) => Err(error),
            Ok(None) => Err(StoreError::Unavailable("the reader of the log has ended".into())),
            Err(_) => Ok(ChangeBatch::new(Vec::new(), self.level, false)),
        }
    }

    async fn close(self: Box<Self>) {
        drop(self.batches);
        // A task that broke has told so by its channel.
        drop(self.task.await);
    }
}

/// The task: a cursor, and how far it has come.
struct Tail {
    shared: Arc<Shared>,
    cursor: RawBatchCursor,
    patience: Patience,
    /// The cursor's number on the server; 0: it is not known yet, or over.
    id: i64,
    /// Events up to here are not for the reader.
    after: LogPosition,
    /// The place of the last event.
    at: LogPosition,
    /// What the last reply has told and no batch has brought yet.
    waiting: VecDeque<Step>,
    /// Up to where all is delivered once none of that waits.
    reached: LogPosition,
    level: LogPosition,
    /// How many documents are looked up at once, where they are like the last ones.
    at_once: usize,
    /// Where the cursor began. Its first mark is that, and says nothing of what lies there.
    began: u64,
    /// An empty reply has looked up to here, and found nothing more.
    looked: u64,
    /// Resume tokens have shown no other time than their events.
    tokens_hold: bool,
    /// As of which time of the log documents were looked up last.
    looked_up: u64,
    before_deferred: BeforeDeferred,
    /// Collections came or went.
    listing_changed: bool,
}

impl Tail {
    async fn open(shared: Arc<Shared>, after: LogPosition) -> Result<Self, StoreError> {
        // The handoff from a snapshot at the last write's time T is T + 1.
        let ends = shared.answered(log::ends(&shared)).await?;
        if after.time > ends.written.saturating_add(1) {
            let why = "it lies in the future of this log";
            return Err(StoreError::PositionLost(why.into()));
        }
        let mut patience = Patience::of(&shared);
        let cursor = patience.open(&shared, after.time).await?;
        let at = LogPosition::before(after.time);
        Ok(Self {
            shared,
            cursor,
            patience,
            id: 0,
            after,
            at,
            waiting: VecDeque::new(),
            reached: after,
            level: after,
            at_once: MOST_LOOKED_UP,
            began: after.time,
            looked: ends.committed,
            tokens_hold: true,
            looked_up: 0,
            before_deferred: BeforeDeferred::default(),
            listing_changed: false,
        })
    }

    /// Reads one reply ahead of whoever listens, until nobody does.
    async fn run(mut self, batches: mpsc::Sender<Result<ChangeBatch, StoreError>>) {
        while batches.reserve().await.is_ok() {
            let batch = self.read().await;
            let ends = batch.is_err();
            if batches.send(batch).await.is_err() {
                break;
            }
            if ends {
                return;
            }
        }
        self.end().await;
    }

    /// Ends the server's cursor now. The driver does so too, at a time of its own.
    async fn end(self) {
        if self.id != 0 {
            let command = doc! {"killCursors": "$cmd.aggregate", "cursors": [self.id]};
            let killed = self.shared.db.run_command(command);
            let killed = async { killed.await.map_err(|error| errors::plain(&error)) };
            if let Err(error) = self.shared.answered(killed).await {
                debug!(%error, "a change stream is left to the server to end");
            }
        }
    }

    async fn read(&mut self) -> Result<ChangeBatch, StoreError> {
        let empty = self.waiting.is_empty() && self.read_on().await?;
        let shared = self.shared.clone();
        let mut steps = self.next_part();
        shared.found(self.complete(&mut steps)).await?;
        if std::mem::take(&mut self.listing_changed) {
            shared.answered(shared.refresh_catalog()).await?;
        }
        let changes = steps.into_iter().map(|step| step.change).collect();
        // Through mongos an empty reply may be one that came before a shard had read on.
        let looked = self.looked >= self.level.time;
        if empty && !looked {
            self.look().await?;
        }
        let quiet = empty && looked && !self.shared.sharded;
        Ok(ChangeBatch::new(changes, self.level, quiet))
    }

    /// Takes what the next reply tells. Returns whether that is nothing.
    async fn read_on(&mut self) -> Result<bool, StoreError> {
        let reply = self.reply().await?;
        let mut steps = Vec::new();
        let empty = self.take_events(&reply, &mut steps)?;
        if steps.iter().any(|step| step.open) {
            mapping::fill_from_images(&mut steps);
        }
        self.waiting = steps.into();
        self.advance(&reply);
        Ok(empty)
    }

    /// What is brought next: all that waits, or up to as many changes as are looked up at once. Those of
    /// one time stay together.
    fn next_part(&mut self) -> Vec<Step> {
        let (mut open, mut last) = (0, 0);
        let is_in = |step: &&Step| {
            let time = step.change.position.time;
            let fits = open < self.at_once || time == last;
            (open, last) = (open + usize::from(step.open), time);
            fits
        };
        let count = self.waiting.iter().take_while(is_in).count();
        let part: Vec<Step> = self.waiting.drain(..count).collect();
        let last = part.last().map(|step| step.change.position);
        let level = if self.waiting.is_empty() { Some(self.reached) } else { last };
        self.level = level.map_or(self.level, |level| self.level.max(level));
        part
    }

    /// The next reply that is asked for looks up to what a majority has by now.
    async fn look(&mut self) -> Result<(), StoreError> {
        self.looked = self.shared.answered(log::ends(&self.shared)).await?.committed;
        Ok(())
    }

    async fn reply(&mut self) -> Result<RawBatch, StoreError> {
        loop {
            match self.patience.wait(self.cursor.next()).await {
                Some(Some(reply)) => return reply.map_err(|error| errors::in_log(&error)),
                // The server has closed the stream, or says nothing.
                Some(None) | None => self.reopen().await?,
            }
        }
    }

    /// Goes on in another stream, from where all has been read: the last event may long have left a
    /// log that others fill. What is read again of its time is counted anew.
    async fn reopen(&mut self) -> Result<(), StoreError> {
        self.look().await?;
        self.after = self.after.max(self.reached);
        let time = self.after.time;
        self.began = time;
        self.cursor = self.patience.open(&self.shared, time).await?;
        self.at = LogPosition::before(time);
        Ok(())
    }

    /// Reads the events of a reply. Returns whether there were none.
    fn take_events(&mut self, reply: &RawBatch, steps: &mut Vec<Step>) -> Result<bool, StoreError> {
        let events = reply.doc_slices().map_err(|error| errors::plain(&error))?;
        let mut elements = Elements::of(events.as_bytes()).map_err(|_| unknown_event())?;
        let mut empty = true;
        while let Some(element) = elements.next().map_err(|_| unknown_event())? {
            empty = false;
            let event = Event::parse(element.value).map_err(|_| unknown_event())?;
            self.take_event(&event, steps);
        }
        Ok(empty)
    }

    fn take_event(&mut self, event: &Event<'_>, steps: &mut Vec<Step>) {
        self.tokens_hold &= event.token_time == Some(event.time);
        let consumed = if event.time == self.at.time { self.at.consumed + 1 } else { 1 };
        self.at = LogPosition { time: event.time, consumed };
        if self.at > self.after {
            self.map_event(event, steps);
        }
        if event.operation == "invalidate" {
            // The stream is dead; its database's log goes on.
            self.at = LogPosition::past(event.time);
            self.after = self.after.max(self.at);
        }
    }

    fn map_event(&mut self, event: &Event<'_>, steps: &mut Vec<Step>) {
        let mapped = mapping::steps(&self.shared, event, self.at);
        self.listing_changed |= mapped.listing_changed;
        steps.extend(mapped.steps);
    }

    /// Gives events that came without their document what was there after the last event of the part.
    /// That only the last event of a document gets; those before it are deferred to it.
    async fn complete(&mut self, steps: &mut [Step]) -> Result<(), StoreError> {
        let gone = match steps.iter().any(|step| step.open) {
            true => Some(self.look_up(steps).await?),
            false => None,
        };
        steps.iter_mut().for_each(|step| self.before_deferred.meet(step));
        if let Some(gone) = gone {
            deferred::defer(steps, gone);
        }
        Ok(())
    }

    /// Returns before which place the log tells of what was not found.
    async fn look_up(&mut self, steps: &mut [Step]) -> Result<LogPosition, StoreError> {
        let last: HashMap<Place, usize> =
            steps.iter().enumerate().filter_map(|(at, step)| Some((step.place()?, at))).collect();
        let wanted = last.iter().filter(|(_, at)| steps[**at].open);
        let wanted: Vec<Place> = wanted.map(|(place, _)| place.clone()).collect();
        let wanted_at = steps.last().map_or(0, |step| step.change.position.time);
        let mut seen = lookup::look_up(&self.shared, &wanted, wanted_at, self.looked_up).await?;
        self.looked_up = self.looked_up.max(seen.time);
        let bytes: usize = seen.documents.values().map(|found| found.json.len()).sum();
        if let Some(each) = bytes.checked_div(seen.documents.len()) {
            self.at_once = (LOOKED_UP_BYTES / each.max(1)).clamp(1, MOST_LOOKED_UP);
        }
        let mut all = true;
        for place in wanted {
            if let Some(found) = seen.documents.remove(&place) {
                let step = &mut steps[last[&place]];
                step.fill(found);
                step.change.as_of = (seen.time > wanted_at).then_some(seen.time);
            } else {
                all = false;
            }
        }
        // What is not there was deleted by then; or its collection was dropped by now: of that no read
        // as of any instant finds anything.
        let gone = if all { 0 } else { log::ends(&self.shared).await?.written };
        Ok(LogPosition::past(seen.time.max(gone)))
    }

    fn advance(&mut self, reply: &RawBatch) {
        self.reached = self.reached.max(self.at);
        let cursor = Elements::of(reply.as_raw_document().as_bytes())
            .ok()
            .and_then(|reply| reply.find("cursor"));
        let member = |name| cursor.as_ref().and_then(|cursor| cursor.document()?.find(name));
        self.id = member("id").and_then(|id: Element<'_>| id.integer()).unwrap_or_default();
        let mark = member("postBatchResumeToken")
            .and_then(|token: Element<'_>| token_time(token.document()?));
        if let (true, Some(mark)) = (self.tokens_hold, mark) {
            self.reached = self.reached.max(LogPosition::before(mark));
            if mark > self.began {
                self.looked = self.looked.max(mark);
            }
        }
    }
}

fn unknown_event() -> StoreError {
    StoreError::Failed("MongoDB's change stream sent what is no event".into())
}
