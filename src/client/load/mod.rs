//! `fhirtail load`: files of resources and Bundles into a server or a store.
//!
//! ```text
//! files ─▶ read (texts) ─▶ unpack (writes) ─▶ channel ─▶ group ─▶ sink (commits, several at once)
//! ```

mod files;
mod group;
mod progress;
mod read;
mod server;
mod sink;
mod unpack;

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::Duration,
};

use clap::Args;
use reqwest::Url;
use tokio::{runtime::Handle, sync::mpsc};

use super::{Failure, note};
use files::sources;
use group::Groups;
use progress::Tally;
use read::{Ahead, Input, Reader};
pub use server::Server;
pub use sink::Sink;

/// How many writes are read ahead, where there is room for their texts.
const READ_AHEAD: usize = 256;

/// Load files of FHIR resources into a running server, or straight into a store.
///
/// Loads .ndjson and .json files (one resource or one Bundle), plain or as .gz, and folders of
/// them; '-' is NDJSON on stdin. The entries of a batch, transaction, collection or searchset
/// Bundle are loaded one by one, references between them resolved.
///
/// Every resource goes under a fixed id: its own, the one that its fullUrl names, or one made of
/// its content. Loading the same files again changes nothing, but where they hold an id twice: the
/// later resource wins, each time.
///
/// What can't be loaded is told as path:line: reason on stderr, and the rest is loaded; so are
/// links to folders, which are not followed. Files of other kinds are left out. The status is 0
/// if all was loaded, 1 if not, 2 if the command can't be understood.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Files, folders, or '-' for stdin
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// The base of a running server, or a store
    #[arg(
        long,
        value_name = "URL|STORE",
        env = "FHIRTAIL_TO",
        default_value = "http://127.0.0.1:8080/fhir"
    )]
    pub to: Target,

    /// Load each Bundle as a resource of type Bundle, instead of its entries
    #[arg(long, env = "FHIRTAIL_KEEP_BUNDLES")]
    pub keep_bundles: bool,

    /// How many groups of resources are on their way at once
    #[arg(long, value_name = "N", env = "FHIRTAIL_PARALLEL", default_value = "4")]
    pub parallel: NonZeroUsize,

    /// For how long a server or store that does not answer is asked again
    #[arg(long, value_name = "SECONDS", env = "FHIRTAIL_RETRY_FOR", default_value = "60")]
    pub retry_for: u64,
}

/// Where to load to, as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The base of a FHIR server.
    Server(Url),
    /// A store, by the name that `serve` takes.
    Store(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Url::parse(text).map(Self::Server).map_err(|e| e.to_string());
        }
        Ok(Self::Store(text.to_owned()))
    }
}

/// Loads, and says on stdout what came of it. Status 0: everything was loaded; 1: not everything;
/// 2: there is a path that can't be loaded, and nothing was.
///
/// # Errors
/// The sink takes nothing any more.
pub async fn run(args: LoadArgs, sink: Sink) -> Result<ExitCode, Failure> {
    let sources = match sources(&args.paths) {
        Ok(sources) => sources,
        Err(Failure(why)) => {
            note(&why);
            return Ok(ExitCode::from(2));
        }
    };
    let total = sources.iter().map(|source| source.bytes).sum();
    let (tally, bytes) = (Arc::new(Tally::new(total)), Arc::new(AtomicU64::new(0)));
    let shown = tally.show(Arc::clone(&bytes), total);

    let (inputs, received) = mpsc::channel(READ_AHEAD);
    let ahead = Ahead::new(Handle::current());
    let reader = Reader { keep_bundles: args.keep_bundles, bytes, inputs, ahead };
    // No task of the runtime: a stdin that gives nothing would hold up the end of the process.
    let reading = thread::Builder::new().name("files".into()).spawn(move || reader.run(&sources));
    let reading = reading.map_err(|e| Failure::new(format!("a thread can't be started: {e}")))?;
    let patience = Duration::from_secs(args.retry_for);
    let groups = Groups::new(sink, args.parallel.get(), patience, Arc::clone(&tally));
    let loaded = load(received, groups, &tally).await;

    shown.abort();
    tally.finish();
    loaded?;
    reading.join().map_err(|_| Failure::new("reading the files broke off"))?;
    Ok(if tally.is_all_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn load(
    mut inputs: mpsc::Receiver<Input>,
    mut groups: Groups,
    tally: &Tally,
) -> Result<(), Failure> {
    while let Some(Input { place, write, room }) = inputs.recv().await {
        match write {
            Ok(write) => groups.push(place, write).await?,
            Err(why) => tally.bad(&place, &why),
        }
        drop(room);
    }
    groups.finish().await
}
