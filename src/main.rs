//! The binary: arguments, telemetry, run.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use fhirtail::{
    check::{self, CheckArgs},
    client::{
        follow::{self, FollowArgs},
        health::{self, HealthArgs},
        load::{self, LoadArgs, Sink, Target},
    },
    config::{ServerArgs, StoreArgs},
    demo::{self, DemoArgs, Population},
    server::Server,
    store::{
        self, Store,
        embedded::{EmbeddedOptions, EmbeddedStore},
    },
    telemetry,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// tail -f for FHIR: every matching resource, then every change to come, as one stream
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a store (the default)
    Serve(ServeArgs),
    /// Serve a synthetic population that keeps changing, from a temporary store
    Demo(DemoServeArgs),
    #[allow(missing_docs, reason = "the arguments' own text is the help")]
    Load(LoadArgs),
    #[allow(missing_docs, reason = "the arguments' own text is the help")]
    Follow(FollowArgs),
    /// Say what of a store works, what will be slow, and what mends it
    Check(CheckArgs),
    /// Say by the exit status whether the server at --listen lives, for health checks
    Health(HealthArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct DemoServeArgs {
    #[command(flatten)]
    demo: DemoArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// After how many tasks a worker looks whether a socket has something: by tokio's 61, a change would
/// wait behind as many streams that have much to send.
const EVENT_INTERVAL: u32 = 8;

/// How much longer the process waits for what is not told to end, such as a disk that hangs.
const LAST_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.enable_all().event_interval(EVENT_INTERVAL).build() {
        Ok(runtime) => {
            let status = runtime.block_on(run(cli));
            runtime.shutdown_timeout(LAST_WAIT);
            status
        }
        Err(error) => failed(&error.into()),
    }
}

/// A write was to make a file longer than the process may; the number on Linux and the BSDs.
const SIGXFSZ: i32 = 25;

async fn run(cli: Cli) -> ExitCode {
    // A file at its limit is a disk that is full: told by an error, not by this signal, which kills.
    let _heard = signal(SignalKind::from_raw(SIGXFSZ));
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve(args).await,
        Command::Demo(args) => demo(args).await,
        Command::Load(args) => load(args).await,
        Command::Follow(args) => follow::run(args).await.map_err(Into::into),
        Command::Check(args) => check::run(args).await.map_err(Into::into),
        Command::Health(args) => health::run(args).await.map_err(Into::into),
    };
    done.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    telemetry::last_word(format!("fhirtail: {error:#}\n"));
    ExitCode::FAILURE
}

async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::start()?;
    let metrics = telemetry.metrics()?;
    let store = store::open(&args.store.name.store, args.store.embedded()).await?;
    let server = Server::bind(&args.server, store, Some(metrics)).await?;
    server.announce();
    server.run(asked_to_stop()?).await;
    Ok(ExitCode::SUCCESS)
}

async fn demo(args: DemoServeArgs) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::start()?;
    let metrics = telemetry.metrics()?;
    let folder = tempfile::Builder::new().prefix("fhirtail-demo-").tempdir()?;
    let store: Arc<dyn Store> = EmbeddedStore::open(folder.path(), EmbeddedOptions::default())?;
    let population = Population::new(args.demo.seed, args.demo.patients);
    let asked = asked_to_stop()?;
    tokio::pin!(asked);
    tokio::select! {
        populated = demo::populate(store.as_ref(), population) => drop(populated?),
        () = &mut asked => {
            store.close().await;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let server = Server::bind(&args.server, Arc::clone(&store), Some(metrics)).await?;
    server.announce();
    let stop = CancellationToken::new();
    let pulse = tokio::spawn(demo::pulse(store, population, args.demo.rate, stop.clone()));
    let stopping = async move {
        asked.await;
        stop.cancel();
    };
    server.run(stopping).await;
    pulse.await?;
    Ok(ExitCode::SUCCESS)
}

async fn load(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let base = match args.to.clone() {
        Target::Server(base) => base,
        Target::Store(named) => {
            let store = store::open(&named, EmbeddedOptions::untrimmed()).await?;
            let loaded = load::run(args, Sink::Store(store.clone())).await;
            store.close().await;
            return Ok(loaded?);
        }
    };
    Ok(load::run(args, Sink::server(base)?).await?)
}

/// Until SIGTERM or Ctrl-C.
fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be heard")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be heard")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
