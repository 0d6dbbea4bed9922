//! The ends of the log: how new and how old a position can be.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::{
    bson::{Document, doc},
    error::Error,
};
use tracing::info;

use super::{Shared, changes, connect::SERVER_SELECTION, errors, time};
use crate::{position::LogPosition, store::StoreError};

/// Between two questions.
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(250);

/// An instant that is committed by majority, and the primary that named it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instant {
    pub(super) time: u64,
    /// In which term of a primary that was asked; mongos names none.
    term: Option<i64>,
}

/// The cluster time up to which everything is committed by majority.
pub(super) async fn commit_point(shared: &Shared) -> Result<Instant, StoreError> {
    shared.freshen_catalog().await?;
    let (reply, time) = both(shared).await?;
    Ok(Instant { time, term: term(&reply) })
}

/// Waits until a majority has all that is written by now, for as long as somebody `listens`.
///
/// A read as of an instant finds nothing of a collection as soon as its drop is written: who finds
/// nothing can only believe that once the drop, if there is one, is in the log for good. Where
/// there is another primary by then, what was seen of the former may be rolled back: expired.
pub(super) async fn settled(
    shared: &Shared,
    at: Instant,
    listens: impl Fn() -> bool,
) -> Result<(), StoreError> {
    if shared.sharded {
        return Ok(());
    }
    let (mut end, mut pause) = (None, SHORTEST);
    while listens() {
        let ask = async { hello(shared).await.map_err(|error| errors::plain(&error)) };
        let reply = shared.answered(ask).await?;
        if term(&reply) != at.term {
            break;
        }
        let end = *end.get_or_insert(written(&reply).ok_or_else(no_time)?);
        if committed(&reply, false).is_some_and(|time| time >= end) {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST.min(pause * 2);
    }
    Err(StoreError::SnapshotExpired)
}

/// A reply to `hello`, and up to where it says that everything is committed.
async fn both(shared: &Shared) -> Result<(Document, u64), StoreError> {
    let reply = known(shared.sharded, || hello(shared)).await;
    reply.map_err(|error| errors::plain(&error))?.ok_or_else(no_time)
}

/// Asks a primary until it knows up to where everything is committed: one that was just elected is
/// waited for, and one that has stepped down until there is another. `None`: for as long as a primary
/// is waited for there was none that knew.
pub(crate) async fn known<F>(
    sharded: bool,
    hello: impl Fn() -> F,
) -> Result<Option<(Document, u64)>, Error>
where
    F: Future<Output = Result<Document, Error>>,
{
    let deadline = tokio::time::Instant::now() + SERVER_SELECTION;
    let mut pause = SHORTEST;
    loop {
        let reply = hello().await?;
        if let Some(time) = committed(&reply, sharded) {
            return Ok(Some((reply, time)));
        }
        if tokio::time::Instant::now() > deadline {
            return Ok(None);
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST.min(pause * 2);
    }
}

/// The cluster time up to which everything is committed by majority, of a primary's reply to `hello`.
/// One that was just elected may not know yet of all that its predecessor had committed: it does once
/// a majority has a write of its own term, which it makes at once. And one that has stepped down says
/// nothing of what its successor has committed since.
fn committed(hello: &Document, sharded: bool) -> Option<u64> {
    let committed = majority(hello, sharded)?;
    let is_primary = hello.get_bool("isWritablePrimary").unwrap_or(false);
    let is_of_its_term = || Some(optime(hello, "majorityOpTime")?.get_i64("t").ok() == term(hello));
    (sharded || (is_primary && is_of_its_term()?)).then_some(committed)
}

/// The cluster time up to which the node of a reply to `hello` has seen all committed by majority.
pub(crate) fn majority(hello: &Document, sharded: bool) -> Option<u64> {
    match sharded {
        true => timestamp(Some(hello), "operationTime"),
        false => timestamp(optime(hello, "majorityOpTime"), "ts"),
    }
}

/// The two ends of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The cluster time of the last write, committed by majority or not.
    pub(super) written: u64,
    /// And of the last that is.
    pub(super) committed: u64,
}

/// Both ends, as the primary knows them.
pub(super) async fn ends(shared: &Shared) -> Result<Ends, StoreError> {
    let (reply, committed) = both(shared).await?;
    Ok(Ends { written: written(&reply).ok_or_else(no_time)?, committed })
}

/// The cluster time of the last write in a reply to `hello`.
pub(crate) fn written(hello: &Document) -> Option<u64> {
    let written = timestamp(optime(hello, "opTime"), "ts");
    written.or_else(|| timestamp(Some(hello), "operationTime"))
}

async fn hello(shared: &Shared) -> Result<Document, Error> {
    shared.db.run_command(doc! {"hello": 1}).await
}

fn optime<'r>(reply: &'r Document, name: &str) -> Option<&'r Document> {
    reply.get_document("lastWrite").ok()?.get_document(name).ok()
}

/// The term in which the node's last write was written.
fn term(hello: &Document) -> Option<i64> {
    optime(hello, "opTime")?.get_i64("t").ok()
}

fn timestamp(reply: Option<&Document>, name: &str) -> Option<u64> {
    reply?.get_timestamp(name).ok().map(time::from_bson)
}

/// No primary has named one, for as long as one is waited for.
fn no_time() -> StoreError {
    StoreError::Unavailable("no primary of MongoDB names its cluster time yet".into())
}

/// About `back` before the end, but no older than the log reaches.
pub(super) async fn recent(shared: &Shared, back: Duration) -> Result<LogPosition, StoreError> {
    let head = LogPosition::before(commit_point(shared).await?.time);
    let back = u32::try_from(back.as_secs()).unwrap_or(u32::MAX);
    let wanted =
        LogPosition::before(u64::from(time::seconds(head.time).saturating_sub(back)) << 32);
    match oldest(shared).await {
        Ok(Some(oldest)) => Ok(wanted.max(LogPosition::before(oldest)).min(head)),
        // The oplog may not be read, or can't be through mongos: try.
        _ => match changes::Reader::probe(shared, wanted).await {
            Ok(()) => Ok(wanted),
            Err(StoreError::PositionLost(_)) => Ok(head),
            Err(error) => Err(error),
        },
    }
}

/// When the oplog's first entry was written. `None`: that may not be read; said once.
pub(super) async fn oldest_instant(shared: &Shared) -> Result<Option<Timestamp>, StoreError> {
    let unknown = |why: &str| {
        shared.no_oplog.call_once(|| info!(why, "how old a position still works is not measured"));
        Ok(None)
    };
    match oldest(shared).await {
        Ok(Some(oldest)) => Ok(Some(time::instant(oldest))),
        Ok(None) => unknown("mongos shows no oplog"),
        Err(error) if errors::code(&error) == Some(UNAUTHORIZED) => {
            unknown("the login may not read the oplog: grant it the role 'read' on 'local'")
        }
        Err(error) => Err(errors::plain(&error)),
    }
}

/// MongoDB's code for a login without the right.
const UNAUTHORIZED: i32 = 13;

/// The cluster time of the oplog's first entry.
async fn oldest(shared: &Shared) -> Result<Option<u64>, Error> {
    if shared.sharded {
        return Ok(None);
    }
    let oplog = shared.client.database("local").collection::<Document>("oplog.rs");
    let first = oplog.find_one(doc! {}).sort(doc! {"$natural": 1}).projection(doc! {"ts": 1});
    Ok(timestamp(first.await?.as_ref(), "ts"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use mongodb::bson::Timestamp;

    use super::*;

    fn reply(is_primary: bool, [last, majority]: [(u32, i64); 2]) -> Document {
        let optime = |(time, term)| doc! {"ts": Timestamp { time, increment: 1 }, "t": term};
        let writes = doc! {"opTime": optime(last), "majorityOpTime": optime(majority)};
        doc! {"isWritablePrimary": is_primary, "lastWrite": writes}
    }

    /// Asks nodes that answer so, one after another, the last of them for ever.
    async fn asked(replies: &[Document]) -> (Option<u32>, usize) {
        let asked = Cell::new(0);
        let hello = async || {
            let at = asked.replace(asked.get() + 1).min(replies.len() - 1);
            Ok(replies[at].clone())
        };
        let known = known(false, hello).await.unwrap();
        (known.map(|(_, time)| time::seconds(time)), asked.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_primary_has_of_former_terms_is_not_all_that_was_committed() {
        let (new, knows) = (reply(true, [(9, 2), (7, 1)]), reply(true, [(9, 2), (8, 2)]));
        assert_eq!(asked(&[new.clone(), new.clone(), knows]).await, (Some(8), 3));
        let start = tokio::time::Instant::now();
        assert_eq!(asked(&[new]).await.0, None);
        assert!(start.elapsed() >= SERVER_SELECTION);
        assert_eq!(asked(&[doc! {"isWritablePrimary": true, "lastWrite": {}}]).await.0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_former_primary_has_is_not_all_that_was_committed() {
        let former = reply(false, [(9, 1), (9, 1)]);
        let knows = reply(true, [(12, 2), (12, 2)]);
        assert_eq!(asked(&[former, knows]).await, (Some(12), 2));
    }
}
