//! A reconnect storm: thousands of clients go on at once, from positions all over the ring and
//! before it, while changes flow and others are well connected.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;
use mongodb::{
    Client, Collection,
    bson::{Bson, Document, doc},
};
use tempfile::TempDir;

use crate::{
    Sizes,
    crowd::{Crowd, Quantiles, Report, Spec},
    lab::{Lab, Server, observations},
    proc,
    table::{Table, Target},
    write::{self, Writer},
};

/// How many clients stay connected meanwhile.
const STEADY: usize = 100;

/// How many change streams may be open at once.
const CHANGE_STREAMS: f64 = 8.0;

const NOTHING: Target = Target::AtMost(0.0);

/// What the clients of a storm met.
struct Storm {
    /// When the last had caught up.
    level: Report,
    /// When no more was written.
    end: Report,
    most_change_streams: usize,
    peak_mb: f64,
    calm: Quantiles,
    during: Quantiles,
    /// Once all are live.
    after: Quantiles,
}

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let database = lab.database().await?;
    let ring_bytes = lab.sizes.storm_ring.to_string();
    let server = lab.serve(&database, &["--ring-bytes", &ring_bytes]).await?;
    let folder = tempfile::tempdir()?;
    let into = observations(&database);
    let log = write_log(lab, &server, &into, &folder).await?;
    let in_ring = server.metric("fhirtail_ring_changes").await?.context("the ring's metric")?;
    let in_ring = (in_ring as usize).min(log.len());
    let last = log.iter().rev().take(1).cycle().take(STEADY);
    let steady = Spec {
        net: 2,
        resume: Some(resume_file(&folder, "steady", last)?),
        ..Spec::of(server.address, STEADY)
    };
    let lines = spread(&log, in_ring, lab.sizes.storm_streams);
    let spec = Spec {
        resume: Some(resume_file(&folder, "storm", lines)?),
        until_level: false,
        at_once: 1000,
        timed: false,
        ..Spec::of(server.address, lab.sizes.storm_streams)
    };
    let steady = Crowd::gather(&steady).await?;
    let next = u32::try_from(log.len())?;
    let storm = rush(lab, table, &server, (&into, next), steady, &spec).await?;
    rows(table, &storm, in_ring, log.len() - in_ring);
    drop(server);
    Ok(database.drop().await?)
}

/// Lets the clients of `spec` come at once, while changes are written from `next` on.
async fn rush(
    lab: &Lab,
    table: &mut Table,
    server: &Server,
    (into, next): (&Collection<Document>, u32),
    mut steady: Crowd,
    spec: &Spec,
) -> Result<Storm> {
    let Sizes { rate, seconds, .. } = lab.sizes;
    eprintln!("storm: {STEADY} well-connected clients, calm");
    let written = write::paced(into, next, rate, Duration::from_secs(seconds)).await?;
    steady.changes(written.next).await?;
    let calm = steady.times(&written.delays).await?.commit;

    eprintln!("storm: {} clients go on at once", spec.streams);
    proc::forget_peak(server.pid)?;
    let writer = Writer::start(into.clone(), written.next, rate);
    let census = Census::start(lab.client(), into.namespace().db);
    let mut storm = Crowd::start(spec)?;
    let level = storm.level().await?;
    let most_change_streams = census.stop().await?;
    let written = writer.stop().await?;
    let end = storm.changes(written.next).await?;
    table.check_order("storm", &level);
    table.check_order("storm", &end);
    table.check_order("storm, well connected", &steady.changes(written.next).await?);
    let during = steady.times(&written.delays).await?.commit;
    let peak_mb = proc::peak(server.pid)? / 1024.0;

    eprintln!("storm: all are live");
    let written = write::paced(into, written.next, rate, Duration::from_secs(seconds)).await?;
    steady.changes(written.next).await?;
    let after = steady.times(&written.delays).await?.commit;
    Ok(Storm { level, end, most_change_streams, peak_mb, calm, during, after })
}

fn rows(table: &mut Table, storm: &Storm, in_ring: usize, before: usize) {
    let Storm { level, end, .. } = storm;
    let streams = level.streams;
    table.section(format!(
        "storm: {streams} clients, {in_ring} changes in the ring, {before} before it"
    ));
    let all = Target::AtLeast(streams as f64);
    table.figure("caught up", level.level as f64, "clients", all);
    table.figure("  after", level.level_after, "s", Target::None);
    table.figure("  lost or sent twice", (end.missing + end.repeated) as f64, "changes", NOTHING);
    table.figure("sent", end.bytes as f64 / 1e6, "MB", Target::None);
    let most = storm.most_change_streams as f64;
    let bound = Target::AtMost(CHANGE_STREAMS);
    table.figure("most change streams open, the tail's too", most, "", bound);
    latencies(table, storm);
    table.figure("the server's peak RSS", storm.peak_mb, "MB", Target::None);
}

fn latencies(table: &mut Table, storm: &Storm) {
    let Storm { calm, during, after, .. } = storm;
    let mut row = |what: &str, during: f64, beside: (f64, &'static str), bound| {
        table.ratio(
            &format!("well connected: commit to client, {what}"),
            (during, "ms"),
            beside,
            bound,
        );
    };
    row("p99", during.p99, (calm.p99, "calm"), Target::AtMost(3.0));
    row("p50", during.p50, (calm.p50, "calm"), Target::None);
    row("p99", during.p99, (after.p99, "all live"), Target::None);
    row("p50", during.p50, (after.p50, "all live"), Target::None);
}

/// Writes what the storm's clients missed. Gives a line per change: the number of the next one,
/// and the id after it.
async fn write_log(
    lab: &Lab,
    server: &Server,
    into: &Collection<Document>,
    folder: &TempDir,
) -> Result<Vec<String>> {
    let (changes, rate) = (lab.sizes.storm_changes, lab.sizes.storm_rate);
    eprintln!("storm: writing {changes} changes at {rate}/s");
    let file = folder.path().join("log");
    let follower = Spec { log: Some(file.clone()), timed: false, ..Spec::of(server.address, 1) };
    let mut follower = Crowd::gather(&follower).await?;
    let time = Duration::from_secs_f64(f64::from(changes) / rate);
    let written = write::paced(into, 0, rate, time).await?;
    let report = follower.changes(written.next).await?;
    ensure!(report.missing == 0, "the follower lacks changes: {report:?}");
    let log: Vec<String> = fs::read_to_string(file)?.lines().map(str::to_owned).collect();
    ensure!(log.len() == written.next as usize, "the follower's log is short");
    Ok(log)
}

/// Half of the clients from all over the ring, half from all over what is before it.
fn spread(log: &[String], in_ring: usize, clients: usize) -> impl Iterator<Item = &String> {
    let (before, ring) = log.split_at(log.len() - in_ring);
    let older = if before.is_empty() { 0 } else { clients / 2 };
    let evenly = |lines, count: usize| {
        let lines: &[String] = lines;
        (0..count).map(move |index| &lines[index * lines.len() / count])
    };
    evenly(before, older).chain(evenly(ring, clients - older))
}

fn resume_file<'l>(
    folder: &TempDir,
    name: &str,
    lines: impl Iterator<Item = &'l String>,
) -> Result<PathBuf> {
    let file: &Path = &folder.path().join(name);
    let lines: Vec<&str> = lines.map(String::as_str).collect();
    fs::write(file, lines.join("\n"))?;
    Ok(file.to_owned())
}

/// Counts the change streams that are open, again and again.
struct Census {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<usize>>,
}

impl Census {
    /// Of this database alone: cursors of servers that were ended before stay open for a while.
    fn start(client: Client, database: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut most = 0;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(open_change_streams(&client, &database).await?);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(most)
        });
        Self { stop, task }
    }

    /// The most there were at any time.
    async fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

async fn open_change_streams(client: &Client, database: &str) -> Result<usize> {
    let all = doc! {"$currentOp": {"idleCursors": true, "allUsers": true}};
    let operations = client.database("admin").aggregate([all]).await?;
    let operations: Vec<Document> = operations.try_collect().await?;
    let (mut cursors, mut sessions) = (HashSet::new(), HashSet::new());
    let mut opening = HashSet::new();
    for operation in &operations {
        let session = format!("{:?}", operation.get("lsid"));
        match operation.get_document("cursor") {
            Ok(cursor) if asks(cursor.get("originatingCommand"), database) => {
                cursors.insert(format!("{:?}", cursor.get("cursorId")));
                sessions.insert(session);
            }
            Err(_) if asks(operation.get("command"), database) => {
                opening.insert(session);
            }
            _ => {}
        }
    }
    // Cursors are listed after operations: one that was opening may stand in both lists.
    Ok(cursors.len() + opening.difference(&sessions).count())
}

/// Whether a command asks for a change stream over a database.
fn asks(command: Option<&Bson>, database: &str) -> bool {
    let of_it = |command: &&Document| command.get_str("$db").is_ok_and(|name| name == database);
    let command = command.and_then(Bson::as_document).filter(of_it);
    let stages = command.and_then(|command| command.get_array("pipeline").ok());
    let first = stages.and_then(|stages| stages.first()).and_then(Bson::as_document);
    first.is_some_and(|first| first.contains_key("$changeStream"))
}
