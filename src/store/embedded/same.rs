//! Whether a file is still the store's: found under its name, and a continuation of what was written.
//! A copy from yesterday knows nothing of what came since, and would give its numbers to other changes.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use redb::{Database, ReadableDatabase, ReadableTable};

use super::tables::{self, Fault, log_span};
use crate::position::StableHash;

/// A file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub(super) fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), number: file.ino() }
    }
}

/// The last change that is known to be in the log. The default: none is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastChange {
    seq: u64,
    /// Of what and when it was: another log has another change of that number.
    hash: u32,
}

impl LastChange {
    /// A row of the log, under its number.
    pub(super) fn of(seq: u64, (ms, ty, id, ..): (i64, &str, &str, &[u8], &[u8])) -> Self {
        let hash = StableHash::default().with(&ms.to_le_bytes());
        Self { seq, hash: hash.with(ty.as_bytes()).with(id.as_bytes()).finish() }
    }

    /// The last row of a file.
    pub(super) fn read(db: &Database) -> Result<Self, Fault> {
        let log = db.begin_read()?.open_table(tables::LOG)?;
        Ok(log.last()?.map_or_else(Self::default, |(seq, row)| Self::of(seq.value(), row.value())))
    }

    /// Whether the log of a file is this one's, as it is or later. Where it has been trimmed beyond
    /// this change, nobody goes on from there.
    pub(super) fn is_in(self, db: &Database) -> Result<bool, Fault> {
        let log = db.begin_read()?.open_table(tables::LOG)?;
        let (oldest, _) = log_span(&log)?;
        let found = log.get(self.seq)?.map(|row| Self::of(self.seq, row.value()));
        Ok(self.seq < oldest || found == Some(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(rows: &[(u64, i64)]) -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Database::create(folder.path().join("file")).expect("a file");
        tables::prepare(&db, 1).expect("tables");
        let txn = db.begin_write().expect("a transaction");
        for (seq, ms) in rows {
            let row: tables::LogRow = (*ms, "Basic", "1", b"", b"{}");
            txn.open_table(tables::LOG).expect("the log").insert(seq, row).expect("a row");
        }
        txn.commit().expect("a commit");
        (folder, db)
    }

    #[test]
    fn a_log_is_the_one_that_goes_on() {
        let (_known, db) = file(&[(1, 10), (2, 20)]);
        let known = LastChange::read(&db).expect("a change");
        for (is_it, rows) in [
            (true, &[(1, 10), (2, 20)][..]),
            (true, &[(2, 20), (3, 30)]),
            (true, &[(3, 30), (4, 40)]),
            (false, &[]),
            (false, &[(1, 10)]),
            (false, &[(1, 10), (2, 21), (3, 30)]),
        ] {
            let (_folder, db) = file(rows);
            assert_eq!(known.is_in(&db).expect("an answer"), is_it, "{rows:?}");
        }
        let (_folder, db) = file(&[]);
        let nothing = LastChange::read(&db).expect("no change");
        assert_eq!(nothing, LastChange::default());
        assert!(nothing.is_in(&db).expect("an answer"));
    }
}
