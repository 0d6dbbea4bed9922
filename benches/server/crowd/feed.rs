//! The bytes of an answer → its events: HTTP/1.1 head, chunks where it is chunked, lines, events.

use std::io::{BufRead, Write};

use flate2::write::GzDecoder;

use crate::seed::{self, MARK};

/// What an event is to the crowd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Resource,
    CaughtUp,
    FellBehind,
    Reset,
    /// The server says that it failed.
    Outcome,
}

/// What the feed has found.
pub(super) enum Found<'f> {
    /// The answer's head; a stream that is granted.
    Granted,
    /// An event, with the sequence number and stamp of a change of ours, and its id.
    Event { kind: Kind, mark: Option<(u32, u64)>, id: &'f [u8] },
}

/// Where in the answer the next byte belongs.
#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    Head,
    /// The body as it is.
    Plain,
    ChunkSize(usize),
    Chunk(usize),
    /// The line break after a chunk.
    ChunkEnd(usize),
    End,
}

/// One answer, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Feed {
    place: Place,
    /// The head, or a line, that is not whole yet.
    part: Vec<u8>,
    event: Event,
    /// Of a body in gzip, what is not text yet.
    gzip: Option<GzDecoder<Vec<u8>>>,
}

impl Feed {
    /// Whether the answer is at its end.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.place, Place::End)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The answer is no event stream: its head, or what can't be read.
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        found: &mut impl FnMut(Found<'_>),
    ) -> Result<(), String> {
        while let Some(&first) = bytes.first() {
            let used = match self.place {
                Place::Head => {
                    self.part.push(first);
                    if self.part.ends_with(b"\r\n\r\n") {
                        self.head()?;
                        found(Found::Granted);
                    }
                    1
                }
                Place::Plain => {
                    self.body(bytes, found)?;
                    bytes.len()
                }
                Place::ChunkSize(size) => {
                    self.chunk_size(size, first)?;
                    1
                }
                Place::Chunk(left) => {
                    let here = left.min(bytes.len());
                    self.body(&bytes[..here], found)?;
                    let left = left - here;
                    self.place = if left == 0 { Place::ChunkEnd(2) } else { Place::Chunk(left) };
                    here
                }
                Place::ChunkEnd(left) => {
                    let here = left.min(bytes.len());
                    let left = left - here;
                    let next = Place::ChunkSize(0);
                    self.place = if left == 0 { next } else { Place::ChunkEnd(left) };
                    here
                }
                Place::End => bytes.len(),
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    fn head(&mut self) -> Result<(), String> {
        let head = String::from_utf8_lossy(&self.part).into_owned();
        let lower = head.to_ascii_lowercase();
        if !lower.starts_with("http/1.1 200") || !lower.contains("text/event-stream") {
            return Err(head);
        }
        let chunked = lower.contains("transfer-encoding: chunked");
        self.place = if chunked { Place::ChunkSize(0) } else { Place::Plain };
        let gzip = lower.contains("content-encoding: gzip");
        self.gzip = gzip.then(|| GzDecoder::new(Vec::new()));
        self.part.clear();
        Ok(())
    }

    fn chunk_size(&mut self, size: usize, byte: u8) -> Result<(), String> {
        self.place = match (byte, char::from(byte).to_digit(16)) {
            (_, Some(digit)) => Place::ChunkSize(size * 16 + digit as usize),
            (b'\r', _) => Place::ChunkSize(size),
            (b'\n', _) if size == 0 => Place::End,
            (b'\n', _) => Place::Chunk(size),
            _ => return Err(format!("no size of a chunk: {byte}")),
        };
        Ok(())
    }

    fn body(&mut self, bytes: &[u8], found: &mut impl FnMut(Found<'_>)) -> Result<(), String> {
        let Some(gzip) = &mut self.gzip else {
            self.text(bytes, found);
            return Ok(());
        };
        gzip.write_all(bytes).and_then(|()| gzip.flush()).map_err(|e| e.to_string())?;
        let text = std::mem::take(gzip.get_mut());
        self.text(&text, found);
        Ok(())
    }

    fn text(&mut self, mut bytes: &[u8], found: &mut impl FnMut(Found<'_>)) {
        while let Some((line, rest)) = split_line(bytes) {
            if self.part.is_empty() {
                self.event.line(line, found);
            } else {
                self.part.extend_from_slice(line);
                self.event.line(&self.part, found);
                self.part.clear();
            }
            bytes = rest;
        }
        self.part.extend_from_slice(bytes);
    }
}

/// The first line without its end, and what follows; `None`: no line is whole.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // The standard library's search for one byte is fast here, and nowhere else.
    let used = (&mut &*bytes).skip_until(b'\n').unwrap_or(0);
    let (line, rest) = bytes.split_at(used);
    line.strip_suffix(b"\n").map(|line| (line, rest))
}

/// An event as far as its lines have come.
#[derive(Debug, Default)]
struct Event {
    kind: Kind,
    has_data: bool,
    mark: Option<(u32, u64)>,
    id: Vec<u8>,
    /// Where the last mark was found: likely the next one's place.
    hint: usize,
}

impl Event {
    fn line(&mut self, line: &[u8], found: &mut impl FnMut(Found<'_>)) {
        if let Some(data) = line.strip_prefix(b"data: ") {
            self.has_data = true;
            self.mark = self.find_mark(data);
        } else if let Some(id) = line.strip_prefix(b"id: ") {
            self.id.clear();
            self.id.extend_from_slice(id);
        } else if let Some(kind) = line.strip_prefix(b"event: ") {
            self.kind = match kind {
                b"caught-up" => Kind::CaughtUp,
                b"fell-behind" => Kind::FellBehind,
                b"reset" => Kind::Reset,
                b"OperationOutcome" => Kind::Outcome,
                _ => Kind::Resource,
            };
        } else if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                found(Found::Event { kind: self.kind, mark: self.mark, id: &self.id });
            }
            self.kind = Kind::Resource;
            self.mark = None;
        }
    }

    fn find_mark(&mut self, data: &[u8]) -> Option<(u32, u64)> {
        if !data.get(self.hint..).is_some_and(|data| data.starts_with(MARK)) {
            self.hint = data.windows(MARK.len()).position(|window| window == MARK)?;
        }
        seed::mark(&data[self.hint + MARK.len()..])
    }
}
