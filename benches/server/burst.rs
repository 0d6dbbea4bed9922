//! Fan-out, in a burst: changes as fast as MongoDB takes them. Who writes many events at once to
//! a socket pays less than the floor, which writes each by itself.

use anyhow::Result;

use crate::{
    crowd::Spec,
    fanout,
    lab::{Lab, Meter, observations},
    peers::{self, Load},
    table::{Table, Target},
    write,
};

/// How many documents go into one unordered insert.
const BATCH: u32 = 100;

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let (streams, events) = (lab.sizes.burst_streams, lab.sizes.burst_changes);
    eprintln!("burst: {events} changes to {streams} streams");
    let database = lab.database().await?;
    let server = lab.serve(&database, &[]).await?;
    let (mut crowd, _) = fanout::gather(&server, &Spec::of(server.address, streams)).await?;
    let meter = Meter::start(server.pid)?;
    write::burst(&observations(&database), 0, events, BATCH).await?;
    let report = crowd.changes(events).await?;
    table.check("burst", &report);
    let each_us = meter.each(report.changes)?;
    let times = crowd.times(&[]).await?;
    drop((crowd, server));
    database.drop().await?;
    let load = Load { streams, events, rate: None };
    let floor = peers::floor(table, load).await?;
    // Its clients find several events at each look; paced, each event wakes each of them.
    let few = (lab.sizes.rate * lab.sizes.seconds as f64) as u32;
    let pace = Load { events: few, rate: Some(lab.sizes.rate), ..load };
    let paced = peers::floor(table, pace).await?;
    let nchan = peers::nchan(lab, table, load).await?;

    table.section(format!("burst: {events} changes to {streams} streams"));
    let beside = (floor.each_us, "floor");
    let bound = Target::AtMost(0.25);
    table.ratio("CPU per delivered event", (each_us, "µs"), beside, bound);
    let same = "  the same, against the floor paced";
    table.ratio(same, (each_us, "µs"), (paced.each_us, "floor"), bound);
    table.ratio(
        "first to last arrival",
        (times.span, "s"),
        (floor.times.span, "floor"),
        Target::None,
    );
    if let Some(nchan) = nchan {
        table.ratio("nchan: CPU", (nchan.each_us, "µs"), beside, Target::None);
        table.figure("nchan: first to last arrival", nchan.times.span, "s", Target::None);
    }
    Ok(())
}
