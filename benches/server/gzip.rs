//! Streams as browsers ask for them, in gzip, beside the same ones plain.

use anyhow::Result;

use crate::{
    fanout,
    lab::Lab,
    table::{Table, Target},
};

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let streams = lab.sizes.gzip_streams;
    eprintln!("gzip: {streams} streams");
    let (plain, _) = fanout::ours(lab, table, streams, false).await?;
    let (gzip, events) = fanout::ours(lab, table, streams, true).await?;
    let rate = lab.sizes.rate;
    table.section(format!("gzip: {streams} streams, {events} events at {rate}/s"));
    let beside = (plain.each_us, "plain");
    table.ratio("CPU per delivered event", (gzip.each_us, "µs"), beside, Target::None);
    let beside = (plain.bytes_each, "plain");
    table.ratio("  its bytes", (gzip.bytes_each, ""), beside, Target::None);
    let beside = (plain.idle_kb, "plain");
    table.figure("memory per idle stream", gzip.idle_kb, "KB", Target::AtMost(8.0));
    table.ratio("  beside plain", (gzip.idle_kb, "KB"), beside, Target::None);
    let beside = (plain.times.commit.p99, "plain");
    table.ratio("commit to client, p99", (gzip.times.commit.p99, "ms"), beside, Target::None);
    Ok(())
}
