//! Writes: one transaction over everything that a caller commits together.
//!
//! Read what is there, decide, write whole documents, commit by majority; all of it again where
//! it collided with another writer. Whole documents, so that the log carries exact resources.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use jiff::Timestamp;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, cstr, doc, raw::CStr},
    error::{Error, Result, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{ReadConcern, ReadPreference, SelectionCriteria},
};

use super::{
    Shared, collections,
    connect::durable,
    decode, errors,
    layout::DELETED,
    plan,
    rules::{self, Refusal},
};
use crate::{
    fhir::ResourceType,
    store::{StoreError, Write, WriteError, Written},
};

/// How often a transaction is tried that collides with others.
const ATTEMPTS: u32 = 30;

/// After how many times the silence that is borne nothing is tried again: by then its client may
/// have given it up, and have written what came after it.
const LATE: u32 = 2;

/// How often a commit is repeated of which nobody knows whether it happened.
const COMMIT_ATTEMPTS: u32 = 5;

/// Performs all writes, or none.
///
/// # Errors
/// Why nothing was written; or [`StoreError::Unavailable`], that nobody knows whether it was.
pub(super) async fn commit(
    shared: &Shared,
    writes: Vec<Write>,
) -> std::result::Result<Vec<Written>, WriteError> {
    let silent = || {
        let why = "nobody knows whether it was written: MongoDB does not answer";
        Err(StoreError::Unavailable(why.into()).into())
    };
    // MongoDB ends a transaction by itself, a minute after it began or somewhat later.
    let in_time = shared.written(async { Ok(repeated(shared, &writes).await) });
    in_time.await.unwrap_or_else(|_| silent())
}

/// Tries until it does not collide.
async fn repeated(
    shared: &Shared,
    writes: &[Write],
) -> std::result::Result<Vec<Written>, WriteError> {
    let began = Instant::now();
    collections::ensure(shared, writes).await?;
    for attempt in 0..ATTEMPTS {
        match try_commit(shared, writes).await {
            Ok(written) => return Ok(written),
            Err(Abort::Refused(refusal)) => return Err(refusal),
            Err(Abort::Collided) if began.elapsed() > shared.silence * LATE => break,
            Err(Abort::Collided) => tokio::time::sleep(pause(attempt)).await,
        }
    }
    let why = "the write kept colliding with others, or was answered too late: nothing was written";
    Err(StoreError::Unavailable(why.into()).into())
}

/// Why a transaction came to nothing.
enum Abort {
    Refused(WriteError),
    /// Another writer came first: the same may go later.
    Collided,
}

impl Abort {
    fn of(refusal: Refusal, index: Option<usize>) -> Self {
        match refusal {
            Refusal::Collision => Self::Collided,
            Refusal::Rule(rule) => Self::Refused(WriteError::Rule { index, rule }),
        }
    }
}

impl From<StoreError> for Abort {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        if error.contains_label(TRANSIENT_TRANSACTION_ERROR) {
            return Self::Collided;
        }
        let reply = error.server_response().and_then(|reply| Document::try_from(reply).ok());
        let said = reply.unwrap_or_default();
        match errors::code(&error).and_then(|code| rules::refusal(code, &said)) {
            Some(refusal) => Self::of(refusal, None),
            None => errors::plain(&error).into(),
        }
    }
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
        // Whatever reads prefer.
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .await?;
    match perform(shared, writes, &mut session).await {
        Ok(written) => finish(shared, &mut session).await.map(|()| written),
        Err(abort) => {
            session.abort_transaction().await?;
            Err(abort)
        }
    }
}

/// Commits. A transaction without a write is committed too: what it read is then known to last.
async fn finish(shared: &Shared, session: &mut ClientSession) -> std::result::Result<(), Abort> {
    let (began, mut attempt) = (Instant::now(), 1);
    let is_late = |attempt| attempt == COMMIT_ATTEMPTS || began.elapsed() > shared.silence * LATE;
    loop {
        match session.commit_transaction().await {
            Ok(()) => return Ok(()),
            Err(error) if !error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                return Err(error.into());
            }
            Err(error) if is_late(attempt) => {
                let why = format!("nobody knows whether it was written: {}", errors::text(&error));
                return Err(StoreError::Unavailable(why).into());
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

/// What is deleted makes room, in unique indexes, for what is created with it.
async fn apply(
    shared: &Shared,
    changes: plan::Changes,
    session: &mut ClientSession,
) -> std::result::Result<(), Abort> {
    for (ty, keys) in changes.deletes {
        let collection = shared.collection(ty);
        let delete = collection.delete_many(doc! {"_id": {"$in": keys}});
        delete.session(&mut *session).await?;
    }
    for (ty, inserts) in changes.inserts {
        let collection = shared.layout.collection_of(ty);
        send(shared, INSERT, &collection, inserts, session).await?;
    }
    for (ty, replacements) in changes.replacements {
        let collection = shared.layout.collection_of(ty);
        send(shared, UPDATE, &collection, replacements, session).await?;
    }
    if !changes.revived.is_empty() {
        let tombstones = shared.db.collection::<Document>(DELETED);
        let delete = tombstones.delete_many(doc! {"_id": {"$in": changes.revived}});
        delete.session(&mut *session).await?;
    }
    send(shared, UPDATE, DELETED, changes.tombstones, session).await
}

/// A command that writes, and its member that holds the statements.
type Command = (&'static CStr, &'static CStr);

const INSERT: Command = (cstr!("insert"), cstr!("documents"));

const UPDATE: Command = (cstr!("update"), cstr!("updates"));

/// How much one command may carry, in bytes of documents, beside its first document.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;

/// Writes whole documents, many with one command.
async fn send(
    shared: &Shared,
    (name, list): Command,
    collection: &str,
    statements: Vec<plan::Statement>,
    session: &mut ClientSession,
) -> std::result::Result<(), Abort> {
    let mut statements = statements.into_iter().peekable();
    while statements.peek().is_some() {
        let (mut documents, mut writes) = (RawArrayBuf::new(), Vec::new());
        while let Some(statement) = statements.next_if(|statement| {
            let bytes = documents.as_bytes().len() + statement.document.as_bytes().len();
            writes.is_empty() || bytes < COMMAND_BYTES
        }) {
            documents.push(statement.document);
            writes.push(statement.write);
        }
        let mut command = RawDocumentBuf::new();
        command.append(name, collection);
        command.append(list, documents);
        let reply = shared.db.run_raw_command(command).session(&mut *session).await?;
        check(&reply, &writes)?;
    }
    Ok(())
}

/// A command that is answered may still have failed for a document.
fn check(reply: &Document, writes: &[usize]) -> std::result::Result<(), Abort> {
    let errors = reply.get_array("writeErrors").ok();
    if let Some(error) = errors.and_then(|errors| errors.first()?.as_document()) {
        return Err(not_written(error, writes));
    }
    let (written, expected) = (reply.get_i32("n").unwrap_or_default(), writes.len());
    if usize::try_from(written) == Ok(expected) {
        return Ok(());
    }
    let why = format!("MongoDB: {written} of {expected} documents were written");
    Err(StoreError::Failed(why).into())
}

/// Why a document of a command was not written, which is for one of the `writes`.
fn not_written(error: &Document, writes: &[usize]) -> Abort {
    let number = |name| error.get_i32(name).ok();
    let write = number("index").and_then(|at| writes.get(usize::try_from(at).ok()?));
    let code = number("code").unwrap_or_default();
    match rules::refusal(code, error) {
        Some(refusal) => Abort::of(refusal, write.copied()),
        None => errors::of_document(code).into(),
    }
}

/// What a transaction found there, by type and id.
pub(super) type ByResource<T> = HashMap<(ResourceType, Box<str>), T>;
