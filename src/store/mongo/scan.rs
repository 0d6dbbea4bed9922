//! One type of a snapshot, in key order, by two tasks: one has the server make the next reply,
//! the other turns the last one into lines of JSON.
//!
//! What a scan holds for a client that reads nothing more is bounded: a reply that waits, one
//! that is being encoded, and two batches.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, RawDocument, doc},
    raw_batch_cursor::{RawBatch, SessionRawBatchCursor},
};
use tokio::sync::mpsc;

use super::{
    Shared,
    catalog::Facts,
    encode, errors,
    head::Head,
    log,
    order::{Order, Way},
    route::Route,
    stretch::{Stretch, Within},
    unreadable,
};
use crate::store::{KeyRef, Scan, ScanBatch, ScanKey, StoreError, batch::Lines, detached};

/// How many bytes of documents make up a reply, about.
const REPLY_BYTES: usize = 512 << 10;
/// How many documents make up a stretch, at most.
const STRETCH: u32 = 20_000;
/// How many bytes of JSON make up a batch, about.
const BATCH_BYTES: usize = 64 << 10;

type Batches = mpsc::Sender<Result<ScanBatch, StoreError>>;
type Replies = mpsc::Sender<Result<Fetched, StoreError>>;

/// What the server said.
enum Fetched {
    /// Documents in this order.
    Reply(Order, RawBatch),
    /// There is nothing more up to this key.
    Reached(ScanKey),
}

/// Reads until the end of the type, an error, or until nobody listens.
///
/// A closed channel is the end of the type, so a defect must be told before it closes.
pub(super) async fn run(
    shared: Arc<Shared>,
    at: log::Instant,
    scan: Scan,
    facts: Facts,
    out: Batches,
) {
    let (replies, fetched) = mpsc::channel(1);
    let encoder = Encoder { shared: shared.clone(), scan: scan.clone(), out: out.clone() };
    tokio::spawn(async move {
        let to = replies.clone();
        let fetched = async move { fetch(&shared, at, &scan, facts, &to).await };
        if let Err(error) = detached(fetched).await {
            // Nobody listens any more: nobody needs to know.
            let _ = replies.send(Err(error)).await;
        }
    });
    let encoded = async move {
        encoder.run(fetched).await;
        Ok::<(), StoreError>(())
    };
    if let Err(broken) = detached(encoded).await {
        let _ = out.send(Err(broken)).await;
    }
}

async fn fetch(
    shared: &Shared,
    at: log::Instant,
    scan: &Scan,
    facts: Facts,
    out: &Replies,
) -> Result<(), StoreError> {
    if let Some(why) = facts.obstacle() {
        return Err(StoreError::Failed(format!("the collection of {} {why}", scan.ty)));
    }
    let mut session = shared.session_at(at.time).await?;
    let route = Route::choose(shared, scan, &mut session);
    let route = shared.found(route).await?;
    let way = Way::choose(shared, scan, route, &mut session);
    let way = shared.found(way).await?;
    let sizes = shared.answered(async { Ok(Sizes::of(shared, scan).await) }).await?;
    let life = match way.searches() {
        true => Some(shared.answered(async { Ok(shared.snapshot_life().await) }).await?),
        false => None,
    };
    let answers = Answers { shared, life };
    let Some(mut rest) = Within::rest_of(&way) else { return Ok(()) };
    let down = scan.along.is_down();
    loop {
        let next = match way.is_cut() {
            true => answers.wait(way.stretch(&rest, sizes.stretch, &mut session)).await?,
            false => None,
        };
        let within = rest.until(down, next.as_ref().map(|stretch| &stretch.next));
        let cursor = way.open(&within, sizes.reply, &mut session);
        let cursor = answers.wait(cursor).await?;
        let passed = pass_on(answers, cursor, way.order, &mut session, out).await?;
        let Some(Stretch { last, next }) = next.filter(|_| passed != Passed::Unwanted) else {
            return match passed {
                // As of a collection that was dropped.
                Passed::Nothing => log::settled(shared, at, || !out.is_closed()).await,
                Passed::Some | Passed::Unwanted => Ok(()),
            };
        };
        if let Some(key) = last
            && out.send(Ok(Fetched::Reached(key))).await.is_err()
        {
            return Ok(());
        }
        rest.set_begin(down, next);
    }
}

/// What the server says to a scan.
#[derive(Clone, Copy)]
struct Answers<'s> {
    shared: &'s Shared,
    /// It may have to search or sort, for as long as the snapshot lives.
    life: Option<Duration>,
}

impl Answers<'_> {
    async fn wait<T>(
        self,
        call: impl Future<Output = mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        let call = async { call.await.map_err(|error| errors::in_snapshot(&error)) };
        match self.life {
            None => self.shared.found(call).await,
            Some(life) => self.shared.found_in(life, call).await,
        }
    }
}

/// What a cursor gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    Some,
    Nothing,
    /// Nobody listens any more.
    Unwanted,
}

/// Passes on all that a cursor gives.
async fn pass_on(
    answers: Answers<'_>,
    mut cursor: SessionRawBatchCursor,
    order: Order,
    session: &mut ClientSession,
    out: &Replies,
) -> Result<Passed, StoreError> {
    let mut passed = Passed::Nothing;
    let mut replies = cursor.stream(session);
    // The place is waited for before the server is asked: one reply ahead, no more.
    while let Ok(place) = out.reserve().await {
        let next = async { replies.next().await.transpose() };
        let Some(reply) = answers.wait(next).await? else { return Ok(passed) };
        let is_empty = reply.doc_slices().is_ok_and(|documents| documents.is_empty());
        passed = if is_empty { passed } else { Passed::Some };
        place.send(Ok(Fetched::Reply(order, reply)));
    }
    Ok(Passed::Unwanted)
}

/// How many documents are asked for at a time, by what they weigh on the average.
struct Sizes {
    /// A reply is held as long as its client takes, and would else be up to 16 MiB.
    reply: u32,
    /// What is looked through without a word must be so in far less time than it is waited for.
    stretch: u32,
}

impl Sizes {
    async fn of(shared: &Shared, scan: &Scan) -> Self {
        let stats = doc! {"collStats": &*shared.layout.collection_of(scan.ty)};
        let stats = shared.db.run_command(stats).await.unwrap_or_default();
        let average = match stats.get("avgObjSize") {
            Some(Bson::Int32(bytes)) => i64::from(*bytes),
            Some(Bson::Int64(bytes)) => *bytes,
            Some(Bson::Double(bytes)) => *bytes as i64,
            // Who may not know gets small steps.
            _ => 16 << 10,
        };
        let average = usize::try_from(average).unwrap_or(1).max(1);
        let fitting =
            |bytes: usize, most| u32::try_from(bytes / average).unwrap_or(u32::MAX).clamp(1, most);
        Self {
            reply: fitting(REPLY_BYTES, shared.batch_size),
            stretch: fitting(shared.stretch_bytes, STRETCH),
        }
    }
}

/// Makes batches of replies.
struct Encoder {
    shared: Arc<Shared>,
    scan: Scan,
    out: Batches,
}

impl Encoder {
    async fn run(self, mut replies: mpsc::Receiver<Result<Fetched, StoreError>>) {
        while let Some(fetched) = replies.recv().await {
            let sent = match fetched {
                Ok(Fetched::Reply(order, reply)) => self.reply(order, &reply).await,
                Ok(Fetched::Reached(key)) => {
                    self.send(Ok(Lines::default().finish(Some(key)))).await
                }
                Err(error) => self.send(Err(error)).await,
            };
            if sent.is_none() {
                return;
            }
        }
    }

    async fn reply(&self, order: Order, reply: &RawBatch) -> Option<()> {
        let documents = match reply.doc_slices() {
            Ok(documents) => documents,
            Err(error) => return self.send(Err(errors::in_snapshot(&error))).await,
        };
        let mut lines = roomy();
        for element in documents {
            let Some(document) = element.ok().and_then(|element| element.as_document()) else {
                continue;
            };
            self.add(order, document, &mut lines);
            if lines.text.len() >= BATCH_BYTES {
                self.send(Ok(std::mem::replace(&mut lines, roomy()).finish(None))).await?;
            }
        }
        match lines.len() {
            0 => Some(()),
            _ => self.send(Ok(lines.finish(None))).await,
        }
    }

    fn add(&self, order: Order, document: &RawDocument, lines: &mut Lines) {
        let (scan, bytes) = (&self.scan, document.as_bytes());
        let Ok(head) = Head::of(bytes) else { return unreadable(scan.ty, "it is no BSON") };
        let Some(doc) = head.doc else {
            return unreadable(scan.ty, "its _id is neither a string nor an ObjectId");
        };
        let Some(key) = order.key(doc, head.updated_ms) else { return };
        let is_passed = |after: KeyRef<'_>| match scan.along.is_down() {
            true => key >= after,
            false => key <= after,
        };
        let passed = scan.after.as_ref().is_some_and(|after| is_passed(after.borrowed()));
        if passed || !scan.window.contains(head.updated_ms) {
            return;
        }
        match encode::resource(bytes, &head, scan.ty, &self.shared.layout, &mut lines.text) {
            Ok(()) => lines.end_line(key),
            Err(_) => unreadable(scan.ty, "it is no BSON"),
        }
    }

    /// `None`: nobody listens any more.
    async fn send(&self, batch: Result<ScanBatch, StoreError>) -> Option<()> {
        self.out.send(batch).await.ok()
    }
}

/// Room for a batch of common resources.
fn roomy() -> Lines {
    Lines::with_capacity(BATCH_BYTES + BATCH_BYTES / 16, BATCH_BYTES >> 10)
}
