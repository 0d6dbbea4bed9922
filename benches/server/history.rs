//! History: how fast a whole collection gets out, against the raw driver cursor over the same
//! collection, with curl as the client.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mongodb::bson::doc;

use crate::{
    crowd::{Crowd, PATIENCE, Spec},
    cursor::{self, ReadAll},
    lab::{Lab, Meter, Server, observations},
    proc,
    table::{Table, Target},
    write,
};

pub(crate) const NDJSON: &str = "application/fhir+ndjson";
const SSE: &str = "text/event-stream";
const PATH: &str = "/fhir/Observation/$export";

/// A history that was sent whole.
pub(crate) struct Sent {
    seconds: f64,
    bytes: u64,
    /// CPU microseconds of the server and of mongod per resource.
    server_us: f64,
    mongod_us: f64,
    peak_mb: f64,
}

/// Medians over the rounds.
pub(crate) struct Medians {
    per_second: f64,
    mb_per_second: f64,
    server_us: f64,
    mongod_us: f64,
    peak_mb: f64,
}

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let count = lab.sizes.documents;
    let database = lab.database().await?;
    eprintln!("history: writing {count} Observations");
    write::burst(&observations(&database), 0, count, 1000).await?;
    lab.admin(doc! {"fsync": 1}).await?;
    // The writes above would else be read again, as changes of the last minutes.
    let server = lab.serve(&database, &["--look-back", "0"]).await?;
    eprintln!("history: checking that both formats are whole");
    verify(&server, count, table).await?;
    let uri = lab.uri(&database);
    let spec = |by_id| cursor::Spec { uri: uri.clone(), by_id };
    let (mut raw, mut by_id, mut ndjson, mut sse) = (vec![], vec![], vec![], vec![]);
    for round in 1..=lab.sizes.rounds {
        eprintln!("history: round {round}");
        raw.push(cursor::read(&spec(false)).await?);
        by_id.push(cursor::read(&spec(true)).await?);
        let sent = send(lab, &server, ndjson_by_curl).await?;
        let bytes = sent.bytes;
        ndjson.push(sent);
        sse.push(send(lab, &server, |server| sse_by_curl(server, bytes)).await?);
    }
    table.section(format!("history: {count} Observations from MongoDB, curl to /dev/null"));
    let raw = raw_rows(table, "raw cursor", &raw);
    raw_rows(table, "raw cursor by _id", &by_id);
    sent_rows(table, "NDJSON", &medians(&ndjson, count), raw, 0.70);
    sent_rows(table, "SSE", &medians(&sse, count), raw, 0.60);
    first_bytes(lab, &server, table)?;
    slow_clients(lab, &server, table)?;
    drop(server);
    Ok(database.drop().await?)
}

/// Both formats hold every resource once: lines by `wc`, events by the crowd's own count.
async fn verify(server: &Server, count: u32, table: &mut Table) -> Result<()> {
    let url = server.url(PATH);
    let pipe = "curl -s -H \"Accept: $1\" \"$2\" | sort -u | wc -l";
    let lines = Command::new("sh").args(["-c", pipe, "sh", NDJSON, &url]).output()?.stdout;
    let lines: u32 = String::from_utf8(lines)?.trim().parse()?;
    if lines != count {
        table.fault(format!("NDJSON: {lines} distinct lines of {count} resources"));
    }
    let mut crowd = Crowd::start(&Spec { timed: false, ..Spec::of(server.address, 1) })?;
    crowd.level().await?;
    table.check_order("SSE history", &crowd.changes(count).await?);
    Ok(())
}

/// Lets a client take a history, and says what that took.
pub(crate) async fn send(
    lab: &Lab,
    server: &Server,
    take: impl FnOnce(&Server) -> Result<(f64, u64)>,
) -> Result<Sent> {
    proc::forget_peak(server.pid)?;
    let (ours, theirs) = (Meter::start(server.pid)?, Meter::start(lab.mongod)?);
    let (seconds, bytes) = tokio::task::block_in_place(|| take(server))?;
    let count = lab.sizes.documents.into();
    Ok(Sent {
        seconds,
        bytes,
        server_us: ours.each(count)?,
        mongod_us: theirs.each(count)?,
        peak_mb: proc::peak(server.pid)? / 1024.0,
    })
}

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) path: &'a str,
    pub(crate) accept: &'a str,
}

impl Asked<'_> {
    pub(crate) fn curl(self, server: &Server, arguments: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-H", &format!("Accept: {}", self.accept)]);
        curl.args(arguments).arg(server.url(self.path)).stdout(Stdio::piped());
        curl
    }

    /// Seconds and bytes of a whole answer.
    pub(crate) fn by_curl(self, server: &Server) -> Result<(f64, u64)> {
        let arguments = ["-o", "/dev/null", "-w", "%{http_code} %{time_total} %{size_download}"];
        let output = self.curl(server, &arguments).output()?;
        let said = String::from_utf8(output.stdout)?;
        let said: Vec<&str> = said.split(' ').collect();
        ensure!(output.status.success() && said.first() == Some(&"200"), "curl: {said:?}");
        let [_, seconds, bytes] = said[..] else { bail!("curl: {said:?}") };
        Ok((seconds.parse()?, bytes.parse()?))
    }
}

fn curl(server: &Server, accept: &str, arguments: &[&str]) -> Command {
    let mut curl = Asked { path: PATH, accept }.curl(server, arguments);
    curl.args(["-o", "/dev/null"]);
    curl
}

fn ndjson_by_curl(server: &Server) -> Result<(f64, u64)> {
    Asked { path: PATH, accept: NDJSON }.by_curl(server)
}

/// Seconds and bytes until nothing more comes. An event stream never ends: it is over when curl
/// has written more than the resources' bytes alone, and then nothing for a while.
fn sse_by_curl(server: &Server, at_least: u64) -> Result<(f64, u64)> {
    const LOOK: Duration = Duration::from_millis(5);
    const QUIET: Duration = Duration::from_millis(400);
    let start = Instant::now();
    let client = Killed(curl(server, SSE, &["-N"]).spawn()?);
    let (mut bytes, mut last) = (0, Duration::ZERO);
    while bytes < at_least || start.elapsed() < last + QUIET {
        ensure!(start.elapsed() < Duration::from_secs(PATIENCE), "an event stream without end");
        std::thread::sleep(LOOK);
        let written = proc::written(client.0.id())?;
        if written > bytes {
            (bytes, last) = (written, start.elapsed());
        }
    }
    Ok((last.as_secs_f64(), bytes))
}

/// A child that does not outlive this.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn medians(sent: &[Sent], count: u32) -> Medians {
    let of = |value: fn(&Sent) -> f64| median(sent.iter().map(value).collect());
    let seconds = of(|sent| sent.seconds);
    Medians {
        per_second: f64::from(count) / seconds,
        mb_per_second: of(|sent| sent.bytes as f64 / sent.seconds / 1e6),
        server_us: of(|sent| sent.server_us),
        mongod_us: of(|sent| sent.mongod_us),
        peak_mb: sent.iter().map(|sent| sent.peak_mb).fold(0.0, f64::max),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Documents per second.
pub(crate) fn raw_rows(table: &mut Table, name: &str, read: &[ReadAll]) -> f64 {
    let of = |value: fn(&ReadAll) -> f64| median(read.iter().map(value).collect());
    let per_second = of(|read| read.documents as f64 / read.seconds);
    table.figure(name, per_second, "docs/s", Target::None);
    let mb = of(|read| read.bytes as f64 / read.seconds / 1e6);
    table.figure(&format!("{name}, BSON"), mb, "MB/s", Target::None);
    per_second
}

pub(crate) fn sent_rows(table: &mut Table, name: &str, sent: &Medians, raw: f64, share: f64) {
    let beside = (raw, "raw cursor");
    table.ratio(name, (sent.per_second, "docs/s"), beside, Target::AtLeast(share));
    table.figure(&format!("{name}, bytes"), sent.mb_per_second, "MB/s", Target::None);
    let figure = format!("{name}, server's CPU per resource");
    table.figure(&figure, sent.server_us, "µs", Target::None);
    let figure = format!("{name}, mongod's CPU per resource");
    table.figure(&figure, sent.mongod_us, "µs", Target::None);
    let figure = format!("{name}, the server's peak RSS");
    table.figure(&figure, sent.peak_mb, "MB", Target::AtMost(64.0));
}

fn first_bytes(lab: &Lab, server: &Server, table: &mut Table) -> Result<()> {
    let times = (0..lab.sizes.rounds.max(3)).map(|_| {
        let curl =
            curl(server, NDJSON, &["--max-time", "1", "-w", "%{time_starttransfer}"]).output()?;
        Ok(String::from_utf8(curl.stdout)?.parse::<f64>()? * 1e3)
    });
    let time = median(times.collect::<Result<_>>()?);
    table.figure("NDJSON, first byte at curl", time, "ms", Target::AtMost(50.0));
    for (name, accept) in [("NDJSON", NDJSON), ("SSE", SSE)] {
        let times = (0..lab.sizes.rounds.max(3)).map(|_| first_resource(server, accept));
        let time = median(times.collect::<Result<_>>()?);
        let figure = format!("{name}, first resource's first byte");
        table.figure(&figure, time, "ms", Target::AtMost(50.0));
    }
    Ok(())
}

/// Milliseconds from the connection to the first resource's first byte.
fn first_resource(server: &Server, accept: &str) -> Result<f64> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(PATIENCE)))?;
    write!(stream, "GET {PATH} HTTP/1.1\r\nHost: bench\r\nAccept: {accept}\r\n\r\n")?;
    let (mut got, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "no resource came");
        got.extend_from_slice(&buffer[..read]);
        let head = got.windows(4).position(|window| window == b"\r\n\r\n");
        if head.is_some_and(|head| got[head..].contains(&b'{')) {
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
    }
}

/// Clients that take 1 MB a second.
fn slow_clients(lab: &Lab, server: &Server, table: &mut Table) -> Result<()> {
    let seconds = lab.sizes.slow_seconds.to_string();
    for (name, accept) in [("NDJSON", NDJSON), ("SSE", SSE)] {
        eprintln!("history: {name} at 1 MB/s for {seconds} s");
        proc::forget_peak(server.pid)?;
        let arguments = ["--limit-rate", "1M", "--max-time", &seconds];
        let mut client = Killed(curl(server, accept, &arguments).spawn()?);
        tokio::task::block_in_place(|| client.0.wait()).context("curl")?;
        let peak = proc::peak(server.pid)? / 1024.0;
        let figure = format!("{name} to a client of 1 MB/s, peak RSS");
        table.figure(&figure, peak, "MB", Target::AtMost(64.0));
    }
    Ok(())
}
