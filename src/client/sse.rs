//! Server-Sent Events, read: bytes in any chunks become [`Item`]s.
//!
//! By the WHATWG HTML standard, "Parsing an event stream" and "Interpreting an event stream".
//! Pure: no I/O, no clock. Beyond what a browser hands on, a block that moves the last event id
//! and carries no data is told as [`Item::Checkpoint`].

use std::{mem, time::Duration};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// An event, as dispatched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event type; `message` where the stream names none.
    pub event: String,
    /// The last event id as of this event. Empty: there is none.
    pub id: String,
    /// The data, its lines joined by LF.
    pub data: String,
}

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event.
    Event(Event),
    /// A block without data that moved the last event id to this.
    Checkpoint(String),
    /// How long to wait before connecting again.
    Retry(Duration),
}

/// A block of the stream is longer than the parser was told to take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {0} bytes")]
pub struct TooLong(pub usize);

/// The parser of one connection's body.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    /// The first line has not ended: a BOM may lead it.
    at_start: bool,
    /// The last line ended in CR: a LF that comes now belongs to it.
    after_cr: bool,
    line: Vec<u8>,
    event: String,
    data: String,
    id: String,
    /// The block being read has an `id` field.
    id_moved: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self::resuming(String::new())
    }
}

impl Parser {
    /// A parser of the stream that was asked to go on after this id: the id of events until the
    /// stream names another.
    #[must_use]
    pub fn resuming(last_event_id: String) -> Self {
        Self {
            limit: usize::MAX,
            at_start: true,
            after_cr: false,
            line: Vec::new(),
            event: String::new(),
            data: String::new(),
            id: last_event_id,
            id_moved: false,
        }
    }

    /// The same parser, taking at most this many bytes of line, and of data, per block.
    #[must_use]
    pub fn with_limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Reads on. A block that the stream's end cuts off is never told.
    ///
    /// # Errors
    /// A block is over the limit. The stream can't be read any further.
    pub fn feed(&mut self, mut bytes: &[u8], items: &mut Vec<Item>) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                return self.keep(bytes);
            };
            self.keep(&bytes[..end])?;
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.line_ended(items)?;
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.line.extend_from_slice(bytes);
        self.within(self.line.len())
    }

    fn within(&self, bytes: usize) -> Result<(), TooLong> {
        if bytes > self.limit { Err(TooLong(self.limit)) } else { Ok(()) }
    }

    /// A line may be decoded by itself: no line end is part of a longer UTF-8 sequence.
    fn line_ended(&mut self, items: &mut Vec<Item>) -> Result<(), TooLong> {
        let mut line = mem::take(&mut self.line);
        let start = if mem::take(&mut self.at_start) && line.starts_with(BOM) { 3 } else { 0 };
        if line.len() == start {
            self.block_ended(items);
        } else {
            self.field(&String::from_utf8_lossy(&line[start..]), items);
        }
        line.clear();
        self.line = line;
        self.within(self.data.len())
    }

    fn field(&mut self, line: &str, items: &mut Vec<Item>) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => {
                value.clone_into(&mut self.id);
                self.id_moved = true;
            }
            "retry" => items.extend(milliseconds(value).map(Item::Retry)),
            _ => {}
        }
    }

    fn block_ended(&mut self, items: &mut Vec<Item>) {
        let event = mem::take(&mut self.event);
        let mut data = mem::take(&mut self.data);
        let id_moved = mem::take(&mut self.id_moved);
        let id = self.id.clone();
        if data.pop().is_some() {
            let event = if event.is_empty() { "message".into() } else { event };
            items.push(Item::Event(Event { event, id, data }));
        } else if id_moved {
            items.push(Item::Checkpoint(id));
        }
    }
}

/// ASCII digits and nothing else.
fn milliseconds(value: &str) -> Option<Duration> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<Item> {
        let (mut parser, mut items) = (Parser::default(), Vec::new());
        for chunk in chunks {
            parser.feed(chunk, &mut items).expect("within the limit");
        }
        items
    }

    fn event(event: &str, id: &str, data: &str) -> Item {
        Item::Event(Event { event: event.into(), id: id.into(), data: data.into() })
    }

    #[test]
    fn reads_the_examples_of_the_standard() {
        let stocks = b"data: YHOO\ndata: +2\ndata: 10\n\n";
        assert_eq!(read(&[stocks]), [event("message", "", "YHOO\n+2\n10")]);

        let ids = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        let three = [
            event("message", "1", "first event"),
            event("message", "", "second event"),
            event("message", "", " third event"),
        ];
        assert_eq!(read(&[ids]), three);

        let empty = b"data\n\ndata\ndata\n\ndata:";
        assert_eq!(read(&[empty]), [event("message", "", ""), event("message", "", "\n")]);
    }

    #[test]
    fn each_field_by_its_rule() {
        let cases: [(&[u8], Vec<Item>); 13] = [
            (b"event: Patient\nid: 7\ndata: {}\n\n", vec![event("Patient", "7", "{}")]),
            (b"\xef\xbb\xbfdata: x\n\n", vec![event("message", "", "x")]),
            (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", vec![]),
            (b"\n\xef\xbb\xbfdata: x\n\n", vec![]),
            (b"id: a\0b\ndata: x\n\n", vec![event("message", "", "x")]),
            (b"id: 5\n\n", vec![Item::Checkpoint("5".into())]),
            (b"id: 5\nevent: x\n\ndata: y\n\n", {
                vec![Item::Checkpoint("5".into()), event("message", "5", "y")]
            }),
            (b"event: x\n\n", vec![]),
            (b"retry: 1500\n", vec![Item::Retry(Duration::from_millis(1500))]),
            (b"retry: 15s\nretry:-1\nretry:\nretry: +1\n", vec![]),
            (b"Data: x\n data: y\nunknown: z\n\n", vec![]),
            (b"data: a:b: c\n\n", vec![event("message", "", "a:b: c")]),
            (b"data: cut off\nid: 9\n", vec![]),
        ];
        for (bytes, items) in cases {
            assert_eq!(read(&[bytes]), items, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn line_ends_and_characters_may_be_split() {
        let two = [event("message", "", "a"), event("message", "", "b")];
        assert_eq!(read(&[b"data: a\r", b"\n\r", b"\ndata: b\r\r"]), two);
        assert_eq!(read(&[b"data: a\r\n\r", b"data: b\n\n"]), two);
        let euro = [event("message", "", "€")];
        assert_eq!(read(&[b"\xef\xbb", b"\xbfdata: \xe2", b"\x82", b"\xac\n\n"]), euro);
        let broken = [event("message", "", "\u{fffd}x\u{fffd}")];
        assert_eq!(read(&[b"data: \xe2\x82", b"x\xff\n\n"]), broken);
    }

    #[test]
    fn a_resumed_stream_keeps_the_id_until_told_another() {
        let mut items = Vec::new();
        let mut parser = Parser::resuming("old".into());
        parser.feed(b"data: x\n\n\nid: new\n\n", &mut items).expect("within");
        assert_eq!(items, [event("message", "old", "x"), Item::Checkpoint("new".into())]);
    }

    #[test]
    fn the_limit_holds_for_lines_and_for_data() {
        let over = |bytes: &[u8]| Parser::default().with_limit(8).feed(bytes, &mut Vec::new());
        assert_eq!(over(b"data: 12345"), Err(TooLong(8)));
        assert_eq!(over(b"data:123\ndata:123\ndata:123\n"), Err(TooLong(8)));
        assert_eq!(over(b"data:123\n\ndata:123\n\ndata:123\n\n"), Ok(()));
    }

    /// Bytes as likely to be a line end, a colon or a broken character as anything else.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let pieces: [&[u8]; 15] = [
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"data",
            b"data: ",
            b"id:",
            b"id: 7",
            b"event: E",
            b"retry: 20",
            b":",
            BOM,
            "ü€😀".as_bytes(),
            b"\xe2\x82",
            b"\0",
        ];
        let piece = prop::sample::select(pieces.to_vec());
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(bytes in stream(), sizes in prop::collection::vec(1usize..7, 1..50)) {
            let mut chunks = Vec::new();
            let (mut rest, mut sizes) = (&bytes[..], sizes.iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at((*sizes.next().expect("a cycle")).min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            prop_assert_eq!(read(&chunks), read(&[&bytes]));
        }

        #[test]
        fn what_is_written_is_read(
            events in prop::collection::vec(("[A-Za-z-]{1,9}", "[!-~]{1,20}", "[^\r\0]{0,40}"), 0..9),
            end in prop_oneof![Just("\n"), Just("\r"), Just("\r\n")],
        ) {
            let mut text = String::new();
            for (name, id, data) in &events {
                text += &format!("event: {name}{end}id: {id}{end}");
                data.split('\n').for_each(|line| text += &format!("data: {line}{end}"));
                text += end;
            }
            let told: Vec<_> = events.iter().map(|(name, id, data)| event(name, id, data)).collect();
            prop_assert_eq!(read(&[text.as_bytes()]), told);
        }
    }
}
