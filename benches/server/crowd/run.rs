//! The process that holds the streams: one thread, one buffer for all reads, a task per stream.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    future::poll_fn,
    io::{BufWriter, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::LocalSet,
    time::Instant,
};

use super::{
    Ask, Quantiles, Report, Spec, Times,
    feed::{Feed, Found},
    tally::{Phase, Tally},
};
use crate::{role, seed};

/// How often a condition is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// How many bytes the socket of a stalled stream takes.
const STALLED_BUFFER: u32 = 4 << 10;

/// What the streams share.
struct Crowd {
    spec: Spec,
    started: u64,
    tallies: RefCell<Vec<Tally>>,
    buffer: RefCell<Vec<u8>>,
    bytes: Cell<u64>,
    reads: Cell<u64>,
    times: RefCell<Samples>,
    log: RefCell<Option<BufWriter<File>>>,
    why: RefCell<Option<String>>,
}

/// Sequence number of a change and the microseconds that it took, for each that came.
#[derive(Default)]
struct Samples {
    taken: Vec<(u32, u32)>,
    first: u64,
    last: u64,
}

/// Plays the role until nobody asks any more.
pub(crate) fn run(spec: Spec) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let starts = starts(&spec)?;
        let crowd = Rc::new(Crowd {
            tallies: RefCell::new(
                starts
                    .iter()
                    .enumerate()
                    .map(|(index, (first, _))| Tally::from(*first, spec.shares, index))
                    .collect(),
            ),
            started: seed::now(),
            buffer: RefCell::new(vec![0; 256 << 10]),
            bytes: Cell::default(),
            reads: Cell::default(),
            times: RefCell::default(),
            log: RefCell::new(spec.log.as_deref().map(log).transpose()?),
            why: RefCell::default(),
            spec,
        });
        let permits = Arc::new(Semaphore::new(crowd.spec.at_once));
        for (index, (_, id)) in starts.into_iter().enumerate() {
            let (crowd, permits) = (Rc::clone(&crowd), Arc::clone(&permits));
            tokio::task::spawn_local(async move {
                let Ok(permit) = permits.acquire_owned().await else { return };
                let ended = hold(&crowd, index, id, permit).await;
                crowd.ended(index, ended.err());
            });
        }
        answer(&crowd).await
    })
}

fn log(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path)?))
}

/// For each stream the first change that it must be sent, and the id to go on from.
fn starts(spec: &Spec) -> Result<Vec<(u32, Option<String>)>> {
    let Some(file) = &spec.resume else { return Ok(vec![(0, None); spec.streams]) };
    let text = std::fs::read_to_string(file)?;
    let start = |line: &str| {
        let (first, id) = line.split_once(' ').context("a line of a number and an id")?;
        Ok((first.parse()?, Some(id.to_owned())))
    };
    text.lines().take(spec.streams).map(start).collect()
}

/// One stream from its connection to its end.
async fn hold(
    crowd: &Crowd,
    index: usize,
    id: Option<String>,
    permit: OwnedSemaphorePermit,
) -> Result<()> {
    let mut socket = connect(&crowd.spec, index).await?;
    let resume = id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    let Spec { path, address, gzip, .. } = &crowd.spec;
    let path = path.replace("{}", &index.to_string());
    let coding = if *gzip { "Accept-Encoding: gzip\r\n" } else { "" };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\
         {coding}{resume}\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut feed = Feed::default();
    let mut permit = Some(permit);
    while !feed.is_over() {
        let more = poll_fn(|cx| crowd.poll_read(cx, &mut socket, &mut feed, index)).await?;
        if crowd.is_there(index) {
            permit.take();
            if crowd.spec.stall {
                // The socket stays open, and full, until the process ends.
                std::future::pending::<()>().await;
            }
        }
        if !more {
            break;
        }
    }
    Ok(())
}

async fn connect(spec: &Spec, index: usize) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if spec.stall {
        socket.set_recv_buffer_size(STALLED_BUFFER)?;
    }
    // 1 to 250, in turn.
    let host = u8::try_from(index % 250)? + 1;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, spec.net, host), 0)))?;
    Ok(socket.connect(spec.address).await?)
}

impl Crowd {
    /// Reads what is there. `false`: the stream is at its end.
    fn poll_read(
        &self,
        cx: &mut Context<'_>,
        socket: &mut TcpStream,
        feed: &mut Feed,
        index: usize,
    ) -> Poll<Result<bool>> {
        let mut buffer = self.buffer.borrow_mut();
        let mut buffer = ReadBuf::new(&mut buffer);
        ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
        let now = seed::now();
        let mut tallies = self.tallies.borrow_mut();
        let tally = &mut tallies[index];
        let before = tally.changes;
        let fed = feed.take(bytes, &mut |found| self.found(tally, found, now));
        self.reads.set(self.reads.get() + u64::from(tally.changes > before));
        Poll::Ready(fed.map(|()| !bytes.is_empty()).map_err(anyhow::Error::msg))
    }

    fn found(&self, tally: &mut Tally, found: Found<'_>, now: u64) {
        match found {
            Found::Granted => tally.phase = Phase::Granted,
            Found::Event { kind, mark, id } => {
                tally.event(kind, now);
                if let Some((seq, stamp)) = mark {
                    tally.change(seq);
                    self.time(seq, stamp, now);
                    self.note(seq, id);
                }
            }
        }
    }

    fn time(&self, seq: u32, stamp: u64, now: u64) {
        if self.spec.timed {
            let mut times = self.times.borrow_mut();
            let took = u32::try_from(now.saturating_sub(stamp)).unwrap_or(u32::MAX);
            times.first = if times.taken.is_empty() { now } else { times.first };
            times.last = now;
            times.taken.push((seq, took));
        }
    }

    fn note(&self, seq: u32, id: &[u8]) {
        if let Some(log) = self.log.borrow_mut().as_mut() {
            // A log that can't be written is found too short by its reader.
            let _ = writeln!(log, "{} {}", seq + 1, String::from_utf8_lossy(id));
        }
    }

    fn is_there(&self, index: usize) -> bool {
        let tally = &self.tallies.borrow()[index];
        if self.spec.until_level { tally.level } else { tally.phase == Phase::Granted }
    }

    fn ended(&self, index: usize, error: Option<anyhow::Error>) {
        let tally = &mut self.tallies.borrow_mut()[index];
        let was = tally.phase;
        tally.phase = if was == Phase::Connecting { Phase::Refused } else { Phase::Closed };
        let why = error.map_or_else(|| "the server ended it".into(), |error| format!("{error:#}"));
        *self.why.borrow_mut() = Some(why);
    }

    /// Waits until each stream that is not at its end fits. `false`: that took too long.
    async fn wait(&self, seconds: u64, fits: impl Fn(&Tally) -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(seconds);
        let ended = |tally: &Tally| matches!(tally.phase, Phase::Closed | Phase::Refused);
        while !self.tallies.borrow().iter().all(|tally| ended(tally) || fits(tally)) {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// `to`: the changes that all must have by now.
    fn report(&self, to: u32, in_time: bool) -> Report {
        let tallies = self.tallies.borrow();
        let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
        let level_at = tallies.iter().map(|tally| tally.level_at).max().unwrap_or(0);
        Report {
            streams: tallies.len(),
            open: tallies.iter().filter(|tally| tally.phase == Phase::Granted).count(),
            level: tallies.iter().filter(|tally| tally.level).count(),
            refused: sum(|tally| u64::from(tally.phase == Phase::Refused)),
            closed: sum(|tally| u64::from(tally.phase == Phase::Closed)),
            changes: sum(|tally| tally.changes.into()),
            reads: self.reads.get(),
            bytes: self.bytes.get(),
            fewest: tallies.iter().map(|tally| tally.changes).min().unwrap_or(0),
            most: tallies.iter().map(|tally| tally.changes).max().unwrap_or(0),
            missing: tallies.iter().map(|tally| tally.missing(to)).sum(),
            repeated: sum(|tally| tally.repeated),
            disordered: sum(|tally| tally.disordered),
            resets: sum(|tally| tally.resets),
            behind: sum(|tally| tally.behind),
            outcomes: sum(|tally| tally.outcomes),
            strange: sum(|tally| tally.strange),
            level_after: level_at.saturating_sub(self.started) as f64 / 1e6,
            why: self.why.borrow().clone(),
            late: !in_time,
        }
    }

    fn times(&self, delays: &[u32]) -> Times {
        let Samples { taken, first, last } = self.times.take();
        let delay = |seq: u32| delays.get(seq as usize).copied().unwrap_or(0);
        Times {
            changes: taken.len() as u64,
            commit: quantiles(taken.iter().map(|(seq, took)| took.saturating_sub(delay(*seq)))),
            write: quantiles(taken.iter().map(|(_, took)| *took)),
            span: last.saturating_sub(first) as f64 / 1e6,
        }
    }
}

fn quantiles(times: impl Iterator<Item = u32>) -> Quantiles {
    let mut times: Vec<u32> = times.collect();
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    let at = |quantile: f64| {
        let index = (last as f64 * quantile).round() as usize;
        times.get(index).map_or(f64::NAN, |us| f64::from(*us) / 1e3)
    };
    Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
}

async fn answer(crowd: &Crowd) -> Result<()> {
    let mut asks = role::asks();
    while let Some(ask) = asks.recv().await {
        let report = match ask {
            Ask::There { seconds } => {
                let level = crowd.spec.until_level;
                let there =
                    |tally: &Tally| tally.phase == Phase::Granted && (tally.level || !level);
                crowd.report(0, crowd.wait(seconds, there).await)
            }
            Ask::Level { seconds } => {
                crowd.report(0, crowd.wait(seconds, |tally| tally.level).await)
            }
            Ask::Changes { to, seconds } => {
                let all = |tally: &Tally| tally.missing(to) == 0;
                crowd.report(to, crowd.wait(seconds, all).await)
            }
            Ask::Times { delays } => {
                role::say(&crowd.times(&delays))?;
                continue;
            }
        };
        if let Some(log) = crowd.log.borrow_mut().as_mut() {
            log.flush()?;
        }
        role::say(&report)?;
    }
    Ok(())
}
