//! The embedded store's own log, read out of the file by the words of its documentation.

use std::path::Path;

use fhirtail::position::LogPosition;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::journal::{Commit, Journal, What};

/// When, type, id, JSON before, JSON after.
type Row = (i64, &'static str, &'static str, &'static [u8], &'static [u8]);
const LOG: TableDefinition<'_, u64, Row> = TableDefinition::new("log");

/// Reads all that was written since the store was made; nobody has it open.
pub fn read(directory: &Path) -> Journal {
    let db = Database::open(directory.join("fhirtail.redb")).expect("the file");
    let log = db.begin_read().expect("a read").open_table(LOG).expect("the log");
    let mut journal = Journal::default();
    for (row, number) in log.iter().expect("rows").zip(1..) {
        let (at, row) = row.expect("a row");
        assert_eq!(at.value(), number, "the log has a gap");
        let (_, ty, id, _, after) = row.value();
        let what = match after {
            [] => What::Gone,
            json => What::Is(serde_json::from_slice(json).expect("JSON")),
        };
        let at = LogPosition { time: number, consumed: 1 };
        journal.push(Commit { at, url: format!("{ty}/{id}"), what, exact: true });
    }
    journal
}
