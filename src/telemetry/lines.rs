//! Where the lines of the log go: to standard error, by a thread that waits for it, so that nobody
//! else does. Where it takes none they are lost, and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::json;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// How many lines wait for it.
const LINES: usize = 4_096;

/// How long what is to be said last is waited for.
const LAST: Duration = Duration::from_secs(2);

/// The thread's end, and with it that of the lines that wait.
#[derive(Debug)]
pub(super) struct Lines(Option<WorkerGuard>);

/// How many lines were lost.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    /// There was no room to wait.
    no_room: ErrorCounter,
    /// They could not be written.
    refused: Arc<AtomicU64>,
}

impl Lost {
    pub(super) fn count(&self) -> u64 {
        self.no_room.dropped_lines() as u64 + self.refused.load(Relaxed)
    }
}

/// Writes lines to `out` in a thread of its own.
pub(super) fn to(out: impl Write + Send + 'static) -> (NonBlocking, Lines, Lost) {
    let refused = Arc::<AtomicU64>::default();
    let out = Heeded { out, refused: refused.clone() };
    let lines = NonBlockingBuilder::default().buffered_lines_limit(LINES).thread_name("log");
    let (lines, guard) = lines.finish(out);
    let lost = Lost { no_room: lines.error_counter(), refused };
    (lines, Lines(Some(guard)), lost)
}

impl Drop for Lines {
    fn drop(&mut self) {
        // The guard says on standard output that lines still wait: that may be the same pipe, and
        // no more read than the other.
        let guard = self.0.take();
        for_a_while("log's end", move || drop(guard));
    }
}

/// Does in a thread of its own what may wait for standard error, and waits for that, but not for
/// long.
pub(super) fn for_a_while(name: &str, what: impl FnOnce() + Send + 'static) {
    let (ended, end) = mpsc::channel();
    let does = move || {
        what();
        let _ = ended.send(());
    };
    if thread::Builder::new().name(name.into()).spawn(does).is_ok() {
        let _ = end.recv_timeout(LAST);
    }
}

/// The line that tells of a defect, as the log's others are.
pub(super) fn of_defect(defect: &str, trace: Option<String>, is_terminal: bool) -> String {
    match (is_terminal, trace) {
        (true, Some(trace)) => format!("{defect}\n{trace}\n"),
        (true, None) => format!("{defect}\n"),
        (false, trace) => {
            let at = Timestamp::now().to_string();
            let line =
                json!({"timestamp": at, "level": "ERROR", "message": defect, "trace": trace});
            format!("{line}\n")
        }
    }
}

/// A writer of whole lines, whose failures are counted.
struct Heeded<W> {
    out: W,
    refused: Arc<AtomicU64>,
}

impl<W: Write> Write for Heeded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.out.write_all(line).inspect_err(|_| {
            self.refused.fetch_add(1, Relaxed);
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A disk that is full.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_defect_is_one_line_for_who_reads_lines() {
        let (defect, trace) = ("panicked at src/a.rs:1:2:\nno \"b\"", Some("0: a\n1: b".into()));
        let line = of_defect(defect, trace, false);
        assert_eq!(line.lines().count(), 1, "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&read["level"], &read["message"]), (&json!("ERROR"), &json!(defect)));
        assert_eq!(read["trace"], "0: a\n1: b");
        assert_eq!(of_defect("panicked", None, true), "panicked\n");
    }

    #[test]
    fn what_can_not_be_written_is_counted() {
        let (mut lines, thread, lost) = to(Full);
        for _ in 0..7 {
            lines.write_all(b"a line\n").expect("room");
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while lost.count() < 7 {
            assert!(Instant::now() < deadline, "{} are lost", lost.count());
            thread::yield_now();
        }
        drop(thread);
        assert_eq!(lost.count(), 7);
    }
}
