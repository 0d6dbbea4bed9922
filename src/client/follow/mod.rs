//! `fhirtail follow`: a stream as NDJSON on stdout, gone on with after any break.
//!
//! ```text
//! socket ─▶ stream (connect, parse, choose) ─▶ channel ─▶ writer (stdout, then the state file)
//! ```
//!
//! The state never runs ahead of what has been written, and no line is written behind a torn one:
//! after a crash a line may come twice, but none is missing.

mod output;
mod pipe;
mod state;
mod stream;
mod writer;

use std::{fs::File, io, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use super::{Failure, note};
use state::{Binding, StateFile};
use stream::{End, Follower};
use writer::Writer;

/// How long a consumer that does not read may hold up the end of the process.
const GRACE: Duration = Duration::from_secs(2);

/// Follow a stream: every matching resource, then every change, one JSON line each on stdout.
///
/// A line is a resource as stored; or, for a deletion, a Bundle whose entry names what was
/// deleted (request.method DELETE; with the tag 'left-stream' in its meta where the resource is
/// still there, and no longer what the stream was asked for); or, for a reset, an OperationOutcome: the stream starts over,
/// and the reader must drop its copy of the data before it goes on. What else there is to say
/// goes to stderr.
///
/// A broken connection is taken up again where it broke. With --state that holds for the process
/// too: the position is saved only after the line is written, so that no line is ever missing;
/// after a crash some may come twice. Append to a file with '>>': '>' would empty it at each
/// start. A line that a kill tore is cut off the file first. A pipe keeps nothing: a line counts
/// as written once the reader has taken it out of the pipe, whatever it then does with it; what it
/// did not take comes again.
///
/// Ends with status 0 on SIGINT and SIGTERM, when stdout is closed, when the server says that
/// nothing more will come (204), and with --until-caught-up; with status 1 when the server
/// refuses.
#[derive(Debug, Clone, Args)]
pub struct FollowArgs {
    /// The stream, such as 'http://127.0.0.1:8080/fhir/$export?_type=Patient'
    #[arg(value_name = "URL", env = "FHIRTAIL_URL", value_parser = http_url)]
    pub url: Url,

    /// Keep the position in this file, and go on from it at the next start. It belongs to the
    /// URL and the event types
    #[arg(long, value_name = "FILE", env = "FHIRTAIL_STATE")]
    pub state: Option<PathBuf>,

    /// Write only these events: resource types and 'deleted', comma-separated. 'reset' is always
    /// written
    #[arg(long, value_name = "TYPE", value_delimiter = ',', env = "FHIRTAIL_EVENT_TYPES")]
    pub event_types: Vec<String>,

    /// End as soon as everything that exists, and what changed meanwhile, is written
    #[arg(long, env = "FHIRTAIL_UNTIL_CAUGHT_UP")]
    pub until_caught_up: bool,
}

fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("'{other}:' is neither http: nor https:")),
    }
}

/// Follows to stdout until a signal ends it.
///
/// # Errors
/// What [`follow`] fails with, and a stdout that can't be used.
pub async fn run(args: FollowArgs) -> Result<ExitCode, Failure> {
    let out = stdout().map_err(|e| Failure::new(format!("stdout: {e}")))?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let result = follow(args, out, stop).await;
    signals.abort();
    result.map(|()| ExitCode::SUCCESS)
}

/// Follows until `stop` is cancelled, the reader of `out` goes away, the server says that nothing
/// more will come, or, where asked for, the client has caught up. The position of what has been
/// written is saved by then, unless `out` takes nothing.
///
/// # Errors
/// The server refuses, `out` or the state file can't be written, the state file is another
/// stream's.
pub async fn follow(
    args: FollowArgs,
    mut out: File,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let binding = Binding::new(&args.url, &args.event_types);
    let (state, position) = match args.state {
        Some(path) => StateFile::open(path, binding).map(|(file, at)| (Some(file), at))?,
        None => (None, None),
    };
    if state.is_some() {
        let goes_on = position.as_ref().is_some_and(|position| !position.is_empty());
        output::prepare(&mut out, goes_on).map_err(unwritable)?;
    }
    let (batches, writer) = Writer::start(out, state)?;
    let output = batches.clone();
    let mut follower =
        Follower::new(args.url, args.event_types, args.until_caught_up, position, batches)?;
    let end = tokio::select! {
        end = follower.run() => end.map(Some),
        () = stop.cancelled() => Ok(None),
        () = output.closed() => Ok(None),
    };
    drop((follower, output));

    let written = tokio::select! {
        written = writer => written.unwrap_or(Ok(())),
        // What is not saved by then comes again: lines may be on their way to the disk.
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    };
    match written {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        other => other.map_err(unwritable)?,
    }
    if end? == Some(End::NothingMore) {
        note("the server says that nothing more will come");
    }
    Ok(())
}

fn unwritable(e: io::Error) -> Failure {
    Failure::new(format!("the output can't be written: {e}"))
}

/// Stdout without a buffer of this process in between: what a write has taken is handed over.
fn stdout() -> io::Result<File> {
    #[cfg(unix)]
    let stdout = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?;
    #[cfg(windows)]
    let stdout = std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned()?;
    Ok(File::from(stdout))
}

async fn stop_on_signal(stop: CancellationToken) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return stop.cancel();
        }
    }
    let _ = tokio::signal::ctrl_c().await;
    stop.cancel();
}
