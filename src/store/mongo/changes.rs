//! The log: one change stream over the whole database, read batch by batch in a task of its own.
//!
//! The cursor is a plain one over `$changeStream`, so nothing resumes behind our back: an error
//! ends the reader, and its user opens another at the position it has come to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use mongodb::{
    Database,
    bson::{Document, doc},
    options::RunCursorCommandOptions,
    raw_batch_cursor::{RawBatch, RawBatchCursor},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tracing::debug;

use super::{
    Shared, errors,
    event::{Event, token_time},
    log,
    lookup::{self, Place},
    mapping::{self, Step},
    silence::Patience,
    time,
    walk::{Element, Elements},
};
use crate::{
    position::LogPosition,
    store::{Before, ChangeBatch, ChangeKind, Changes, StoreError},
};

/// How long the server waits for something to happen before it answers "nothing".
const AWAIT: Duration = Duration::from_millis(250);

/// How long [`Changes::next`] waits before it answers "nothing".
const PATIENCE: Duration = Duration::from_secs(1);

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
            Err(_) => {
                let (changes, owing) = (Vec::new(), Vec::new());
                Ok(ChangeBatch { changes, level: self.level, quiet: false, owing })
            }
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
    level: LogPosition,
    /// Where the cursor began. Its first mark is that, and says nothing of what lies there.
    began: u64,
    /// An empty reply has looked up to here, and found nothing more.
    looked: u64,
    /// Resume tokens have shown no other time than their events.
    tokens_hold: bool,
    /// Documents that were read as of a later time than their event's.
    ahead: Ahead,
    owed: Owed,
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
            level: after,
            began: after.time,
            looked: ends.committed,
            tokens_hold: true,
            ahead: Ahead::default(),
            owed: Owed::default(),
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
        let reply = self.reply().await?;
        let mut steps = Vec::new();
        let empty = self.take_events(&reply, &mut steps)?;
        let shared = self.shared.clone();
        let owing = shared.found(self.complete(&mut steps)).await?;
        if std::mem::take(&mut self.listing_changed) {
            shared.answered(shared.refresh_catalog()).await?;
        }
        self.advance(&reply);
        let changes = steps.into_iter().map(|step| step.change).collect();
        // Through mongos an empty reply may be one that came before a shard had read on.
        let looked = self.looked >= self.level.time;
        if empty && !looked {
            self.look().await?;
        }
        let quiet = empty && looked && !self.shared.sharded;
        Ok(ChangeBatch { changes, level: self.level, quiet, owing })
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

    /// Goes on in another stream, counting anew what is read again.
    async fn reopen(&mut self) -> Result<(), StoreError> {
        self.look().await?;
        self.began = self.at.time;
        self.cursor = self.patience.open(&self.shared, self.at.time).await?;
        self.after = self.after.max(self.at);
        self.at = LogPosition::before(self.at.time);
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
        for mut step in mapped.steps {
            step.change.repeats = self.ahead.said(&step, event.time);
            steps.push(step);
        }
    }

    /// Gives events that came without their document what was before its next event, where that is
    /// known, or what was there after the last event of the reply. That only the last event of a
    /// document gets; those before it give way. Returns the places behind which that is owed.
    async fn complete(&mut self, steps: &mut Vec<Step>) -> Result<Owing, StoreError> {
        if steps.iter().any(|step| step.open) {
            mapping::fill_from_images(steps);
            self.look_up(steps).await?;
        }
        let (mut owing, mut since) = (Vec::new(), None);
        steps.retain_mut(|step| {
            let stays = self.owed.stays(step);
            if stays && !self.owed.is_empty() {
                since.get_or_insert(step.change.position);
            } else if let Some(since) = since.take_if(|_| stays) {
                owing.push((since, step.change.position));
            }
            stays
        });
        // What this batch does not bring was not found: a deletion follows.
        owing.extend(since.zip(steps.last().map(|step| step.change.position)));
        Ok(owing)
    }

    async fn look_up(&mut self, steps: &mut [Step]) -> Result<(), StoreError> {
        let last: HashMap<Place, usize> =
            steps.iter().enumerate().filter_map(|(at, step)| Some((step.place()?, at))).collect();
        let wanted = last.iter().filter(|(_, at)| steps[**at].open);
        let wanted: Vec<Place> = wanted.map(|(place, _)| place.clone()).collect();
        let (wanted_at, late) = (self.at.time, self.ahead.until);
        let mut seen = lookup::look_up(&self.shared, &wanted, wanted_at, late).await?;
        for place in wanted {
            // Nothing there: a delete follows.
            if let Some(found) = seen.documents.remove(&place) {
                let step = &mut steps[last[&place]];
                step.fill(found);
                step.change.as_of = (seen.time > wanted_at).then_some(seen.time);
                self.ahead.read(place, seen.time, step.change.position);
            }
        }
        Ok(())
    }

    fn advance(&mut self, reply: &RawBatch) {
        self.level = self.level.max(self.at);
        let cursor = Elements::of(reply.as_raw_document().as_bytes())
            .ok()
            .and_then(|reply| reply.find("cursor"));
        let member = |name| cursor.as_ref().and_then(|cursor| cursor.document()?.find(name));
        self.id = member("id").and_then(|id: Element<'_>| id.integer()).unwrap_or_default();
        let mark = member("postBatchResumeToken")
            .and_then(|token: Element<'_>| token_time(token.document()?));
        if let (true, Some(mark)) = (self.tokens_hold, mark) {
            self.level = self.level.max(LogPosition::before(mark));
            if mark > self.began {
                self.looked = self.looked.max(mark);
            }
        }
    }
}

/// See [`ChangeBatch::owing`].
type Owing = Vec<(LogPosition, LogPosition)>;

/// What was before events that gave way to a later one of their document.
#[derive(Default)]
struct Owed(HashMap<Place, Before>);

impl Owed {
    /// Whether an event has its document, or needs none. If not, the next of its document stands
    /// for it too: what was before that is then what was before this.
    fn stays(&mut self, step: &mut Step) -> bool {
        if let (true, Some(place)) = (step.open, step.place()) {
            self.0.entry(place).or_insert_with(|| step.change.kind.before().clone());
        } else if let ChangeKind::Replaced { ty } = step.change.kind {
            // Its documents went without an event each; what comes after is none of theirs.
            self.0.retain(|(of, _), _| *of != ty);
        } else if !self.0.is_empty()
            && let Some(before) = step.place().and_then(|place| self.0.remove(&place))
        {
            step.stand_after(before);
        }
        !step.open
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Documents that were read as of a time beyond their event's. What happened to them up to then is
/// no news to who has that event; who begins behind it needs each.
#[derive(Default)]
struct Ahead {
    documents: HashMap<Place, AsOf>,
    /// Nothing was read as of a later time.
    until: u64,
}

/// A document as it was at a time.
struct AsOf {
    time: u64,
    /// The last change that has brought it so.
    said: LogPosition,
}

impl Ahead {
    /// The change that has brought what an event of this time brings.
    fn said(&mut self, step: &Step, time: u64) -> Option<LogPosition> {
        if time > self.until {
            self.documents.clear();
        }
        let read = self.documents.get(&step.place()?)?;
        (time <= read.time).then_some(read.said)
    }

    /// A document was read as of a time, for the change at this position.
    fn read(&mut self, place: Place, time: u64, said: LogPosition) {
        self.until = self.until.max(time);
        match self.documents.get_mut(&place) {
            // Those who have the earlier change, and not this, know no more than that.
            Some(read) if said.time <= read.time => {
                read.said = if time >= read.time { said } else { read.said };
            }
            _ => drop(self.documents.insert(place, AsOf { time, said })),
        }
    }
}

fn unknown_event() -> StoreError {
    StoreError::Failed("MongoDB's change stream sent what is no event".into())
}

/// Opens the change stream from the first event at `time` on. The one pipeline for all readers:
/// a position counts events, so no stage may change their number.
pub(super) async fn open_cursor(shared: &Shared, time: u64) -> Result<RawBatchCursor, StoreError> {
    let opened = change_stream(&shared.db, shared.has_images, shared.batch_size, time).await;
    opened.map_err(|error| errors::in_log(&error))
}

/// The same without a store, for whoever asks whether it would open.
pub(crate) async fn change_stream(
    db: &Database,
    has_images: bool,
    batch_size: u32,
    time: u64,
) -> mongodb::error::Result<RawBatchCursor> {
    let mut stream = doc! {"startAtOperationTime": time::to_bson(time)};
    if has_images {
        stream.insert("fullDocument", "whenAvailable");
        stream.insert("fullDocumentBeforeChange", "whenAvailable");
    }
    let command = doc! {
        "aggregate": 1,
        "pipeline": [{"$changeStream": stream}, leave_out_the_large()],
        "cursor": {"batchSize": batch_size},
        "readConcern": {"level": "majority"},
    };
    let options = RunCursorCommandOptions::builder().batch_size(batch_size).max_time(AWAIT).build();
    db.run_cursor_command(command).with_options(options).batch().await
}

/// What nobody reads, and a before-image which with its after-image would not fit into an event.
fn leave_out_the_large() -> Document {
    const EVENT_BYTES: i32 = 16 * 1024 * 1024 - 4096;
    let size = |member: &str| doc! {"$ifNull": [{"$bsonSize": member}, 0]};
    let images = doc! {"$add": [size("$fullDocument"), size("$fullDocumentBeforeChange")]};
    doc! {"$set": {
        "updateDescription": "$$REMOVE",
        "fullDocumentBeforeChange": {"$cond": [
            {"$gt": [images, EVENT_BYTES]}, "$$REMOVE", "$fullDocumentBeforeChange",
        ]},
    }}
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        fhir::ResourceType,
        store::{Change, DocId},
    };

    fn step(open: bool, kind: ChangeKind) -> Step {
        let change = Change {
            position: LogPosition::default(),
            committed: Timestamp::UNIX_EPOCH,
            kind,
            repeats: None,
            as_of: None,
        };
        Step { change, open }
    }

    fn upsert(name: &str, open: bool, before: Before) -> Step {
        let ty = ResourceType::parse(name).unwrap();
        let (id, doc, json) = ("a".into(), DocId::Text("a".into()), bytes::Bytes::new());
        step(open, ChangeKind::Upsert { ty, id, doc, updated_ms: None, json, before })
    }

    /// An update whose document is not found, then the end of its collection: whoever has the id
    /// next is another, before which there was nothing.
    #[test]
    fn what_was_before_a_drop_is_not_before_what_comes_after() {
        let mut owed = Owed::default();
        for name in ["Patient", "Basic"] {
            assert!(!owed.stays(&mut upsert(name, true, Before::Unknown)));
        }
        let ty = ResourceType::parse("Patient").unwrap();
        assert!(owed.stays(&mut step(false, ChangeKind::Replaced { ty })));
        let mut anew = upsert("Patient", false, Before::Absent);
        assert!(owed.stays(&mut anew));
        assert!(matches!(anew.change.kind.before(), Before::Absent), "{anew:?}");
        let mut next = upsert("Basic", false, Before::Absent);
        assert!(owed.stays(&mut next));
        assert!(matches!(next.change.kind.before(), Before::Unknown), "{next:?}");
        assert!(owed.0.is_empty());
    }
}
