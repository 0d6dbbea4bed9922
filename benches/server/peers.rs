//! What the same streams and events cost the floor and nchan.

use std::time::Duration;

use anyhow::Result;
use tokio::task::spawn_blocking;

use crate::{
    crowd::{Crowd, Spec, Times},
    floor::Floor,
    lab::{Lab, Meter, REST},
    nchan::{self, Nchan},
    proc,
    table::Table,
};

/// How many connections publish to nchan where speed counts.
const PUBLISHERS: u32 = 8;

/// Events to streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) streams: usize,
    pub(crate) events: u32,
    /// Events a second; `None`: as fast as it goes.
    pub(crate) rate: Option<f64>,
}

/// What they cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// CPU microseconds per delivered event.
    pub(crate) each_us: f64,
    /// Bytes that clients read, per event.
    pub(crate) bytes_each: f64,
    /// Events that a client found at each read.
    pub(crate) at_once: f64,
    pub(crate) times: Times,
    /// Memory per idle stream, in KB, before the first event.
    pub(crate) idle_kb: f64,
}

pub(crate) async fn floor(table: &mut Table, load: Load) -> Result<Cost> {
    eprintln!("  the floor: {load:?}");
    let mut floor = Floor::start(load.streams).await?;
    let before = proc::rss(floor.pid())?;
    let mut crowd = Crowd::gather(&Spec::of_peer(floor.address, "/", load.streams)).await?;
    let idle_kb = (proc::rss(floor.pid())? - before) / load.streams as f64;
    let meter = Meter::start(floor.pid())?;
    floor.send(load.events, load.rate).await?;
    let report = crowd.changes(load.events).await?;
    table.check_order("the floor", &report);
    let each_us = meter.each(report.changes)?;
    Ok(Cost {
        each_us,
        bytes_each: report.bytes_each(),
        at_once: report.at_once(),
        times: crowd.times(&[]).await?,
        idle_kb,
    })
}

/// `None`: it is not installed.
pub(crate) async fn nchan(lab: &Lab, table: &mut Table, load: Load) -> Result<Option<Cost>> {
    let Some(binary) = &lab.nginx else {
        eprintln!("  {}", nchan::HINT);
        return Ok(None);
    };
    eprintln!("  nchan: {load:?}");
    let nchan = Nchan::start(binary)?;
    let before = proc::rss(nchan.worker)?;
    let spec = Spec::of_peer(nchan.address, nchan::SUBSCRIBE, load.streams);
    let mut crowd = Crowd::gather(&spec).await?;
    tokio::time::sleep(REST).await;
    let idle_kb = (proc::rss(nchan.worker)? - before) / load.streams as f64;
    let meter = Meter::start(nchan.worker)?;
    publish(&nchan, load).await?;
    let report = crowd.changes(load.events).await?;
    table.check("nchan", &report);
    let each_us = meter.each(report.changes)?;
    let times = crowd.times(&[]).await?;
    Ok(Some(Cost {
        each_us,
        bytes_each: report.bytes_each(),
        at_once: report.at_once(),
        times,
        idle_kb,
    }))
}

async fn publish(nchan: &Nchan, load: Load) -> Result<()> {
    // Whoever has just subscribed is to be seen by the publisher's side too.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (address, rate) = (nchan.address, load.rate);
    let publishers = if rate.is_some() { 1 } else { PUBLISHERS };
    let all = (0..publishers).map(|first| {
        let seqs = (first..load.events).step_by(publishers as usize);
        spawn_blocking(move || Nchan::publish(address, seqs, rate))
    });
    for publisher in all.collect::<Vec<_>>() {
        publisher.await??;
    }
    Ok(())
}
