//! Clients that stop reading: what they cost until the server is rid of them, and whether others
//! notice.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{
    crowd::{Crowd, Spec},
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
    peak_mb: f64,
}

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let sizes = &lab.sizes;
    let database = lab.database().await?;
    let deadline = sizes.write_deadline.map(|seconds| seconds.to_string());
    let arguments: Vec<&str> =
        deadline.iter().flat_map(|seconds| ["--write-deadline", seconds]).collect();
    let deadline = sizes.write_deadline.unwrap_or(DEADLINE);
    let server = lab.serve(&database, &arguments).await?;
    let into = observations(&database);

    eprintln!("stalled: {STEADY} clients that read, calm");
    let steady = Spec { net: 2, ..Spec::of(server.address, STEADY) };
    let mut steady = Crowd::gather(&steady).await?;
    let time = Duration::from_secs(sizes.seconds);
    let written = write::paced(&into, 0, sizes.stalled_rate, time).await?;
    steady.changes(written.next).await?;
    let calm = steady.times(&written.delays).await?.commit;

    let streams = sizes.stalled_streams;
    eprintln!("stalled: {streams} clients that stop reading");
    let stalled =
        Spec { net: STALLED_NET, stall: true, timed: false, ..Spec::of(server.address, streams) };
    let stalled = Crowd::gather(&stalled).await?;
    tokio::time::sleep(REST).await;
    let before_mb = proc::rss(server.pid)? / 1024.0;
    let writer = Writer::start(into, written.next, sizes.stalled_rate);
    let reaping = watch(&server, streams, deadline).await?;
    let written = writer.stop().await?;
    table.check_order("stalled, those that read", &steady.changes(written.next).await?);
    let during = steady.times(&written.delays).await?.commit;
    tokio::time::sleep(REST).await;
    let after_mb = proc::rss(server.pid)? / 1024.0;
    drop((stalled, steady, server));
    database.drop().await?;

    table.section(format!("stalled: {streams} clients, {} events/s", sizes.stalled_rate));
    table.figure("RSS before", before_mb, "MB", Target::None);
    table.ratio(
        "RSS while they are stalled, at most",
        (reaping.peak_mb, "MB"),
        (before_mb, "before"),
        Target::None,
    );
    table.ratio("RSS after", (after_mb, "MB"), (before_mb, "before"), Target::None);
    table.figure("stalled clients left", reaping.left as f64, "", Target::AtMost(0.0));
    table.figure("their sockets are full after", reaping.full_after, "s", Target::None);
    // What the clock of a look and of a timer may add.
    let bound = Target::AtMost(deadline + 1.0);
    table.figure("  and then they are gone after", reaping.gone_after, "s", bound);
    let beside = (calm.p99, "calm");
    table.ratio("those that read: commit to client, p99", (during.p99, "ms"), beside, Target::None);
    Ok(())
}

/// Watches the stalled clients' sockets until all are gone, or should long be.
async fn watch(server: &Server, streams: usize, deadline: f64) -> Result<Reaping> {
    const LOOK: Duration = Duration::from_millis(250);
    let start = Instant::now();
    let give_up = Duration::from_secs_f64(deadline * 2.0 + 60.0);
    proc::forget_peak(server.pid)?;
    let (mut left, mut most_waiting, mut full_after) = (streams, 0, 0.0);
    while left > 0 && start.elapsed() < give_up {
        tokio::time::sleep(LOOK).await;
        let waiting;
        (left, waiting) = proc::connections(server.address.port(), STALLED_NET)?;
        if waiting > most_waiting {
            (most_waiting, full_after) = (waiting, start.elapsed().as_secs_f64());
        }
    }
    let gone_after = start.elapsed().as_secs_f64() - full_after;
    eprintln!("  {left} left, {} MB waited in their sockets", most_waiting >> 20);
    Ok(Reaping { left, full_after, gone_after, peak_mb: proc::peak(server.pid)? / 1024.0 })
}
