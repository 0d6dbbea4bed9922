//! The clients: thousands of event streams held by one process, which counts what each is sent
//! and how long that took. Here is the side that asks; [`run`] is the process.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::role::Role;

mod feed;
pub(crate) mod run;
mod tally;

/// The name of this role.
pub(crate) const ROLE: &str = "crowd";

/// How long a crowd may take for anything, in seconds.
pub(crate) const PATIENCE: u64 = 300;

/// Which streams.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) address: SocketAddr,
    /// In it, `{}` is the stream's number, from 0 on.
    pub(crate) path: String,
    pub(crate) streams: usize,
    /// Of every so many changes each stream is sent one: the one of its number.
    pub(crate) shares: u32,
    /// They come from addresses 127.0.`net`.x: one address has not ports enough.
    pub(crate) net: u8,
    /// A stream is there once it has heard `caught-up`; else, once it is granted.
    pub(crate) until_level: bool,
    /// How many may be on their way to being there.
    pub(crate) at_once: usize,
    /// A file with a line for each stream: the first change that it must get, and the id to go
    /// on from.
    pub(crate) resume: Option<PathBuf>,
    /// Where the ids of all changes are written, in lines of that form.
    pub(crate) log: Option<PathBuf>,
    /// Once a stream is there, nothing more is read from it; its socket takes little.
    pub(crate) stall: bool,
    /// The time that each change takes is kept.
    pub(crate) timed: bool,
    /// Its streams are asked for in gzip.
    pub(crate) gzip: bool,
}

impl Spec {
    /// Streams of all Observations: history, then live.
    pub(crate) fn of(address: SocketAddr, streams: usize) -> Self {
        Self {
            address,
            path: "/fhir/Observation/$export".into(),
            streams,
            shares: 1,
            net: 1,
            until_level: true,
            at_once: 100,
            resume: None,
            log: None,
            stall: false,
            timed: true,
            gzip: false,
        }
    }

    /// Streams of a server that sends nothing but changes.
    pub(crate) fn of_peer(address: SocketAddr, path: &str, streams: usize) -> Self {
        let path = path.into();
        Self { path, until_level: false, ..Self::of(address, streams) }
    }
}

/// What a crowd is asked.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// To answer when all streams are there.
    There { seconds: u64 },
    /// To answer when all have heard `caught-up`.
    Level { seconds: u64 },
    /// To answer when all have every change before this one.
    Changes { to: u32, seconds: u64 },
    /// For the times since it was last asked this. `delays`: for each change, by its sequence
    /// number, how many microseconds after its stamp it was committed; none: take that as 0.
    Times { delays: Vec<u32> },
}

/// What has come to the streams so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) streams: usize,
    /// Granted, and not closed.
    pub(crate) open: usize,
    pub(crate) level: usize,
    pub(crate) refused: u64,
    pub(crate) closed: u64,
    /// Changes, of all streams, each counted once per stream.
    pub(crate) changes: u64,
    /// Reads from a socket that brought any of them.
    pub(crate) reads: u64,
    /// Bytes that were read, HTTP and all.
    pub(crate) bytes: u64,
    /// What the least and the most served stream got.
    pub(crate) fewest: u32,
    pub(crate) most: u32,
    pub(crate) missing: u64,
    pub(crate) repeated: u64,
    pub(crate) disordered: u64,
    pub(crate) resets: u64,
    pub(crate) behind: u64,
    pub(crate) outcomes: u64,
    /// Changes that were sent to whom they are not for.
    pub(crate) strange: u64,
    /// Seconds from the start to the last `caught-up`.
    pub(crate) level_after: f64,
    /// Why a stream was refused or broke: one of them.
    pub(crate) why: Option<String>,
    /// What was waited for did not come in time.
    pub(crate) late: bool,
}

impl Report {
    /// Changes that a client found at each read: 1 where each was written by itself and taken
    /// at once.
    pub(crate) fn at_once(&self) -> f64 {
        self.changes as f64 / self.reads as f64
    }

    /// Bytes that were read for each change.
    pub(crate) fn bytes_each(&self) -> f64 {
        self.bytes as f64 / self.changes as f64
    }
}

/// Milliseconds that changes took to their clients.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Times since they were last asked for.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) changes: u64,
    /// From the commit.
    pub(crate) commit: Quantiles,
    /// From the moment before the write.
    pub(crate) write: Quantiles,
    /// Seconds from the first change's arrival to the last's.
    pub(crate) span: f64,
}

/// A crowd in its process.
pub(crate) struct Crowd {
    role: Role,
}

impl Crowd {
    /// Lets streams connect, and does not wait for them.
    pub(crate) fn start(spec: &Spec) -> Result<Self> {
        Ok(Self { role: Role::start(ROLE, spec)? })
    }

    /// Lets streams connect, and waits until all are there.
    ///
    /// # Errors
    /// Not all are.
    pub(crate) async fn gather(spec: &Spec) -> Result<Self> {
        let mut crowd = Self::start(spec)?;
        let report = crowd.there().await?;
        let all = report.open == spec.streams && !report.late;
        ensure!(all, "only {} of {} streams: {:?}", report.open, spec.streams, report.why);
        Ok(crowd)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.role.pid()
    }

    pub(crate) async fn there(&mut self) -> Result<Report> {
        self.ask(&Ask::There { seconds: PATIENCE }).await
    }

    pub(crate) async fn level(&mut self) -> Result<Report> {
        self.ask(&Ask::Level { seconds: PATIENCE }).await
    }

    /// Waits until all streams have the changes before `to`.
    pub(crate) async fn changes(&mut self, to: u32) -> Result<Report> {
        self.ask(&Ask::Changes { to, seconds: PATIENCE }).await
    }

    pub(crate) async fn times(&mut self, delays: &[u32]) -> Result<Times> {
        self.role.tell(&Ask::Times { delays: delays.to_vec() })?;
        self.role.answer().await
    }

    async fn ask(&mut self, ask: &Ask) -> Result<Report> {
        self.role.tell(ask)?;
        self.role.answer().await
    }
}
