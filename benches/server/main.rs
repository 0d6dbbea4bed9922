//! The whole server as its users feel it, measured: history, search, fan-out, bursts, filtered and
//! idle streams, what MongoDB pays, a reconnect storm, clients that stall. Beside each figure, in the
//! same run, what it is to be compared with. `docs/PERFORMANCE.md` says how each is taken.
//!
//! ```text
//! cargo bench --bench server                          all, some twenty minutes
//! cargo bench --bench server -- --quick fanout burst  two of them, in small
//! ```
//!
//! Each part is a process of its own: the server, mongod, nginx, and this binary again in the
//! roles `crowd` (the clients), `floor` and `cursor` (what is compared with).

use std::{io::Write, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};

mod burst;
mod crowd;
mod cursor;
mod fanout;
mod filtered;
mod floor;
mod gzip;
mod history;
mod idle;
mod lab;
mod nchan;
mod peers;
mod proc;
mod role;
mod search;
mod seed;
mod stalled;
mod storm;
mod table;
mod upstream;
mod write;

use lab::Lab;
use table::Table;

/// Measures the server and prints a table
#[derive(Debug, Parser)]
struct Cli {
    /// What to measure; all, where nothing is named
    what: Vec<Measurement>,
    #[command(flatten)]
    sizes: Sizes,
    /// Small sizes, where none are given: to see that all works, in some minutes
    #[arg(long)]
    quick: bool,
    /// What cargo says to a benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measurement {
    History,
    Search,
    Fanout,
    Burst,
    Filtered,
    Idle,
    Gzip,
    Mongod,
    Storm,
    Stalled,
}

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Sizes {
    /// history, search: resources
    #[arg(long, default_value_t = 300_000)]
    documents: u32,
    /// history, search: how often each is read, in turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// history, search: how long a slow client reads (seconds)
    #[arg(long, default_value_t = 10)]
    slow_seconds: u64,
    /// fanout: streams, of one run after the other
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,15000")]
    streams: Vec<usize>,
    /// Paced writes: changes a second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// How long is written at a pace, or waited (seconds)
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// burst: changes
    #[arg(long, default_value_t = 10_000)]
    burst_changes: u32,
    /// burst: streams
    #[arg(long, default_value_t = 500)]
    burst_streams: usize,
    /// filtered: streams, each of a patient of its own
    #[arg(long, default_value_t = 2_000)]
    filtered_streams: usize,
    /// filtered: changes a second
    #[arg(long, default_value_t = 200.0)]
    filtered_rate: f64,
    /// idle: streams, of one run after the other
    #[arg(long, value_delimiter = ',', default_value = "5000,15000")]
    idle_streams: Vec<usize>,
    /// gzip: streams
    #[arg(long, default_value_t = 1_000)]
    gzip_streams: usize,
    /// mongod: streams that are compared with one
    #[arg(long, default_value_t = 5_000)]
    mongod_streams: usize,
    /// storm: clients
    #[arg(long, default_value_t = 5_000)]
    storm_streams: usize,
    /// storm: changes before it; what the ring does not hold is to be ten minutes' worth
    #[arg(long, default_value_t = 15_000)]
    storm_changes: u32,
    /// storm: how fast these are written (changes a second)
    #[arg(long, default_value_t = 250.0)]
    storm_rate: f64,
    /// storm: the ring (bytes)
    #[arg(long, default_value_t = 4 << 20)]
    storm_ring: usize,
    /// stalled: clients that stop reading
    #[arg(long, default_value_t = 1_000)]
    stalled_streams: usize,
    /// stalled: changes a second
    #[arg(long, default_value_t = 100.0)]
    stalled_rate: f64,
    /// stalled: the server's write deadline (seconds), where not its own default
    #[arg(long)]
    write_deadline: Option<f64>,
    /// A further argument to each server; may be repeated
    #[arg(long = "serve-arg", allow_hyphen_values = true, value_name = "ARG")]
    serve_args: Vec<String>,
}

/// What `--quick` makes of the sizes that are not given.
const QUICK: [(&str, &str); 14] = [
    ("documents", "20000"),
    ("slow_seconds", "3"),
    ("streams", "200,1000"),
    ("seconds", "5"),
    ("burst_changes", "2000"),
    ("burst_streams", "100"),
    ("filtered_streams", "200"),
    ("idle_streams", "500"),
    ("gzip_streams", "200"),
    ("mongod_streams", "500"),
    ("storm_streams", "300"),
    ("storm_changes", "3000"),
    ("storm_ring", "1048576"),
    ("stalled_streams", "100"),
];

fn parse(arguments: &[String]) -> Result<Cli> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let sizes = QUICK.iter().filter(|_| quick);
    let command = sizes.fold(Cli::command(), |command, (size, value)| {
        command.mut_arg(size, |argument| argument.default_value(value))
    });
    Ok(Cli::from_arg_matches(&command.get_matches())?)
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, spec] = &arguments[..]
        && flag == role::FLAG
    {
        play(name, spec)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Cli { what, sizes, .. } = parse(&arguments)?;
    raise_limit(&sizes)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&what, sizes))
}

fn play(name: &str, spec: &str) -> Result<()> {
    match name {
        crowd::ROLE => crowd::run::run(serde_json::from_str(spec)?),
        floor::ROLE => floor::run(&serde_json::from_str(spec)?),
        cursor::ROLE => cursor::run(&serde_json::from_str(spec)?),
        _ => bail!("there is no role {name}"),
    }
}

/// Lets this process and all it starts open as many files as the streams need.
fn raise_limit(sizes: &Sizes) -> Result<()> {
    const BESIDE: u64 = 1_000;
    let most = sizes.streams.iter().chain(&sizes.idle_streams).max().copied().unwrap_or(0);
    let most = most.max(sizes.filtered_streams).max(sizes.storm_streams).max(sizes.mongod_streams);
    let needed = u64::try_from(most)? + BESIDE;
    let files = rlimit::increase_nofile_limit(u64::MAX).context("the limit of open files")?;
    ensure!(files >= needed, "{needed} files are to be open, and only {files} may be: ulimit -Hn");
    Ok(())
}

async fn measure(what: &[Measurement], sizes: Sizes) -> Result<ExitCode> {
    let what = if what.is_empty() { Measurement::value_variants() } else { what };
    let lab = Lab::open(sizes).await?;
    let mut table = Table::default();
    for one in what {
        if let Err(error) = run(*one, &lab, &mut table).await {
            table.fault(format!("{one:?}: {error:#}"));
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{table}")?;
    if let Some(hint) = fanout::hint(&lab) {
        writeln!(out, "{hint}")?;
    }
    for fault in &table.faults {
        writeln!(out, "FAULT: {fault}")?;
    }
    Ok(if table.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(what: Measurement, lab: &Lab, table: &mut Table) -> Result<()> {
    match what {
        Measurement::History => history::measure(lab, table).await,
        Measurement::Search => search::measure(lab, table).await,
        Measurement::Fanout => fanout::measure(lab, table).await,
        Measurement::Burst => burst::measure(lab, table).await,
        Measurement::Filtered => filtered::measure(lab, table).await,
        Measurement::Gzip => gzip::measure(lab, table).await,
        Measurement::Idle => idle::measure(lab, table).await,
        Measurement::Mongod => upstream::measure(lab, table).await,
        Measurement::Storm => storm::measure(lab, table).await,
        Measurement::Stalled => stalled::measure(lab, table).await,
    }
}
