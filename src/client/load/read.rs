//! From files to writes: opened, unzipped, split into texts. Blocking, on a thread of its own.
//!
//! NDJSON goes line by line and is never held whole; a file that is one JSON document is.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::read::MultiGzDecoder;
use serde::de::IgnoredAny;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc::Sender},
};

use super::{
    files::{Kind, Source, kind},
    unpack::unpack,
};
use crate::store::Write;

/// The longest line of NDJSON: above any resource that a store can hold.
const MAX_LINE: u64 = 64 << 20;

/// How many bytes of texts are read ahead, and what is longer by itself.
const AHEAD_BYTES: u32 = 16 << 20;

/// Where a write comes from, for messages.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    pub(super) line: u64,
}

/// What a file gives: a write, or why there is none.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) place: Place,
    pub(super) write: Result<Write, String>,
    /// What its text takes of [`Ahead`], until all that the text gave is dropped.
    pub(super) room: Arc<OwnedSemaphorePermit>,
}

/// The room for texts that are read and not yet taken, in bytes.
#[derive(Debug)]
pub(super) struct Ahead {
    room: Arc<Semaphore>,
    runtime: Handle,
}

impl Ahead {
    /// The runtime is the one of who takes them.
    pub(super) fn new(runtime: Handle) -> Self {
        Self { room: Arc::new(Semaphore::new(AHEAD_BYTES as usize)), runtime }
    }

    /// Waits until there is room for a text.
    fn wait(&self, bytes: usize) -> Result<Arc<OwnedSemaphorePermit>, Unwanted> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(AHEAD_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        self.runtime.block_on(room).map(Arc::new).map_err(|_| Unwanted)
    }
}

/// The receiver has gone away: nobody wants more.
struct Unwanted;

/// Reads files one after the other.
pub(super) struct Reader {
    pub(super) keep_bundles: bool,
    /// How much of the files has been read, before unzipping.
    pub(super) bytes: Arc<AtomicU64>,
    pub(super) inputs: Sender<Input>,
    pub(super) ahead: Ahead,
}

impl Reader {
    /// Reads everything. A file that can't be read is told, and the next one read.
    pub(super) fn run(self, sources: &[Source]) {
        for source in sources {
            let file: Arc<str> = source.name().into();
            if let Some(why) = &source.left_out {
                match self.bad(&file, 1, why.clone()) {
                    Ok(()) => continue,
                    Err(Unwanted) => return,
                }
            }
            let hint = source.path.as_deref().map_or(Some(Kind::Ndjson), kind);
            let done = self
                .open(source)
                .and_then(Texts::detect(hint.unwrap_or(Kind::Json)))
                .map_or_else(|e| self.failed(&file, 1, &e), |texts| self.texts(texts, &file));
            if done.is_err() {
                return;
            }
        }
    }

    fn open(&self, source: &Source) -> io::Result<Box<dyn BufRead>> {
        let raw: Box<dyn Read> = match &source.path {
            Some(path) => Box::new(File::open(path)?),
            None => Box::new(io::stdin()),
        };
        let counted = Counted { inner: raw, bytes: Arc::clone(&self.bytes) };
        let mut plain = BufReader::with_capacity(1 << 16, counted);
        Ok(match plain.fill_buf()? {
            [0x1f, 0x8b, ..] => {
                Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(plain)))
            }
            _ => Box::new(plain),
        })
    }

    fn texts(&self, mut texts: Texts, file: &Arc<str>) -> Result<(), Unwanted> {
        loop {
            match texts.next() {
                Ok(None) => return Ok(()),
                Ok(Some((line, Ok(text)))) => {
                    let room = self.ahead.wait(text.len())?;
                    for (within, write) in unpack(text.trim_ascii_end(), self.keep_bundles) {
                        // The place says the line already, and says it of the file.
                        let write = write.map_err(|why| why.replace(" at line 1 col", " at col"));
                        self.send(file, line + within - 1, write, &room)?;
                    }
                }
                Ok(Some((line, Err(why)))) => self.bad(file, line, why)?,
                Err(e) => return self.failed(file, texts.line + 1, &e),
            }
        }
    }

    fn failed(&self, file: &Arc<str>, line: u64, error: &io::Error) -> Result<(), Unwanted> {
        self.bad(file, line, format!("it can't be read: {error}"))
    }

    fn bad(&self, file: &Arc<str>, line: u64, why: String) -> Result<(), Unwanted> {
        self.send(file, line, Err(why), &self.ahead.wait(0)?)
    }

    fn send(
        &self,
        file: &Arc<str>,
        line: u64,
        write: Result<Write, String>,
        room: &Arc<OwnedSemaphorePermit>,
    ) -> Result<(), Unwanted> {
        let place = Place { file: Arc::clone(file), line };
        let input = Input { place, write, room: Arc::clone(room) };
        self.inputs.blocking_send(input).map_err(|_| Unwanted)
    }
}

struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A text and the line on which it begins, or why it is none.
type Text = (u64, Result<Vec<u8>, String>);

/// The JSON texts of a file.
struct Texts {
    reader: Box<dyn BufRead>,
    is_document: bool,
    /// How many lines are done with.
    line: u64,
}

impl Texts {
    /// Tells one document from NDJSON by the first line that is not blank.
    fn detect(hint: Kind) -> impl FnOnce(Box<dyn BufRead>) -> io::Result<Self> {
        move |mut reader| {
            let mut start = Vec::new();
            while start.trim_ascii().is_empty() && reader.read_until(b'\n', &mut start)? > 0 {}
            let is_document = match serde_json::from_slice::<IgnoredAny>(without_bom(&start)) {
                Ok(_) => hint == Kind::Json && reader.fill_buf()?.is_empty(),
                // In a file of NDJSON that is a bad line, unless the next goes on with a member.
                Err(e) if hint == Kind::Ndjson && e.is_eof() => {
                    let first = start.len();
                    reader.read_until(b'\n', &mut start)?;
                    start[first..].trim_ascii_start().starts_with(b"\"")
                }
                Err(_) => hint == Kind::Json,
            };
            let reader = Box::new(io::Cursor::new(start).chain(reader));
            Ok(Self { reader, is_document, line: 0 })
        }
    }

    /// The next text. Blank ones are left out.
    fn next(&mut self) -> io::Result<Option<Text>> {
        loop {
            let Some((line, text)) = self.any()? else { return Ok(None) };
            if !text.as_ref().is_ok_and(|text| text.trim_ascii().is_empty()) {
                return Ok(Some((line, text)));
            }
        }
    }

    fn any(&mut self) -> io::Result<Option<Text>> {
        let mut text = Vec::new();
        if self.is_document {
            self.reader.read_to_end(&mut text)?;
        } else {
            self.reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut text)?;
        }
        if text.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if self.is_document || text.len() as u64 <= MAX_LINE || text.ends_with(b"\n") {
            return Ok(Some((self.line, Ok(text))));
        }
        self.reader.skip_until(b'\n')?;
        let why = format!("the line is longer than {} MiB", MAX_LINE >> 20);
        Ok(Some((self.line, Err(why))))
    }
}

fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use flate2::{Compression, write::GzEncoder};
    use tokio::{runtime::Runtime, sync::mpsc};

    use super::*;

    /// `line Type/id`, or `line !`, for what a file of this name and content gives.
    fn told(name: &str, content: &[u8]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        fs::write(&path, content).expect("writes");
        let (inputs, mut receiver) = mpsc::channel(100);
        let bytes = Arc::new(AtomicU64::new(0));
        let runtime = Runtime::new().expect("a runtime");
        let ahead = Ahead::new(runtime.handle().clone());
        let reader = Reader { keep_bundles: false, bytes: Arc::clone(&bytes), inputs, ahead };
        reader.run(&[Source { path: Some(path), bytes: 0, left_out: None }]);
        assert_eq!(bytes.load(Ordering::Relaxed), content.len() as u64);
        let mut told = Vec::new();
        while let Some(Input { place, write, .. }) = receiver.blocking_recv() {
            told.push(match write {
                Ok(write) => format!("{} {}/{}", place.line, write.ty, write.id),
                Err(_) => format!("{} !", place.line),
            });
        }
        told
    }

    const LINES: &str = "\u{feff}{\"resourceType\":\"Basic\",\"id\":\"1\"}\n\n{\"resourceType\":\"Ba\n{\"resourceType\":\"Basic\",\"id\":\"2\"}";

    #[test]
    fn ndjson_is_known_by_its_content() {
        for name in ["a.ndjson", "a.json", "a"] {
            assert_eq!(told(name, LINES.as_bytes()), ["1 Basic/1", "3 !", "4 Basic/2"], "{name}");
        }
        assert_eq!(
            told("a.ndjson", b"\n \n{\"resourceType\":\"Basic\",\"id\":\"1\"}"),
            ["3 Basic/1"]
        );
        assert!(told("a.ndjson", b"").is_empty() && told("a.json", b" \n").is_empty());
    }

    #[test]
    fn a_bad_first_line_of_ndjson_is_one_bad_line() {
        let good = "\n{\"resourceType\":\"Basic\",\"id\":\"2\"}\n";
        for bad in ["{\"resourceType\":\"Basic", "{\"resourceType\":}", "not JSON"] {
            let text = format!("{bad}{good}");
            assert_eq!(told("a.ndjson", text.as_bytes()), ["1 !", "2 Basic/2"], "{bad}");
        }
    }

    #[test]
    fn a_document_is_known_by_its_content() {
        let pretty = b"\n{\n  \"resourceType\": \"Basic\",\n  \"id\": \"1\"\n}\n";
        for name in ["a.json", "a.ndjson"] {
            assert_eq!(told(name, pretty), ["1 Basic/1"], "{name}");
        }
        assert_eq!(told("a.json", b"{\n\"resourceType\":\"Basic\",\n}"), ["3 !"]);
    }

    #[test]
    fn zipped_files_are_known_by_their_content_and_may_be_broken() {
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(LINES.as_bytes()).expect("zips");
        let zipped = zipped.finish().expect("zips");
        assert_eq!(told("a.ndjson.gz", &zipped), ["1 Basic/1", "3 !", "4 Basic/2"]);
        assert_eq!(told("a.json", &zipped), ["1 Basic/1", "3 !", "4 Basic/2"]);
        let broken = told("a.ndjson.gz", &zipped[..zipped.len() - 8]);
        assert!(broken.last().is_some_and(|last| last.ends_with('!')), "{broken:?}");
    }

    #[test]
    fn no_more_is_read_ahead_than_there_is_room_for() {
        const TEXT: usize = 4 << 20;
        let folder = tempfile::tempdir().expect("a folder");
        let source = |n: usize| {
            let path = folder.path().join(format!("{n}.json"));
            let start = format!(r#"{{"resourceType":"Basic","id":"{n}","x":""#);
            let padding = "x".repeat(TEXT - start.len() - 2);
            fs::write(&path, format!("{start}{padding}\"}}")).expect("writes");
            Source { path: Some(path), bytes: 0, left_out: None }
        };
        let sources: Vec<_> = (0..20).map(source).collect();
        let (inputs, mut receiver) = mpsc::channel(256);
        let (bytes, runtime) = (Arc::new(AtomicU64::new(0)), Runtime::new().expect("a runtime"));
        let ahead = Ahead::new(runtime.handle().clone());
        let room = Arc::clone(&ahead.room);
        let reader = Reader { keep_bundles: false, bytes: Arc::clone(&bytes), inputs, ahead };
        let reading = std::thread::spawn(move || reader.run(&sources));
        // Nobody takes anything.
        while room.available_permits() > 0 && !reading.is_finished() {
            std::thread::yield_now();
        }
        let most = AHEAD_BYTES as usize + TEXT;
        let mut taken = 0;
        loop {
            let read = bytes.load(Ordering::Relaxed) as usize;
            assert!(read <= taken + most, "{read} bytes are read, {taken} taken");
            let Some(input) = receiver.blocking_recv() else { break };
            assert!(input.write.is_ok());
            taken += TEXT;
        }
        assert_eq!(taken, 20 * TEXT);
        reading.join().expect("no panic");
    }
}
