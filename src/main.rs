//! The binary: arguments, telemetry, run.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use fhirtail::{config::ServeArgs, server::Server, store, telemetry};
use tokio::signal::unix::{SignalKind, signal};

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
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve(args).await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fhirtail: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    telemetry::log();
    let metrics = telemetry::metrics()?;
    let store = store::open(&args.store.store, args.store.embedded()).await?;
    let server = Server::bind(&args, store, Some(metrics)).await?;
    server.announce();
    server.run(asked_to_stop()?).await?;
    Ok(ExitCode::SUCCESS)
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
