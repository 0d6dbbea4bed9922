//! The tables of the file, and what their keys and rows are.
//!
//! Keys and rows are tuples in redb's own encoding: the lengths of the texts but for the last
//! element (1, 3 or 5 bytes each), then the elements; integers little-endian, texts in UTF-8.
//! redb orders a tuple by its elements: integers as signed numbers, texts by their bytes.
//!
//! Types stand in keys by their names, so that no number has to stay what it was.

use bytes::Bytes;
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use crate::store::Lookup;

/// What is wrong with a file, where redb could still read it.
pub(super) type Fault = redb::Error;

/// The format of this module's tables, as [`META`] holds it.
pub(super) const FORMAT: u64 = 1;

/// Facts of the whole store: a name → a number. [`META_FORMAT`], [`META_EPOCH`],
/// [`META_LOG_BYTES`], [`META_OPEN_MS`].
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const META_FORMAT: &str = "format";
/// 32 bits, drawn when the file was made.
pub(super) const META_EPOCH: &str = "epoch";
/// The sum of [`log_row_bytes`] of all rows of [`LOG`].
pub(super) const META_LOG_BYTES: &str = "log-bytes";
/// For how long the store has been open in all, at its last commit, in ms.
pub(super) const META_OPEN_MS: &str = "open-ms";

/// The current resources: (type, id) → (version, lastUpdated in ms since 1970, compact JSON).
pub(super) const RESOURCES: TableDefinition<'_, (&str, &str), (u64, i64, &[u8])> =
    TableDefinition::new("resources");

/// The current resources by time: (type, lastUpdated in ms since 1970, id) → nothing. One row
/// for each row of [`RESOURCES`].
pub(super) const UPDATED: TableDefinition<'_, (&str, i64, &str), ()> =
    TableDefinition::new("updated");

/// Those that were deleted and not made again: (type, id) → (the deletion's version number, when
/// in ms since 1970). Kept for good, so that no version number is used twice.
pub(super) const DELETED: TableDefinition<'_, (&str, &str), (u64, i64)> =
    TableDefinition::new("deleted");

/// The changes in commit order: a sequence number from 1 without gaps → (committed in ms since
/// 1970, type, id, JSON before, JSON after). An empty JSON: there was none before, or it was
/// deleted. The rows of the newest commit always stay, so the sequence outlives every trim.
pub(super) const LOG: TableDefinition<'_, u64, LogRow> = TableDefinition::new("log");
pub(super) type LogRow = (i64, &'static str, &'static str, &'static [u8], &'static [u8]);

/// How old the log is: for how long the store had been open, in ms → the number of the last change
/// by then. Some dozens of rows.
pub(super) const AGES: TableDefinition<'_, u64, u64> = TableDefinition::new("ages");

/// About how many bytes a row takes in the log.
pub(super) fn log_row_bytes((_, ty, id, before, after): (i64, &str, &str, &[u8], &[u8])) -> u64 {
    (ty.len() + id.len() + before.len() + after.len() + 32) as u64
}

/// The first text after every key of this type.
pub(super) fn after_type(name: &str) -> String {
    format!("{name}\0")
}

/// The sequence numbers that the log holds: oldest and last. (1, 0) before the first change.
pub(super) fn log_span(log: &impl ReadableTable<u64, LogRow>) -> Result<(u64, u64), Fault> {
    let oldest = log.first()?.map_or(1, |(seq, _)| seq.value());
    let last = log.last()?.map_or(0, |(seq, _)| seq.value());
    Ok((oldest, last))
}

/// Makes the tables of a new file, or reads what an old one is: its format and epoch.
pub(super) fn prepare(db: &redb::Database, epoch: u32) -> Result<(u64, u32), Fault> {
    let txn = db.begin_write()?;
    let found = read_identity(&txn.open_table(META)?)?;
    match found {
        Some(found) => {
            txn.abort()?;
            Ok(found)
        }
        None => {
            make(&txn, epoch)?;
            txn.commit()?;
            Ok((FORMAT, epoch))
        }
    }
}

/// The format and the epoch of a file that has its tables.
pub(super) fn identity(db: &redb::Database) -> Result<(u64, u32), Fault> {
    let found = read_identity(&db.begin_read()?.open_table(META)?)?;
    found.ok_or_else(incomplete)
}

/// `None`: it has neither.
fn read_identity(
    meta: &impl ReadableTable<&'static str, u64>,
) -> Result<Option<(u64, u32)>, Fault> {
    let number = |name| Ok::<_, Fault>(meta.get(name)?.map(|row| row.value()));
    match (number(META_FORMAT)?, number(META_EPOCH)?) {
        (Some(format), Some(epoch)) => {
            let epoch = u32::try_from(epoch).map_err(|e| Fault::Corrupted(e.to_string()))?;
            Ok(Some((format, epoch)))
        }
        (None, None) => Ok(None),
        _ => Err(incomplete()),
    }
}

fn incomplete() -> Fault {
    Fault::Corrupted("its table 'meta' is incomplete".into())
}

fn make(txn: &redb::WriteTransaction, epoch: u32) -> Result<(), Fault> {
    let mut meta = txn.open_table(META)?;
    meta.insert(META_FORMAT, FORMAT)?;
    meta.insert(META_EPOCH, u64::from(epoch))?;
    meta.insert(META_LOG_BYTES, 0)?;
    txn.open_table(RESOURCES)?;
    txn.open_table(UPDATED)?;
    txn.open_table(DELETED)?;
    txn.open_table(LOG)?;
    txn.open_table(AGES)?;
    Ok(())
}

/// What is under an id, as of the transaction.
pub(super) fn lookup(txn: &ReadTransaction, ty: &str, id: &str) -> Result<Lookup, Fault> {
    if let Some(row) = txn.open_table(RESOURCES)?.get((ty, id))? {
        let (version, _, json) = row.value();
        return Ok(Lookup::Found { json: Bytes::copy_from_slice(json), version });
    }
    let tombstone = txn.open_table(DELETED)?.get((ty, id))?;
    Ok(tombstone.map_or(Lookup::Absent, |row| Lookup::Deleted { version: row.value().0 }))
}
