//! Writes: one transaction over everything that a caller commits together.
//!
//! Read what is there, decide, write whole documents, commit by majority; all of it again where
//! it collided with another writer. Whole documents, so that the log carries exact resources.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use jiff::Timestamp;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocumentBuf, doc},
    error::{Error, Result, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::ReadConcern,
};

use super::{Shared, collections, connect::durable, decode, errors, layout::DELETED, plan};
use crate::{
    fhir::ResourceType,
    store::{StoreError, Write, WriteError, Written},
};

/// How often a transaction is tried that collides with others.
const ATTEMPTS: u32 = 30;

/// How often a commit is repeated of which nobody knows whether it happened.
const COMMIT_ATTEMPTS: u32 = 5;

/// DuplicateKey, WriteConflict, SnapshotUnavailable, NoSuchTransaction: another writer, or a
/// collection that was made a moment ago.
const COLLISIONS: [i32; 4] = [11_000, 112, 246, 251];

/// Performs all writes, or none.
pub(super) async fn commit(
    shared: Arc<Shared>,
    writes: Vec<Write>,
) -> std::result::Result<Vec<Written>, WriteError> {
    collections::ensure(&shared, &writes).await?;
    for attempt in 0..ATTEMPTS {
        match try_commit(&shared, &writes).await {
            Ok(written) => return Ok(written),
            Err(Abort::Refused(refusal)) => return Err(refusal),
            Err(Abort::Driver(error)) if collided(&error) => {
                tokio::time::sleep(pause(attempt)).await;
            }
            Err(Abort::Driver(error)) => return Err(errors::plain(&error).into()),
        }
    }
    let why = "the write kept colliding with others, nothing was written";
    Err(StoreError::Unavailable(why.into()).into())
}

/// Why a transaction came to nothing.
enum Abort {
    Refused(WriteError),
    Driver(Error),
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

fn collided(error: &Error) -> bool {
    error.contains_label(TRANSIENT_TRANSACTION_ERROR)
        || errors::code(error).is_some_and(|code| COLLISIONS.contains(&code))
}

/// Grows with the attempts, and differs between writers by the clock's last digits.
fn pause(attempt: u32) -> Duration {
    let jitter = Timestamp::now().subsec_nanosecond().unsigned_abs() / 1000 % 8;
    Duration::from_millis(u64::from(attempt.min(12) * 4 + jitter))
}

async fn try_commit(shared: &Shared, writes: &[Write]) -> std::result::Result<Vec<Written>, Abort> {
    let mut session = shared.client.start_session().await?;
    session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(durable())
        .await?;
    match perform(shared, writes, &mut session).await {
        Ok(written) => finish(&mut session).await.map(|()| written),
        Err(abort) => {
            session.abort_transaction().await?;
            Err(abort)
        }
    }
}

/// Commits. A transaction without a write is committed too: what it read is then known to last.
async fn finish(session: &mut ClientSession) -> std::result::Result<(), Abort> {
    let mut attempt = 1;
    loop {
        match session.commit_transaction().await {
            Ok(()) => return Ok(()),
            Err(error) if !error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                return Err(error.into());
            }
            Err(error) if attempt == COMMIT_ATTEMPTS => {
                let why = format!("nobody knows whether it was written: {}", errors::text(&error));
                return Err(Abort::Refused(StoreError::Unavailable(why).into()));
            }
            Err(_) => tokio::time::sleep(pause(attempt)).await,
        }
        attempt += 1;
    }
}

async fn perform(
    shared: &Shared,
    writes: &[Write],
    session: &mut ClientSession,
) -> std::result::Result<Vec<Written>, Abort> {
    let mut there = plan::There::default();
    for (ty, ids) in ids_by_type(writes) {
        read_current(shared, ty, &ids, &mut there, session).await?;
    }
    read_tombstones(shared, writes, &mut there, session).await?;
    let (written, changes) = plan::plan(shared, writes, &there).map_err(Abort::Refused)?;
    apply(shared, changes, session).await?;
    Ok(written)
}

fn ids_by_type(writes: &[Write]) -> BTreeMap<ResourceType, Vec<&str>> {
    let mut ids = BTreeMap::<_, Vec<_>>::new();
    for write in writes {
        ids.entry(write.ty).or_default().push(write.id.as_str());
    }
    ids
}

async fn read_current(
    shared: &Shared,
    ty: ResourceType,
    ids: &[&str],
    there: &mut plan::There,
    session: &mut ClientSession,
) -> Result<()> {
    let keys: Vec<Bson> = ids.iter().flat_map(|id| decode::keys_of(id)).collect();
    let collection = shared.collection(ty);
    // In the order of keys a text comes before the ObjectId that reads the same.
    let find = collection.find(doc! {"_id": {"$in": keys}}).sort(doc! {"_id": 1});
    let mut found = find.session(&mut *session).await?;
    let mut documents = found.stream(session);
    while let Some(document) = documents.next().await {
        there.add(ty, document?);
    }
    Ok(())
}

async fn read_tombstones(
    shared: &Shared,
    writes: &[Write],
    there: &mut plan::There,
    session: &mut ClientSession,
) -> Result<()> {
    let absent = writes.iter().filter(|write| there.current(write).is_none());
    let names: Vec<String> = absent.map(|write| tombstone_id(write.ty, &write.id)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let tombstones = shared.db.collection::<Document>(DELETED);
    let find = tombstones.find(doc! {"_id": {"$in": names}});
    let mut found = find.session(&mut *session).await?;
    let mut documents = found.stream(session);
    while let Some(tombstone) = documents.next().await {
        let tombstone = tombstone?;
        if let Ok(name) = tombstone.get_str("_id") {
            there.tombstones.insert(name.to_owned(), tombstone_version(&tombstone));
        }
    }
    Ok(())
}

/// The key of the tombstone of a resource.
pub(super) fn tombstone_id(ty: ResourceType, id: &str) -> String {
    format!("{ty}/{id}")
}

/// The version that a deletion took.
pub(super) fn tombstone_version(tombstone: &Document) -> u64 {
    tombstone.get_i64("version").ok().and_then(|version| version.try_into().ok()).unwrap_or(0)
}

async fn apply(shared: &Shared, changes: plan::Changes, session: &mut ClientSession) -> Result<()> {
    for (ty, documents) in changes.inserts {
        shared.collection(ty).insert_many(documents).session(&mut *session).await?;
    }
    for (ty, replacements) in changes.replacements {
        let collection = shared.layout.collection_of(ty);
        replace(shared, &collection, replacements, false, session).await?;
    }
    for (ty, keys) in changes.deletes {
        let collection = shared.collection(ty);
        let delete = collection.delete_many(doc! {"_id": {"$in": keys}});
        delete.session(&mut *session).await?;
    }
    if !changes.revived.is_empty() {
        let tombstones = shared.db.collection::<Document>(DELETED);
        let delete = tombstones.delete_many(doc! {"_id": {"$in": changes.revived}});
        delete.session(&mut *session).await?;
    }
    if !changes.tombstones.is_empty() {
        replace(shared, DELETED, changes.tombstones, true, session).await?;
    }
    Ok(())
}

/// How much one command may carry, in bytes of documents, beside its first document.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;

/// Replaces whole documents, many with one command.
async fn replace(
    shared: &Shared,
    collection: &str,
    documents: Vec<(Bson, RawDocumentBuf)>,
    upsert: bool,
    session: &mut ClientSession,
) -> Result<()> {
    let mut documents = documents.into_iter().peekable();
    while documents.peek().is_some() {
        let mut updates = mongodb::bson::RawArrayBuf::new();
        let mut expected = 0;
        while let Some((key, document)) = documents.next_if(|(_, document)| {
            let bytes = updates.as_bytes().len() + document.as_bytes().len();
            expected == 0 || bytes < COMMAND_BYTES
        }) {
            updates.push(replacement(key, document, upsert)?);
            expected += 1;
        }
        let mut command = mongodb::bson::rawdoc! {"update": collection};
        command.append(mongodb::bson::cstr!("updates"), updates);
        let reply = shared.db.run_raw_command(command).session(&mut *session).await?;
        check(&reply, expected)?;
    }
    Ok(())
}

fn replacement(key: Bson, document: RawDocumentBuf, upsert: bool) -> Result<RawDocumentBuf> {
    let query = RawDocumentBuf::try_from(&doc! {"_id": key})?;
    Ok(mongodb::bson::rawdoc! {"q": query, "u": document, "upsert": upsert})
}

/// A command that is answered may still have failed for a document.
fn check(reply: &Document, expected: i32) -> Result<()> {
    let errors = reply.get_array("writeErrors").map_or(&[][..], Vec::as_slice);
    match (errors.first(), reply.get_i32("n")) {
        (None, Ok(n)) if n == expected => Ok(()),
        (Some(error), _) => Err(Error::custom(format!("a write failed: {error}"))),
        (None, n) => Err(Error::custom(format!("{n:?} of {expected} documents were written"))),
    }
}

/// What a transaction found there, by type and id.
pub(super) type ByResource<T> = HashMap<(ResourceType, Box<str>), T>;
