//! Positions: any text that is read is written again as it was; any position that is written is
//! read again as it was, and its text is one that a header carries.
#![no_main]

use arbitrary::Arbitrary;
use fhirtail::{
    position::{Epoch, LogPosition, Position, ScanPosition},
    store::{DocId, ScanKey},
};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Text(&'a str),
    Position { epoch: u32, time: u64, consumed: u32, members: Option<u32>, scan: Option<Scan<'a>> },
}

#[derive(Debug, Arbitrary)]
struct Scan<'a> {
    query: u32,
    /// The plan of a stream has at most 148 types; a text has room for 16 bits.
    type_index: u16,
    updated: Option<i64>,
    id: Id<'a>,
}

#[derive(Debug, Arbitrary)]
enum Id<'a> {
    Text(&'a str),
    Oid([u8; 12]),
}

impl Scan<'_> {
    fn position(&self) -> ScanPosition {
        let doc = match self.id {
            Id::Text(text) => DocId::Text(text.into()),
            Id::Oid(bytes) => DocId::Oid(bytes),
        };
        let key = match self.updated {
            Some(ms) => ScanKey::Updated(ms, doc),
            None => ScanKey::Id(doc),
        };
        ScanPosition { query: self.query, type_index: self.type_index.into(), key }
    }
}

fn read(text: &str) {
    let Ok(position) = text.parse::<Position>() else { return };
    assert_eq!(position.to_string(), text, "one position has one text");
}

fuzz_target!(|input: Input<'_>| {
    let position = match input {
        Input::Text(text) => return read(text),
        Input::Position { epoch, time, consumed, members, scan } => Position {
            epoch: Epoch(epoch),
            log: LogPosition { time, consumed },
            members,
            scan: scan.as_ref().map(Scan::position),
        },
    };
    let text = position.to_string();
    assert_eq!(text.parse().as_ref(), Ok(&position), "{text}");
    let carried = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
    assert!(text.bytes().all(carried), "{text}");
    // A neighbour of a good text is bad, or is a position of its own.
    for cut in [1, text.len() / 2, text.len() - 1] {
        read(&text[..cut]);
    }
});
