//! What servers stand on: a replica set behind proxies, or an embedded store's directory.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use mongodb::{
    Client, Database, IndexModel,
    bson::{Document, Timestamp, doc},
    error::Result,
    options::ChangeStreamPreAndPostImages,
};
use support::{
    mongod::{Node, ReplicaSet, fresh_database, shared},
    oracle::{file, journal::Journal, log},
    proxy::Proxy,
    stream::{self, PATIENCE},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::{lab::LAST, writers::Sink};

/// What servers stand on.
pub(crate) trait Ground {
    /// Whether the log names each write of a transaction next to the others.
    const KEEPS_TOGETHER: bool;
    /// How servers name it.
    fn store(&self) -> String;
    /// Where the writers write to.
    fn sink(&self) -> Sink;
    /// All that was written. The servers have ended.
    async fn journal(&self) -> Journal;
}

/// A database of MongoDB.
pub(crate) struct Mongo {
    pub(crate) client: Client,
    pub(crate) db: Database,
    uri: String,
    since: Timestamp,
    /// All that was written, where somebody reads along.
    journal: Mutex<Option<JoinHandle<Journal>>>,
    _set: Option<ReplicaSet>,
}

impl Mongo {
    /// A database in the replica set that these tests share. `None`: skipped.
    pub(crate) async fn shared() -> Option<Self> {
        Some(Self::in_set(shared().await?, &fresh_database()).await)
    }

    /// A database in a replica set of its own, whose node gets these arguments. `None`: skipped.
    pub(crate) async fn alone(arguments: &[&str]) -> Option<Self> {
        let set = ReplicaSet::start(1, arguments).await?;
        let mongo = Self::in_set(&set, "fhir").await;
        Some(Self { _set: Some(set), ..mongo })
    }

    async fn in_set(set: &ReplicaSet, name: &str) -> Self {
        // The writers shall not be what is waited for.
        let uri = set.uri(name) + "&connectTimeoutMS=2000";
        let client = Client::with_uri_str(uri).await.expect("a client");
        let db = client.database(name);
        let hello = db.run_command(doc! {"hello": 1}).await.expect("an answer");
        let since = hello.get_timestamp("operationTime").expect("a time");
        // One with images, so that each update is exact, and one whose updates are looked up.
        let images = ChangeStreamPreAndPostImages::builder().enabled(true).build();
        let create = db.create_collection("Observation");
        create.change_stream_pre_and_post_images(images).await.expect("a collection");
        db.create_collection("Patient").await.expect("a collection");
        // And one that is read along its time.
        let keys = doc! {"meta.lastUpdated": 1, "_id": 1};
        let index = IndexModel::builder().keys(keys).build();
        let observations = db.collection::<Document>("Observation");
        observations.create_index(index).await.expect("an index");
        // The servers find out by their own means how the nodes are.
        let uri = set.uri(name).replace("&heartbeatFrequencyMS=500", "");
        Self { client, db, uri, since, journal: Mutex::default(), _set: None }
    }

    /// A collection's updates come with their documents.
    pub(crate) async fn keep_images(&self, collection: &str) {
        let images = doc! {"enabled": true};
        let change = doc! {"collMod": collection, "changeStreamPreAndPostImages": images};
        self.db.run_command(change).await.expect("changed");
    }

    /// From now on the oracle reads the log as it grows: later its beginning will be gone.
    pub(crate) fn read_along(&self) {
        let (client, name, since) = (self.client.clone(), self.db.name().to_owned(), self.since);
        let read = async move { log::read(&client, &name, since, &last()).await };
        *self.journal.lock().expect("no panic while locked") = Some(tokio::spawn(read));
    }

    /// The database's cluster time.
    pub(crate) async fn time(&self) -> Timestamp {
        let hello = self.db.run_command(doc! {"hello": 1}).await.expect("an answer");
        hello.get_timestamp("operationTime").expect("a time")
    }
}

/// What is written last.
fn last() -> String {
    format!("Patient/{LAST}")
}

impl Ground for Mongo {
    const KEEPS_TOGETHER: bool = false;

    fn store(&self) -> String {
        self.uri.clone()
    }

    fn sink(&self) -> Sink {
        Sink::Mongo(self.client.clone(), self.db.clone())
    }

    async fn journal(&self) -> Journal {
        if self.journal.lock().expect("no panic while locked").is_none() {
            self.read_along();
        }
        let read = self.journal.lock().expect("no panic while locked").take();
        let read = tokio::time::timeout(PATIENCE, read.expect("a reader")).await;
        read.expect("the whole log").expect("no panic")
    }
}

/// A set of three nodes of its own, each behind a proxy.
pub(crate) struct Set {
    pub(crate) set: ReplicaSet,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) mongo: Mongo,
}

impl Set {
    /// Nodes with these arguments. `None`: skipped.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Self> {
        let nodes: Vec<Node> = ReplicaSet::nodes(3, arguments)?;
        let mut proxies = Vec::new();
        for node in &nodes {
            proxies.push(Proxy::to(node.port).await);
        }
        let ports = proxies.iter().map(|proxy| proxy.port).collect();
        let set = ReplicaSet::of(nodes, ports).await;
        let mongo = Mongo::in_set(&set, "fhir").await;
        Some(Self { set, proxies, mongo })
    }

    /// The primary's place among the nodes.
    pub(crate) async fn primary(&self) -> usize {
        self.set.primary().await
    }

    /// An admin command on one node, which may refuse it.
    pub(crate) async fn ask(&self, node: usize, command: Document) -> Result<Document> {
        let admin = self.set.nodes[node].client().await.database("admin");
        admin.run_command(command).await
    }

    /// The same of a node that does as it is told.
    pub(crate) async fn tell(&self, node: usize, command: Document) -> Document {
        let name = command.keys().next().cloned();
        let said = self.ask(node, command).await;
        said.unwrap_or_else(|error| panic!("node {node} does not do {name:?}: {error}"))
    }

    /// How many primaries have been elected, about.
    pub(crate) async fn term(&self) -> i64 {
        let status = self.set.admin(doc! {"replSetGetStatus": 1}).await;
        status.get_i64("term").expect("a term")
    }

    /// For so long whatever the servers ask the primary by these commands fails in this way. They
    /// begin to fail one after another, each once those before it were seen to.
    pub(crate) async fn fail(&self, commands: &[&str], how: Document, time: Duration) {
        let primary = self.primary().await;
        for count in 1..=commands.len() {
            self.fails(primary, &commands[..count], how.clone()).await;
        }
        tokio::time::sleep(time).await;
        self.tell(primary, doc! {"configureFailPoint": "failCommand", "mode": "off"}).await;
    }

    /// Has these commands fail on a node, and waits until the last of them has.
    async fn fails(&self, node: usize, commands: &[&str], how: Document) {
        let log = || self.set.nodes[node].log();
        let before = log().lines().count();
        let mut data = doc! {"failCommands": commands, "appName": "fhirtail"};
        data.extend(how);
        let fail = doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data};
        self.tell(node, fail).await;
        let last = commands.last().map(|name| format!(r#""command":"{name}""#)).unwrap_or_default();
        let is_it = |line: &str| line.contains("Activating 'failCommand'") && line.contains(&last);
        let start = Instant::now();
        while !log().lines().skip(before).any(is_it) {
            assert!(start.elapsed() < Duration::from_secs(30), "{commands:?} do not fail");
            if commands == ["aggregate"] {
                // Whoever reads the log has to open it anew, if this meets him while he waits for it.
                for proxy in &self.proxies {
                    proxy.cut();
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Ground for Set {
    const KEEPS_TOGETHER: bool = false;

    fn store(&self) -> String {
        self.mongo.store()
    }

    fn sink(&self) -> Sink {
        self.mongo.sink()
    }

    async fn journal(&self) -> Journal {
        self.mongo.journal().await
    }
}

/// An embedded store's directory. It is written to through whoever serves it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// How long the store's file is.
    pub(crate) fn length(&self) -> u64 {
        std::fs::metadata(self.0.path().join("fhirtail.redb")).expect("the file").len()
    }
}

impl Ground for Folder {
    const KEEPS_TOGETHER: bool = true;

    fn store(&self) -> String {
        self.0.path().display().to_string()
    }

    fn sink(&self) -> Sink {
        Sink::Http(stream::client())
    }

    async fn journal(&self) -> Journal {
        file::read(self.0.path())
    }
}
