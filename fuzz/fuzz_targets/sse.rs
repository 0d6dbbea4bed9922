//! The framing: what is written is what a browser reads, and our own client reads as a browser
//! does, in whatever pieces it comes.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::BytesMut;
use fhirtail::{
    client::sse::{Event, Item, Parser},
    fhir::ResourceType,
    frame::{self, Control, Format},
};
use fhirtail_fuzz::{
    json::quoted,
    whatwg::{self, Said},
};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    stream: Stream<'a>,
    /// Where the stream is parted, on its way to the client.
    pieces: Vec<u8>,
    last_event_id: &'a str,
}

#[derive(Debug, Arbitrary)]
enum Stream<'a> {
    Bytes(&'a [u8]),
    Frames(Vec<Frame<'a>>),
}

#[derive(Debug, Arbitrary)]
enum Frame<'a> {
    Resource { ty: u8, id: u64, text: &'a str },
    Scanned { ty: u8, id: u64, text: &'a str },
    Deleted { ty: u8, id: u64 },
    Control { kind: u8, id: Option<u64>, text: &'a str },
    Checkpoint { id: u64 },
    Outcome { text: &'a str },
    Retry { ms: u64 },
    KeepAlive,
}

/// Positions have letters, digits and these; see the target `position`.
fn position(id: u64) -> String {
    format!("1l~{id:x}.-_~")
}

fn json(text: &str) -> String {
    format!("{{\"x\":{}}}", quoted(text))
}

fn type_of(ty: u8) -> ResourceType {
    let types: Vec<_> = ResourceType::all().collect();
    types[usize::from(ty) % types.len()]
}

impl Frame<'_> {
    /// Writes the frame, and what a browser must make of it. `last` is the last event ID.
    fn write(&self, out: &mut BytesMut, last: &mut String) -> Option<Said> {
        let sse = Format::Sse;
        let mut event = |name: &str, id: Option<String>, data: String| {
            if let Some(id) = id {
                *last = id;
            }
            Some(Said::Event { event: name.into(), id: last.clone(), data })
        };
        match *self {
            Self::Resource { ty, id, text } => {
                let (ty, id, json) = (type_of(ty), position(id), json(text));
                sse.resource(out, ty, &id, json.as_bytes());
                event(ty.name(), Some(id), json)
            }
            Self::Scanned { ty, id, text } => {
                use std::fmt::Write;
                let (ty, id, json) = (type_of(ty), position(id), json(text));
                let (stem, key) = id.split_at(3);
                let line = format!("{json}\n");
                let write_key = |out: &mut BytesMut| out.write_str(key);
                sse.scanned(out, &Format::opening(ty, stem), write_key, line.as_bytes());
                event(ty.name(), Some(id), json)
            }
            Self::Deleted { ty, id } => {
                let (ty, id) = (type_of(ty), position(id));
                sse.deleted(out, ty, "a-1.b", &id);
                let data = format!(
                    "{{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"entry\":\
                     [{{\"request\":{{\"method\":\"DELETE\",\"url\":\"{ty}/a-1.b\"}}}}]}}"
                );
                event("deleted", Some(id), data)
            }
            Self::Control { kind, id, text } => {
                let id = id.map(position).unwrap_or_default();
                let (control, name) = [
                    (Control::CaughtUp, "caught-up"),
                    (Control::FellBehind, "fell-behind"),
                    (Control::Reset, "reset"),
                ][usize::from(kind) % 3];
                sse.control(out, control, &id, json(text).as_bytes());
                event(name, Some(id), json(text))
            }
            Self::Checkpoint { id } => {
                sse.checkpoint(out, &position(id));
                *last = position(id);
                Some(Said::Id(position(id)))
            }
            Self::Outcome { text } => {
                out.extend_from_slice(&frame::outcome(json(text).as_bytes()));
                event("OperationOutcome", None, json(text))
            }
            Self::Retry { ms } => {
                out.extend_from_slice(&frame::retry(ms));
                Some(Said::Retry(ms))
            }
            Self::KeepAlive => {
                out.extend_from_slice(&frame::KEEP_ALIVE);
                None
            }
        }
    }
}

fn item(said: Said) -> Item {
    match said {
        Said::Event { event, id, data } => Item::Event(Event { event, id, data }),
        Said::Id(id) => Item::Checkpoint(id),
        Said::Retry(ms) => Item::Retry(Duration::from_millis(ms)),
    }
}

fn client(mut bytes: &[u8], pieces: &[u8], last_event_id: &str) -> Vec<Item> {
    let mut parser = Parser::resuming(last_event_id.to_owned());
    let mut items = Vec::new();
    for piece in pieces {
        let (now, later) = bytes.split_at(usize::from(*piece).min(bytes.len()));
        parser.feed(now, &mut items).expect("no limit was set");
        bytes = later;
    }
    parser.feed(bytes, &mut items).expect("no limit was set");
    items
}

fuzz_target!(|input: Input<'_>| {
    let mut out = BytesMut::new();
    let bytes = match &input.stream {
        Stream::Bytes(bytes) => bytes,
        Stream::Frames(frames) => {
            let mut last = input.last_event_id.to_owned();
            let meant: Vec<_> =
                frames.iter().filter_map(|f| f.write(&mut out, &mut last)).collect();
            assert_eq!(whatwg::read(&out, input.last_event_id), meant);
            &out[..]
        }
    };
    let said = whatwg::read(bytes, input.last_event_id).into_iter().map(item);
    assert_eq!(client(bytes, &input.pieces, input.last_event_id), said.collect::<Vec<_>>());
});
