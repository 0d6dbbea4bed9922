//! Search: how fast what is found gets out, as lines and as one Bundle, against the raw driver
//! cursor over the same collection; and what an index saves.

use std::{
    fmt,
    io::BufReader,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mongodb::bson::doc;
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use crate::{
    cursor,
    history::{self, Asked, Killed, NDJSON},
    lab::{Lab, Server, observations},
    proc,
    table::{Table, Target},
    write,
};

const BUNDLE: &str = "application/fhir+json";
/// All of a type, and all of it that is put to a test which it passes.
const SEARCHES: [(&str, &str); 2] = [
    ("", "/fhir/Observation"),
    (" of a code", "/fhir/Observation?code=http://loinc.org%7C29463-7"),
];
const ONE_PATIENT: &str = "/fhir/Observation?patient=p-000042";

pub(crate) async fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let count = lab.sizes.documents;
    let database = lab.database().await?;
    eprintln!("search: writing {count} Observations");
    write::burst(&observations(&database), 0, count, 1000).await?;
    lab.admin(doc! {"fsync": 1}).await?;
    let server = lab.serve(&database, &["--look-back", "0"]).await?;
    table.section(format!("search: {count} Observations from MongoDB, curl to /dev/null"));
    let mut raw = Vec::new();
    for _ in 0..lab.sizes.rounds {
        raw.push(cursor::read(&cursor::Spec { uri: lab.uri(&database), by_id: false }).await?);
    }
    let raw = history::raw_rows(table, "raw cursor", &raw);
    for (what, path) in SEARCHES {
        eprintln!("search: {path}");
        verify(&server, path, count, table)?;
        for (shape, accept) in [("NDJSON", NDJSON), ("Bundle", BUNDLE)] {
            let asked = Asked { path, accept };
            let mut sent = Vec::new();
            for _ in 0..lab.sizes.rounds {
                sent.push(history::send(lab, &server, |server| asked.by_curl(server)).await?);
            }
            let sent = history::medians(&sent, count);
            history::sent_rows(table, &format!("{shape}{what}"), &sent, raw, 0.60);
        }
    }
    slow_clients(lab, &server, table)?;
    one_patient(&server, table, "no index")?;
    let index = doc! {"key": {"subject.reference": 1, "_id": 1}, "name": "subject"};
    database.run_command(doc! {"createIndexes": "Observation", "indexes": [index]}).await?;
    one_patient(&server, table, "its index")?;
    drop(server);
    Ok(database.drop().await?)
}

/// Both shapes hold every resource once, in the order of ids; the Bundle as a parser reads it that
/// keeps nothing.
fn verify(server: &Server, path: &str, count: u32, table: &mut Table) -> Result<()> {
    let mut client = Killed(Asked { path, accept: BUNDLE }.curl(server, &[]).spawn()?);
    let written = client.0.stdout.take().context("curl's output")?;
    let bundle: Bundle = serde_json::from_reader(BufReader::new(written))?;
    if bundle.ty != "searchset" || bundle.entry.0 != u64::from(count) {
        table.fault(format!("{path}: a {} of {} of {count}", bundle.ty, bundle.entry.0));
    }
    let mut client = Killed(Asked { path, accept: NDJSON }.curl(server, &[]).spawn()?);
    let written = client.0.stdout.take().context("curl's output")?;
    let mut lines = 0;
    for line in serde_json::Deserializer::from_reader(BufReader::new(written)).into_iter() {
        let Line { resource_type } = line?;
        ensure!(resource_type == "Observation", "{path}: a {resource_type}");
        lines += 1;
    }
    if lines != count {
        table.fault(format!("{path}: {lines} lines of {count}"));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "resourceType")]
    resource_type: String,
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "type")]
    ty: String,
    entry: Entries,
}

/// How many there are.
struct Entries(u64);

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "fullUrl")]
    full_url: String,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_seq(Count)
    }
}

struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let (mut count, mut last) = (0, String::new());
        while let Some(Entry { full_url }) = entries.next_element()? {
            if full_url <= last {
                return Err(serde::de::Error::custom(format!("{full_url} after {last}")));
            }
            (count, last) = (count + 1, full_url);
        }
        Ok(Entries(count))
    }
}

/// Clients that take 1 MB a second.
fn slow_clients(lab: &Lab, server: &Server, table: &mut Table) -> Result<()> {
    let seconds = lab.sizes.slow_seconds.to_string();
    for (name, accept) in [("NDJSON", NDJSON), ("Bundle", BUNDLE)] {
        eprintln!("search: {name} at 1 MB/s for {seconds} s");
        proc::forget_peak(server.pid)?;
        let asked = Asked { path: SEARCHES[1].1, accept };
        let arguments = ["-o", "/dev/null", "--limit-rate", "1M", "--max-time", &seconds];
        let mut client = Killed(asked.curl(server, &arguments).spawn()?);
        tokio::task::block_in_place(|| client.0.wait()).context("curl")?;
        let peak = proc::peak(server.pid)? / 1024.0;
        let figure = format!("{name} to a client of 1 MB/s, peak RSS");
        table.figure(&figure, peak, "MB", Target::AtMost(64.0));
    }
    Ok(())
}

/// How long the search of one patient's resources takes.
fn one_patient(server: &Server, table: &mut Table, with: &str) -> Result<()> {
    let start = Instant::now();
    let asked = Asked { path: ONE_PATIENT, accept: NDJSON };
    let found = asked.curl(server, &[]).stderr(Stdio::null()).output()?.stdout;
    let found = found.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let took: Duration = start.elapsed();
    let figure = format!("one patient's {found}, with {with}");
    table.figure(&figure, took.as_secs_f64() * 1e3, "ms", Target::None);
    Ok(())
}
