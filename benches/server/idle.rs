//! Streams on which nothing happens: what each takes of memory, and all of CPU; and how long it
//! takes to list them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

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
        let listed = [list(server.address, "").await?, list(server.address, ".json").await?];
        drop((crowd, server));
        database.drop().await?;

        table.section(format!("idle: {streams} streams for {} s", lab.sizes.seconds));
        table.figure("memory per stream", idle_kb, "KB", Target::AtMost(8.0));
        table.figure("the server's CPU", per_second, "ms/s", Target::None);
        table.figure("/streams, the page", listed[0], "ms", Target::None);
        table.figure("/streams.json", listed[1], "ms", Target::None);
    }
    Ok(())
}

/// The middle one of some times that the list of the streams took, in ms.
async fn list(address: SocketAddr, kind: &str) -> Result<f64> {
    // Whoever comes second finds one installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut times = Vec::new();
    for _ in 0..9 {
        let start = Instant::now();
        let answer = client.get(format!("http://{address}/streams{kind}")).send().await?;
        ensure!(answer.status().is_success(), "/streams{kind}: {}", answer.status());
        answer.bytes().await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
