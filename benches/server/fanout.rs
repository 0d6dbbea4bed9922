//! Fan-out, paced: one writer, thousands of streams, each event to all.

use std::time::Duration;

use anyhow::Result;

use crate::{
    crowd::{Crowd, Spec, Times},
    lab::{Lab, Meter, REST, Server, observations},
    nchan,
    peers::{self, Cost, Load},
    proc,
    table::{Table, Target},
    write,
};

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    for streams in lab.sizes.streams.clone() {
        let rate = lab.sizes.rate;
        eprintln!("fan-out: {streams} streams, {rate} events/s");
        let (ours, events) = ours(lab, table, streams, false).await?;
        let load = Load { streams, events, rate: Some(rate) };
        let floor = peers::floor(table, load).await?;
        let nchan = peers::nchan(lab, table, load).await?;
        table.section(format!("fan-out: {streams} streams, {events} events at {rate}/s"));
        rows(table, streams, &ours, &floor, nchan.as_ref());
    }
    Ok(())
}

/// What the server's streams cost, and how many events there were.
pub(crate) async fn ours(
    lab: &Lab,
    table: &mut Table,
    streams: usize,
    gzip: bool,
) -> Result<(Cost, u32)> {
    let database = lab.database().await?;
    let server = lab.serve(&database, &[]).await?;
    let spec = Spec { gzip, ..Spec::of(server.address, streams) };
    let (mut crowd, idle_kb) = gather(&server, &spec).await?;
    let meter = Meter::start(server.pid)?;
    let helpers = Meter::start(crowd.pid())?;
    let time = Duration::from_secs(lab.sizes.seconds);
    let written = write::paced(&observations(&database), 0, lab.sizes.rate, time).await?;
    let report = crowd.changes(written.next).await?;
    table.check_order("fan-out", &report);
    let each_us = meter.each(report.changes)?;
    eprintln!("  the clients took {:.2} µs of CPU per event", helpers.each(report.changes)?);
    let times = crowd.times(&written.delays).await?;
    drop((crowd, server));
    database.drop().await?;
    Ok((
        Cost {
            each_us,
            bytes_each: report.bytes_each(),
            at_once: report.at_once(),
            times,
            idle_kb,
        },
        written.next,
    ))
}

/// Streams that have caught up and rest, and what each takes of the server's memory, in KB.
pub(crate) async fn gather(server: &Server, spec: &Spec) -> Result<(Crowd, f64)> {
    // What the first streams of a process take for good is not what each takes.
    drop(Crowd::gather(&Spec { streams: spec.streams.min(10), ..spec.clone() }).await?);
    tokio::time::sleep(REST).await;
    let before = proc::rss(server.pid)?;
    let crowd = Crowd::gather(spec).await?;
    tokio::time::sleep(REST).await;
    Ok((crowd, (proc::rss(server.pid)? - before) / spec.streams as f64))
}

fn rows(table: &mut Table, streams: usize, ours: &Cost, floor: &Cost, nchan: Option<&Cost>) {
    let of_issue = |at: usize, target: Target| if streams == at { target } else { Target::None };
    let cpu = (ours.each_us, "µs");
    let bound = of_issue(5_000, Target::AtMost(1.2));
    table.ratio("CPU per delivered event", cpu, (floor.each_us, "floor"), bound);
    let beside = (floor.at_once, "floor");
    table.ratio("  events at each read", (ours.at_once, ""), beside, Target::None);
    latencies(table, &ours.times, &floor.times, streams == 1_000);
    table.figure("  p50 from before the write", ours.times.write.p50, "ms", Target::None);
    table.figure("memory per idle stream", ours.idle_kb, "KB", Target::AtMost(8.0));
    match nchan {
        Some(nchan) => {
            let beside = (floor.each_us, "floor");
            table.ratio("nchan: CPU", (nchan.each_us, "µs"), beside, Target::None);
            table.figure(
                "nchan: publish to client, p50",
                nchan.times.write.p50,
                "ms",
                Target::None,
            );
            table.figure(
                "nchan: publish to client, p99",
                nchan.times.write.p99,
                "ms",
                Target::None,
            );
            table.figure("nchan: memory per idle stream", nchan.idle_kb, "KB", Target::None);
        }
        None => table.note("nchan", "not installed"),
    }
}

fn latencies(table: &mut Table, ours: &Times, floor: &Times, bound: bool) {
    let target = |most| if bound { Target::AtMost(most) } else { Target::None };
    let (commit, least) = (ours.commit, floor.write);
    table.beyond("commit to client, p50", (commit.p50, "ms"), (least.p50, "floor"), target(5.0));
    table.beyond("commit to client, p99", (commit.p99, "ms"), (least.p99, "floor"), target(25.0));
}

/// The line that says how the peer is got, where it is missing.
pub(crate) fn hint(lab: &Lab) -> Option<&'static str> {
    lab.nginx.is_none().then_some(nchan::HINT)
}
