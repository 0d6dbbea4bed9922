//! The one change stream that is opened for all readers, and for who asks whether it would open.

use std::time::Duration;

use mongodb::{
    Database,
    bson::{Document, doc},
    options::RunCursorCommandOptions,
    raw_batch_cursor::RawBatchCursor,
};

use super::{Shared, errors, time};
use crate::store::StoreError;

/// How long the server waits for something to happen before it answers "nothing".
const AWAIT: Duration = Duration::from_millis(250);

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
