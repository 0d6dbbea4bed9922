//! Clients that stop reading: what they cost until the server is rid of them, and whether others
//! notice.

use std::time::{Duration, Instant};

use anyhow::Result;
use mongodb::{Collection, bson::Document};

use crate::{
    Sizes,
    crowd::{Crowd, Quantiles, Spec},
    lab::{Lab, REST, Server, observations},
    proc,
    table::{Table, Target},
    write::{self, Writer},
};

/// How many clients read on.
const STEADY: usize = 100;

/// Where the stalled come from: 127.0.3.x.
const STALLED_NET: u8 = 3;

/// The server's own default, in seconds.
const DEADLINE: f64 = 30.0;

/// How the stalled ones went.
struct Reaping {
    left: usize,
    /// Seconds from the changes' begin to the last byte that any of them took, and from there
    /// to the last of them being gone.
    full_after: f64,
    gone_after: f64,
    /// The most bytes that waited in the server's side of their sockets, in MB: the kernel's
    /// memory, not the server's.
    waiting_mb: f64,
    peak_mb: f64,
}

/// What was seen meanwhile.
struct Figures {
    reaping: Reaping,
    before_mb: f64,
    after_mb: f64,
    calm: Quantiles,
    during: Quantiles,
}

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let database = lab.database().await?;
    let given = lab.sizes.write_deadline.map(|seconds| seconds.to_string());
    let arguments: Vec<&str> =
        given.iter().flat_map(|seconds| ["--write-deadline", seconds]).collect();
    let server = lab.serve(&database, &arguments).await?;
    let deadline = lab.sizes.write_deadline.unwrap_or(DEADLINE);
    let figures = stall(lab, table, &server, &observations(&database), deadline).await?;
    drop(server);
    database.drop().await?;
    rows(lab, table, &figures, deadline);
    Ok(())
}

async fn stall(
    lab: &Lab,
    table: &mut Table,
    server: &Server,
    into: &Collection<Document>,
    deadline: f64,
) -> Result<Figures> {
    let Sizes { stalled_rate: rate, stalled_streams: streams, seconds, .. } = lab.sizes;
    eprintln!("stalled: {STEADY} clients that read, calm");
    let steady = Spec { net: 2, ..Spec::of(server.address, STEADY) };
    let mut steady = Crowd::gather(&steady).await?;
    let written = write::paced(into, 0, rate, Duration::from_secs(seconds)).await?;
    steady.changes(written.next).await?;
    let calm = steady.times(&written.delays).await?.commit;

    eprintln!("stalled: {streams} clients that stop reading");
    // They go on from no position: what was written so far, they read.
    let spec = Spec { stall: true, timed: false, ..Spec::of(server.address, streams) };
    let stalled = Crowd::gather(&Spec { net: STALLED_NET, ..spec }).await?;
    tokio::time::sleep(REST).await;
    let before_mb = proc::rss(server.pid)? / 1024.0;
    let writer = Writer::start(into.clone(), written.next, rate);
    let reaping = watch(server, streams, deadline).await?;
    let written = writer.stop().await?;
    table.check_order("stalled, those that read", &steady.changes(written.next).await?);
    let during = steady.times(&written.delays).await?.commit;
    tokio::time::sleep(REST).await;
    let after_mb = proc::rss(server.pid)? / 1024.0;
    drop(stalled);
    Ok(Figures { reaping, before_mb, after_mb, calm, during })
}

fn rows(lab: &Lab, table: &mut Table, figures: &Figures, deadline: f64) {
    let Figures { reaping, before_mb, after_mb, calm, during } = figures;
    let Sizes { stalled_rate: rate, stalled_streams: streams, .. } = lab.sizes;
    table.section(format!("stalled: {streams} clients that stop reading, {rate} events/s"));
    table.figure("RSS before", *before_mb, "MB", Target::None);
    let beside = (*before_mb, "before");
    table.ratio("RSS meanwhile, at most", (reaping.peak_mb, "MB"), beside, Target::AtMost(1.1));
    table.ratio("RSS after", (*after_mb, "MB"), beside, Target::AtMost(1.1));
    table.figure("waiting in their sockets", reaping.waiting_mb, "MB", Target::None);
    table.figure("stalled clients left", reaping.left as f64, "", Target::AtMost(0.0));
    table.figure("their sockets are full after", reaping.full_after, "s", Target::None);
    if reaping.left == 0 {
        // What the clock of a look and of a timer may add.
        let bound = Target::AtMost(deadline + 1.0);
        table.figure("  and from then they are gone after", reaping.gone_after, "s", bound);
    }
    let beside = (calm.p99, "calm");
    table.ratio("others: commit to client, p99", (during.p99, "ms"), beside, Target::AtMost(3.0));
}

/// Watches the stalled clients' sockets until all are gone, or should long be.
async fn watch(server: &Server, streams: usize, deadline: f64) -> Result<Reaping> {
    const LOOK: Duration = Duration::from_millis(250);
    let start = Instant::now();
    proc::forget_peak(server.pid)?;
    let (mut left, mut most_waiting, mut full_after) = (streams, 0, 0.0);
    // Twice the deadline without a byte taken: nobody is going to reap them.
    while left > 0 && start.elapsed().as_secs_f64() < full_after + 2.0 * deadline + 10.0 {
        tokio::time::sleep(LOOK).await;
        let waiting;
        (left, waiting) = proc::connections(server.address.port(), STALLED_NET)?;
        // A few bytes more or less are the kernel's bookkeeping.
        if waiting > most_waiting + most_waiting / 1000 {
            (most_waiting, full_after) = (waiting, start.elapsed().as_secs_f64());
        }
    }
    let gone_after = start.elapsed().as_secs_f64() - full_after;
    let peak_mb = proc::peak(server.pid)? / 1024.0;
    let waiting_mb = most_waiting as f64 / 1e6;
    Ok(Reaping { left, full_after, gone_after, waiting_mb, peak_mb })
}
