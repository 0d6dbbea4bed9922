//! What streams cost MongoDB: its CPU with many of them against one, under the same writes.

use std::time::Duration;

use anyhow::Result;

use crate::{
    crowd::{Crowd, Spec},
    lab::{Lab, Meter, REST, observations},
    table::{Table, Target},
    write,
};

/// How often both are measured, in turn.
const ROUNDS: u32 = 2;

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let (many, rate) = (lab.sizes.mongod_streams, lab.sizes.rate);
    let (mut with_one, mut with_many) = (0.0, 0.0);
    for round in 1..=ROUNDS {
        eprintln!("mongod: round {round}");
        with_one += per_second(lab, table, 1).await?;
        with_many += per_second(lab, table, many).await?;
    }
    let rounds = f64::from(ROUNDS);
    table.section(format!("mongod: {many} streams, {rate} events/s"));
    let beside = (with_one / rounds, "one stream");
    table.ratio("mongod's CPU", (with_many / rounds, "ms/s"), beside, Target::AtMost(1.1));
    Ok(())
}

/// mongod's CPU in milliseconds per second.
async fn per_second(lab: &Lab, table: &mut Table, streams: usize) -> Result<f64> {
    let database = lab.database().await?;
    let server = lab.serve(&database, &[]).await?;
    let mut crowd = Crowd::gather(&Spec::of(server.address, streams)).await?;
    tokio::time::sleep(REST).await;
    let meter = Meter::start(lab.mongod)?;
    let time = Duration::from_secs(lab.sizes.seconds);
    let written = write::paced(&observations(&database), 0, lab.sizes.rate, time).await?;
    let per_second = meter.per_second()?;
    table.check_order("mongod", &crowd.changes(written.next).await?);
    drop((crowd, server));
    database.drop().await?;
    Ok(per_second)
}
