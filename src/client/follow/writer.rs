//! Lines to the output and, behind them, positions to the state file: a thread of its own, so
//! that a reader who does not read holds up nothing else.

use std::{
    fs::File,
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    output,
    pipe::{self, Pipe},
    state::StateFile,
};
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
struct Keeper {
    file: Option<StateFile>,
    unsaved: Unsaved,
}

#[derive(Debug, Default)]
struct Unsaved {
    position: Option<String>,
    entries: usize,
    since: Option<Instant>,
}

impl Keeper {
    /// Everything up to this position is written. An empty one is a position too: behind a reset,
    /// that of before is worth nothing.
    fn written(&mut self, position: String, entries: usize) {
        if self.file.is_none() {
            return;
        }
        self.unsaved.position = Some(position);
        self.unsaved.entries += entries;
        self.unsaved.since.get_or_insert_with(Instant::now);
    }

    /// How long a save may still wait; `None`: nothing is unsaved.
    fn due(&self) -> Option<Duration> {
        let waited = self.unsaved.since?.elapsed();
        let full = self.unsaved.entries >= SAVE_ENTRIES;
        Some(if full { Duration::ZERO } else { SAVE_AFTER.saturating_sub(waited) })
    }

    /// Saves what is unsaved.
    fn save(&mut self) -> Result<(), Failure> {
        if let (Some(file), Some(position)) = (&self.file, &self.unsaved.position) {
            file.save(position)?;
        }
        self.unsaved = Unsaved::default();
        Ok(())
    }
}

/// The thread's end of the channel.
pub(super) struct Writer {
    out: File,
    /// Where the output is one, and there is a state.
    pipe: Option<Pipe>,
    keeper: Keeper,
    buffer: Vec<u8>,
}

impl Writer {
    /// Starts the thread. It ends when the sender is dropped and everything is written, or with
    /// the first error.
    pub(super) fn start(
        out: File,
        state: Option<StateFile>,
    ) -> Result<(Batches, oneshot::Receiver<io::Result<()>>), Failure> {
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let (done, result) = oneshot::channel();
        let runtime = Handle::current();
        let pipe = state.as_ref().and_then(|_| Pipe::of(&out));
        let keeper = Keeper { file: state, unsaved: Unsaved::default() };
        let writer = Self { out, pipe, keeper, buffer: Vec::new() };
        thread::Builder::new()
            .name("output".into())
            .spawn(move || done.send(writer.run(batches, &runtime)))
            .map_err(|e| Failure::new(format!("a thread can't be started: {e}")))?;
        Ok((sender, result))
    }

    fn run(mut self, mut batches: mpsc::Receiver<Vec<Entry>>, runtime: &Handle) -> io::Result<()> {
        loop {
            let lies = self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty());
            let due = self.keeper.due().or(lies.then_some(SAVE_AFTER));
            let next = runtime.block_on(async {
                match due {
                    None => Ok(batches.recv().await),
                    Some(due) => timeout(due, batches.recv()).await,
                }
            });
            match next {
                Ok(Some(batch)) => self.write(batch)?,
                Ok(None) => return self.end(),
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
        let starts_over = batch.iter().any(|entry| entry.position.is_empty());
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
        let torn = written - ends.last().map_or(0, |(end, _)| *end);
        match &mut self.pipe {
            Some(pipe) => pipe.wrote(written, ends),
            None => ends.pop().into_iter().for_each(|(_, at)| self.keeper.written(at, whole)),
        }
        if torn > 0 && output::take_back(&mut self.out, torn as u64).is_ok() {
            note("the line that did not go whole is cut off the output");
        }
        self.look()?;
        // As long as the state holds a position of before, a kill goes on from there.
        if result.is_err() || starts_over {
            self.settle()?;
        }
        result
    }

    /// What the reader of a pipe has taken is written.
    fn look(&mut self) -> io::Result<()> {
        if let Some(pipe) = &mut self.pipe
            && let Some((position, entries)) = pipe.taken(pipe::unread(&self.out)?)
        {
            self.keeper.written(position, entries);
        }
        Ok(())
    }

    /// Ends once the reader of a pipe has taken everything, or has gone.
    fn end(&mut self) -> io::Result<()> {
        loop {
            self.settle()?;
            let lies = self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty());
            if !lies || !pipe::wait(&self.out)? {
                return self.settle();
            }
        }
    }

    /// Saves the position, the lines before it first: a file's are on the disk by then, a pipe's
    /// with its reader.
    fn settle(&mut self) -> io::Result<()> {
        self.look()?;
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
