//! Lines to the output and, behind them, positions to the state file: a thread of its own, so
//! that a reader who does not read holds up nothing else.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{output, state::StateFile};
use crate::client::{Failure, note};

/// At most so long, and so many entries, is the state behind the output.
const SAVE_AFTER: Duration = Duration::from_millis(500);
const SAVE_ENTRIES: usize = 1000;
const BATCHES_AHEAD: usize = 4;

/// A line, if there is one to write, and the position of whoever has it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: Option<String>,
    pub(super) position: String,
}

/// What each read of the socket held, in order.
pub(super) type Batches = mpsc::Sender<Vec<Entry>>;

/// The position of what has been written, and whether it has been saved.
#[derive(Debug)]
pub(super) struct Keeper {
    file: Option<StateFile>,
    unsaved: Mutex<Unsaved>,
}

#[derive(Debug, Default)]
struct Unsaved {
    position: Option<String>,
    entries: usize,
    since: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(file: Option<StateFile>) -> Self {
        Self { file, unsaved: Mutex::default() }
    }

    /// Everything up to this position is written.
    fn written(&self, position: String, entries: usize) {
        // An empty id says that there is no position.
        if self.file.is_none() || position.is_empty() {
            return;
        }
        let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        unsaved.position = Some(position);
        unsaved.entries += entries;
        unsaved.since.get_or_insert_with(Instant::now);
    }

    /// How long a save may still wait; `None`: nothing is unsaved.
    fn due(&self) -> Option<Duration> {
        let unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = unsaved.since?.elapsed();
        let full = unsaved.entries >= SAVE_ENTRIES;
        Some(if full { Duration::ZERO } else { SAVE_AFTER.saturating_sub(waited) })
    }

    /// Saves what is unsaved.
    pub(super) fn save(&self) -> Result<(), Failure> {
        let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(file), Some(position)) = (&self.file, &unsaved.position) {
            file.save(position)?;
        }
        *unsaved = Unsaved::default();
        Ok(())
    }
}

/// The thread's end of the channel.
pub(super) struct Writer {
    out: File,
    keeper: Arc<Keeper>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Starts the thread. It ends when the sender is dropped and everything is written, or with
    /// the first error.
    pub(super) fn start(
        out: File,
        keeper: Arc<Keeper>,
    ) -> Result<(Batches, oneshot::Receiver<io::Result<()>>), Failure> {
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let (done, result) = oneshot::channel();
        let runtime = Handle::current();
        let writer = Self { out, keeper, buffer: Vec::new() };
        thread::Builder::new()
            .name("output".into())
            .spawn(move || done.send(writer.run(batches, &runtime)))
            .map_err(|e| Failure::new(format!("a thread can't be started: {e}")))?;
        Ok((sender, result))
    }

    fn run(mut self, mut batches: mpsc::Receiver<Vec<Entry>>, runtime: &Handle) -> io::Result<()> {
        loop {
            let due = self.keeper.due();
            let next = runtime.block_on(async {
                match due {
                    None => Ok(batches.recv().await),
                    Some(due) => timeout(due, batches.recv()).await,
                }
            });
            match next {
                Ok(Some(batch)) => self.write(batch)?,
                Ok(None) => return self.settle(),
                Err(_) => self.settle()?,
            }
            if self.keeper.due() == Some(Duration::ZERO) {
                self.settle()?;
            }
        }
    }

    /// Writes a batch. After an error the output ends with the last line that went whole, where
    /// it can be cut, and its position is saved.
    fn write(&mut self, batch: Vec<Entry>) -> io::Result<()> {
        self.buffer.clear();
        let mut ends = Vec::with_capacity(batch.len());
        for entry in batch {
            if let Some(line) = entry.line {
                self.buffer.extend_from_slice(line.as_bytes());
                self.buffer.push(b'\n');
            }
            ends.push((self.buffer.len(), entry.position));
        }
        let (written, result) = write_counted(&mut self.out, &self.buffer);
        let whole = ends.partition_point(|(end, _)| *end <= written);
        ends.truncate(whole);
        let mut torn = written;
        if let Some((end, position)) = ends.pop() {
            torn -= end;
            self.keeper.written(position, whole);
        }
        if torn > 0 && output::take_back(&mut self.out, torn as u64).is_ok() {
            note("the line that did not go whole is cut off the output");
        }
        if result.is_err() {
            self.settle()?;
        }
        result
    }

    /// Saves the position, the lines before it first: a file's are on the disk by then.
    fn settle(&mut self) -> io::Result<()> {
        if self.keeper.due().is_none() {
            return Ok(());
        }
        if self.out.metadata().is_ok_and(|meta| meta.is_file()) {
            self.out.sync_data()?;
        }
        self.keeper.save().map_err(io::Error::other)
    }
}

/// How much of it went out, and why not all.
fn write_counted(out: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (written, Err(e)),
        }
    }
    (written, Ok(()))
}
