//! Streams that each follow a patient of their own, beside one stream that follows all.

use std::time::Duration;

use anyhow::Result;
use mongodb::{
    Database,
    bson::{DateTime, Document, doc},
};

use crate::{
    crowd::{Report, Spec, Times},
    fanout,
    lab::{Lab, Meter, observations},
    peers::{self, Load},
    table::{Table, Target},
    write::Writer,
};

/// What the floor is measured with: the fan-out of that section.
const FLOOR: Load = Load { streams: 1_000, events: 100, rate: Some(20.0) };

/// What streams cost.
struct Cost {
    /// CPU microseconds per change.
    each_us: f64,
    changes: u32,
    report: Report,
    times: Times,
    idle_kb: f64,
}

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let (streams, rate) = (lab.sizes.filtered_streams, lab.sizes.filtered_rate);
    eprintln!("filtered: {streams} streams, {rate} changes/s");
    let one = cost(lab, table, 1, "/fhir/Observation/$export").await?;
    let ours = cost(lab, table, streams, "/fhir/Group/g-{}/$export?_type=Observation").await?;
    let floor = peers::floor(table, Load { streams: FLOOR.streams.min(streams), ..FLOOR }).await?;

    let delivered = ours.report.changes as f64 / f64::from(ours.changes);
    let beside = one.each_us + delivered * floor.each_us;
    let changes = ours.changes;
    table.section(format!(
        "filtered: {streams} streams, each of its own patient, {changes} changes at {rate}/s"
    ));
    let cpu = (ours.each_us, "µs");
    table.ratio("CPU per change", cpu, (beside, "one + floor"), Target::AtMost(2.0));
    table.figure("  one stream of all", one.each_us, "µs", Target::None);
    table.figure("  floor, per delivered event", floor.each_us, "µs", Target::None);
    let (commit, least) = (ours.times.commit, one.times.commit);
    table.beyond("commit to client, p50", (commit.p50, "ms"), (least.p50, "one"), Target::None);
    table.beyond("commit to client, p99", (commit.p99, "ms"), (least.p99, "one"), Target::None);
    table.figure("memory per idle stream", ours.idle_kb, "KB", Target::None);
    Ok(())
}

/// What so many streams cost a server of their own, each of which is sent its share of the
/// changes.
async fn cost(lab: &Lab, table: &mut Table, streams: usize, path: &str) -> Result<Cost> {
    let (patients, rate) = (lab.sizes.filtered_streams, lab.sizes.filtered_rate);
    let database = lab.database().await?;
    write_groups(&database, patients).await?;
    let server = lab.serve(&database, &[]).await?;
    let (path, shares) = (path.to_owned(), u32::try_from(streams)?);
    let spec = Spec { path, shares, ..Spec::of(server.address, streams) };
    let (mut crowd, idle_kb) = fanout::gather(&server, &spec).await?;
    let meter = Meter::start(server.pid)?;
    let writer = Writer::among(u32::try_from(patients)?, observations(&database), 0, rate);
    tokio::time::sleep(Duration::from_secs(lab.sizes.seconds)).await;
    let written = writer.stop().await?;
    let report = crowd.changes(written.next).await?;
    table.check_order("filtered", &report);
    let each_us = meter.each(written.next.into())?;
    let times = crowd.times(&written.delays).await?;
    drop((crowd, server));
    database.drop().await?;
    Ok(Cost { each_us, changes: written.next, report, times, idle_kb })
}

/// A Group for each patient of the Observations.
async fn write_groups(database: &Database, patients: usize) -> Result<()> {
    let group = |n: usize| {
        doc! {
            "_id": format!("g-{n}"),
            "resourceType": "Group",
            "meta": {"versionId": "1", "lastUpdated": DateTime::now()},
            "type": "person",
            "actual": true,
            "member": [{"entity": {"reference": format!("Patient/p-{n:06}")}}],
        }
    };
    database.collection::<Document>("Group").insert_many((0..patients).map(group)).await?;
    Ok(())
}
