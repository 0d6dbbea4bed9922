//! What the driver's errors mean to whoever reads, by the server's error code.

use mongodb::error::{Error, ErrorKind, WriteFailure};

use crate::store::StoreError;

/// SnapshotTooOld, SnapshotUnavailable: nothing can be read as of that instant any more.
const INSTANT_GONE: [i32; 2] = [239, 246];

/// CursorNotFound, CursorKilled, QueryPlanKilled: what is read is gone, its instant need not be.
const CURSOR_GONE: [i32; 3] = [43, 237, 175];

/// ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken, its successor,
/// CappedPositionLost.
const POSITION_LOST: [i32; 5] = [286, 280, 260, 326, 136];

/// The node is no primary, shuts down, recovers, is cut off, overloaded, or was too slow; or the
/// cursor went with it. The same call may succeed later.
const UNAVAILABLE: [i32; 31] = [
    6, 7, 24, 43, 50, 64, 89, 91, 112, 133, 134, 175, 189, 202, 234, 237, 246, 262, 317, 9001,
    10058, 10107, 11600, 11602, 13435, 13436, 11601, 70, 222, 251,
    // TransactionTooLargeForCache: other large writes take the room of this one at the moment.
    388,
];

/// BadValue, IndexNotFound: what a hint gets at an index that is not there, or that is listed and
/// still built.
const BAD_HINT: [i32; 2] = [2, 27];

/// The server's code, where it gave one.
pub(crate) fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(write)) => Some(write.code),
        ErrorKind::InsertMany(many) => {
            let first = many.write_errors.as_ref().and_then(|errors| errors.first());
            let concern = many.write_concern_error.as_ref().map(|error| error.code);
            first.map(|error| error.code).or(concern)
        }
        _ => None,
    }
}

/// Whether the index that a command names is none to go along.
pub(super) fn is_bad_hint(error: &Error) -> bool {
    code(error).is_some_and(|code| BAD_HINT.contains(&code))
}

/// What went wrong in one line: without the reply that the driver's own text appends, and
/// without the command or key that a server's message repeats, which may hold a resource.
pub(crate) fn text(error: &Error) -> String {
    let text = error.kind.to_string().replace('\n', " ");
    match &*error.kind {
        ErrorKind::ServerSelection { .. } => no_server(&text),
        ErrorKind::Command(command) => told(&command.code_name, command.code, &command.message),
        ErrorKind::Write(WriteFailure::WriteError(write)) => {
            told(write.code_name.as_deref().unwrap_or("WriteError"), write.code, &write.message)
        }
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
            told(&concern.code_name, concern.code, &concern.message)
        }
        // Their own texts repeat what could not be written, or be read.
        ErrorKind::InsertMany(_) => no_document(code(error).unwrap_or_default()),
        ErrorKind::Bson(unreadable) => unreadable.kind.to_string().replace('\n', " "),
        _ => text,
    }
}

fn told(name: &str, code: i32, message: &str) -> String {
    // "BSONObj size: … is invalid. … First element: _id: …"
    let message = message.split(" First element: ").next().unwrap_or_default();
    let message = message.split('{').next().unwrap_or_default().replace('\n', " ");
    let name = if name.is_empty() { "error" } else { name };
    format!("{name} ({code}): {}", message.trim_end_matches([' ', ':']))
}

fn no_document(code: i32) -> String {
    format!("a document was not written (error {code})")
}

/// The driver lists all that it knows of all servers; one cause is enough.
fn no_server(listing: &str) -> String {
    let first =
        listing.split_once("Error: Kind: ").and_then(|(_, rest)| rest.split_once(", labels"));
    match first {
        Some((cause, _)) => cause.to_owned(),
        None if listing.contains("RsGhost") => {
            "it is to be in a replica set that was never initiated: run `rs.initiate()` once".into()
        }
        None if listing.contains("RsSecondary") => "the replica set has no primary".into(),
        None => "no server fits the connection string".into(),
    }
}

/// An error of a read within a snapshot. Whoever reads on does so in a newer one.
pub(super) fn in_snapshot(error: &Error) -> StoreError {
    match code(error) {
        Some(code) if CURSOR_GONE.contains(&code) => StoreError::SnapshotExpired,
        _ => at_instant(error),
    }
}

/// An error of a read that is wanted as of that instant, and of another only if it is gone.
pub(super) fn at_instant(error: &Error) -> StoreError {
    match code(error) {
        Some(code) if INSTANT_GONE.contains(&code) => StoreError::SnapshotExpired,
        _ => plain(error),
    }
}

/// An error of the change stream.
pub(super) fn in_log(error: &Error) -> StoreError {
    match code(error) {
        Some(code) if POSITION_LOST.contains(&code) => {
            StoreError::PositionLost(format!("the log no longer holds it: {}", text(error)))
        }
        _ => plain(error),
    }
}

/// An error of anything else.
pub(super) fn plain(error: &Error) -> StoreError {
    let network = matches!(
        &*error.kind,
        ErrorKind::Io(_)
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::DnsResolve { .. }
            | ErrorKind::Shutdown
    );
    if network || code(error).is_some_and(|code| UNAVAILABLE.contains(&code)) {
        StoreError::Unavailable(text(error))
    } else {
        StoreError::Failed(format!("MongoDB: {}", text(error)))
    }
}

/// A document was not written, for no reason that is known here. What the server says of it would
/// repeat its values.
pub(super) fn of_document(code: i32) -> StoreError {
    let why = format!("MongoDB: {}", no_document(code));
    match UNAVAILABLE.contains(&code) {
        true => StoreError::Unavailable(why),
        false => StoreError::Failed(why),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::{
        bson::{Document, deserialize_from_document, doc},
        error::{CommandError, InsertManyError, WriteConcernError},
    };

    use super::*;

    fn said<T: serde::de::DeserializeOwned>(error: Document, kind: fn(T) -> ErrorKind) -> String {
        text(&kind(deserialize_from_document(error).expect("an error")).into())
    }

    #[test]
    fn no_text_repeats_a_document() {
        let error = |message| doc! {"code": 7, "codeName": "Name", "errmsg": message};
        let large = r#"BSONObj size: 9 (0x9) is invalid. First element: _id: "secret""#;
        let told = "Name (7): BSONObj size: 9 (0x9) is invalid.";
        assert_eq!(said::<CommandError>(error(large), ErrorKind::Command), told);
        let concern = |error| ErrorKind::Write(WriteFailure::WriteConcernError(error));
        let mut waited = error("waiting timed out: { w: 3 }");
        waited.insert("errInfo", doc! {"a": "secret"});
        assert_eq!(said::<WriteConcernError>(waited, concern), "Name (7): waiting timed out");
        let refused =
            doc! {"index": 0, "code": 121, "errInfo": {"a": "secret"}, "errmsg": "secret"};
        let refused = doc! {"writeErrors": [refused]};
        let told = "a document was not written (error 121)";
        assert_eq!(said::<InsertManyError>(refused, ErrorKind::InsertMany), told);
        type Numbers = std::collections::HashMap<String, u8>;
        let unread = deserialize_from_document::<Numbers>(doc! {"a": "secret"});
        let told = text(&ErrorKind::Bson(unread.expect_err("no number")).into());
        assert!(!told.contains("secret"), "{told}");
    }
}
