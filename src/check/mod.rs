//! `fhirtail check`: what of a store works, what will be slow, and the command that mends it.
//!
//! [`probes`] and [`survey`] ask a MongoDB deployment and judge nothing; [`findings`] and
//! [`collections`] judge what they are told and ask nobody; [`report`] prints.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;

use crate::{
    config::StoreName,
    store::{MONGODB_SCHEMES, OpenError},
};

mod collections;
mod embedded;
mod findings;
mod probes;
mod report;
mod survey;

pub use findings::{Finding, Level};

/// What to look at, and how to tell.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    #[allow(missing_docs, reason = "a text here would stand in for the command's own")]
    #[command(flatten)]
    pub name: StoreName,

    /// Print the findings as a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Looks at a store and prints what it finds. Nothing in the store is different afterwards.
/// Succeeds where nothing failed, slow or not.
///
/// # Errors
/// Standard output can't be written.
pub async fn run(args: CheckArgs) -> io::Result<ExitCode> {
    let findings = findings(&args.name.store).await;
    let mut out = io::stdout().lock();
    match args.json {
        true => report::json(&mut out, &findings)?,
        false => report::text(&mut out, &findings)?,
    }
    out.flush()?;
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All that is to be said of the store that a text names.
pub async fn findings(store: &str) -> Vec<Finding> {
    if MONGODB_SCHEMES.iter().any(|scheme| store.starts_with(scheme)) {
        // The driver's calls run to their end, whoever waits for this.
        let probing = tokio::spawn(probes::findings(store.to_owned()));
        let broken = |error| vec![Finding::fail("check", format!("it broke off: {error}"))];
        return probing.await.unwrap_or_else(broken);
    }
    match store.split_once("://") {
        Some((scheme, _)) => {
            vec![Finding::fail("store", OpenError::Unknown(scheme.to_owned()).to_string())]
        }
        None => embedded::findings(store.as_ref()).await,
    }
}
