//! Streams on which nothing happens: what each takes of memory, and all of CPU.

use std::time::Duration;

use anyhow::Result;

use crate::{
    crowd::Spec,
    fanout,
    lab::{Lab, Meter},
    table::{Table, Target},
};

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    for streams in lab.sizes.idle_streams.clone() {
        eprintln!("idle: {streams} streams");
        let database = lab.database().await?;
        let server = lab.serve(&database, &[]).await?;
        let (mut crowd, idle_kb) =
            fanout::gather(&server, &Spec::of(server.address, streams)).await?;
        let meter = Meter::start(server.pid)?;
        tokio::time::sleep(Duration::from_secs(lab.sizes.seconds)).await;
        let per_second = meter.per_second()?;
        table.check("idle", &crowd.level().await?);
        drop((crowd, server));
        database.drop().await?;

        table.section(format!("idle: {streams} streams for {} s", lab.sizes.seconds));
        table.figure("memory per stream", idle_kb, "KB", Target::AtMost(8.0));
        table.figure("the server's CPU", per_second, "ms/s", Target::None);
    }
    Ok(())
}
