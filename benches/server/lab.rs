//! What a measurement works with: a MongoDB of its own, servers, and the sizes that were asked.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use mongodb::{
    Client, Collection, Database,
    bson::{Document, doc},
};
use support::{
    mongod::{ReplicaSet, fresh_database},
    process::Process,
    stream::client,
};

use crate::{Sizes, nchan, proc};

/// How long a server rests before its memory is read.
pub(crate) const REST: Duration = Duration::from_secs(3);

/// The place of a run.
pub(crate) struct Lab {
    set: ReplicaSet,
    client: Client,
    /// mongod's process.
    pub(crate) mongod: u32,
    pub(crate) nginx: Option<PathBuf>,
    pub(crate) sizes: Sizes,
}

impl Lab {
    pub(crate) async fn open(sizes: Sizes) -> Result<Self> {
        let set = ReplicaSet::start(1, &["--oplogSize", "990"]).await.context("mongod")?;
        // The tests' mongods are small; this one is to hold its collections in memory.
        set.set_parameter(doc! {"wiredTigerEngineRuntimeConfig": "cache_size=2G"}).await;
        let status = set.admin(doc! {"serverStatus": 1}).await;
        let mongod = match status.get_i64("pid") {
            Ok(pid) => u32::try_from(pid)?,
            Err(_) => u32::try_from(status.get_i32("pid")?)?,
        };
        let client = set.client().await;
        Ok(Self { set, client, mongod, nginx: nchan::binary(), sizes })
    }

    /// A database with a collection of Observations as a server makes it.
    pub(crate) async fn database(&self) -> Result<Database> {
        let database = self.client.database(&fresh_database());
        let images = doc! {"enabled": true};
        let create = doc! {"create": "Observation", "changeStreamPreAndPostImages": images};
        database.run_command(create).await?;
        let key = doc! {"meta.lastUpdated": 1, "_id": 1};
        let index = doc! {"key": key, "name": "meta.lastUpdated_1__id_1"};
        database.run_command(doc! {"createIndexes": "Observation", "indexes": [index]}).await?;
        Ok(database)
    }

    /// How a process names a database.
    pub(crate) fn uri(&self, database: &Database) -> String {
        self.set.uri(database.name())
    }

    /// A server on a database, ready.
    pub(crate) async fn serve(&self, database: &Database, arguments: &[&str]) -> Result<Server> {
        let given = self.sizes.serve_args.iter().map(String::as_str);
        let arguments: Vec<&str> = arguments.iter().copied().chain(given).collect();
        let uri = self.uri(database);
        let process = tokio::task::block_in_place(|| Process::serve(&uri, &arguments));
        let address = process.url("").trim_start_matches("http://").parse()?;
        let server = Server { pid: process.pid(), process, address };
        server.wait_until_ready().await?;
        Ok(server)
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs an admin command.
    pub(crate) async fn admin(&self, command: Document) -> Result<Document> {
        Ok(self.client.database("admin").run_command(command).await?)
    }
}

/// The Observations of a database.
pub(crate) fn observations(database: &Database) -> Collection<Document> {
    database.collection("Observation")
}

/// A running server.
pub(crate) struct Server {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    process: Process,
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        self.process.url(path)
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let http = client();
        for _ in 0..500 {
            let ready = http.get(self.url("/readyz")).send().await;
            if ready.is_ok_and(|ready| ready.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the server does not become ready");
    }

    /// A metric that has no labels.
    pub(crate) async fn metric(&self, name: &str) -> Result<Option<f64>> {
        let text = client().get(self.url("/metrics")).send().await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.and_then(|value| value.parse().ok()))
    }
}

/// CPU of a process from now on.
pub(crate) struct Meter {
    pid: u32,
    before: Duration,
    since: std::time::Instant,
}

impl Meter {
    pub(crate) fn start(pid: u32) -> Result<Self> {
        Ok(Self { pid, before: proc::cpu(pid)?, since: std::time::Instant::now() })
    }

    /// CPU seconds so far.
    pub(crate) fn seconds(&self) -> Result<f64> {
        Ok(proc::cpu(self.pid)?.saturating_sub(self.before).as_secs_f64())
    }

    /// CPU microseconds for each of so many things.
    pub(crate) fn each(&self, count: u64) -> Result<f64> {
        Ok(self.seconds()? * 1e6 / count as f64)
    }

    /// CPU milliseconds per second.
    pub(crate) fn per_second(&self) -> Result<f64> {
        Ok(self.seconds()? * 1e3 / self.since.elapsed().as_secs_f64())
    }
}
