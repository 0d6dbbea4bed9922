//! The laboratory: a three-node set behind proxies, servers over it, writers, a crowd, a fault,
//! and then the oracle over all that anyone saw.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use mongodb::{
    Client, Database,
    bson::{Document, Timestamp, doc},
    options::ChangeStreamPreAndPostImages,
};
use serde_json::Value;

use crate::{
    crowd, report,
    support::{
        mongod::{Node, ReplicaSet},
        process::Process,
        proxy::Proxy,
    },
    writers,
};

/// What the clients stream; the writers write nothing else.
pub(crate) const TYPES: [&str; 2] = ["Observation", "Patient"];
/// The first write after the fault, and the last of all.
pub(crate) const AFTER: &str = "after";
pub(crate) const LAST: &str = "last";

/// How long a fault lasts, about.
pub(crate) fn fault_time() -> Duration {
    Duration::from_secs(setting("FHIRTAIL_FAULT_SECONDS", 3))
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What writers, clients and the test itself share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) db: Database,
    /// Where the servers are at the moment.
    pub(crate) urls: Mutex<Vec<String>>,
    /// What was acknowledged: `Type/id`, and the resource; `None`, a deletion.
    pub(crate) acknowledged: Mutex<Vec<(String, Option<Value>)>>,
    /// Clients cut their streams no more.
    pub(crate) calm: AtomicBool,
    /// Writers come to an end.
    pub(crate) enough: AtomicBool,
}

impl Shared {
    pub(crate) fn acknowledge(&self, write: (String, Option<Value>)) {
        self.acknowledged.lock().expect("no panic while locked").push(write);
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().expect("no panic while locked").len()
    }
}

pub(crate) struct Lab {
    pub(crate) set: ReplicaSet,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) shared: Arc<Shared>,
    servers: Mutex<Vec<Process>>,
    arguments: &'static [&'static str],
    name: String,
    since: Timestamp,
}

impl Lab {
    /// `None`: skipped.
    async fn new(servers: usize, arguments: &'static [&'static str]) -> Option<Self> {
        let nodes: Vec<Node> = ReplicaSet::nodes(3, &[])?;
        let mut proxies = Vec::new();
        for node in &nodes {
            proxies.push(Proxy::to(node.port).await);
        }
        let ports = proxies.iter().map(|proxy| proxy.port).collect();
        let set = ReplicaSet::of(nodes, ports).await;
        // The writers shall not be what is waited for.
        let uri = set.uri("fhir") + "&connectTimeoutMS=2000";
        let client = Client::with_uri_str(uri).await.expect("a client");
        let db = client.database("fhir");
        let hello = db.run_command(doc! {"hello": 1}).await.expect("an answer");
        let since = hello.get_timestamp("operationTime").expect("a time");
        // One with images, so that each update is exact, and one whose updates are looked up.
        let images = ChangeStreamPreAndPostImages::builder().enabled(true).build();
        let create = db.create_collection("Observation");
        create.change_stream_pre_and_post_images(images).await.expect("a collection");
        db.create_collection("Patient").await.expect("a collection");
        // The servers find out by their own means how the nodes are.
        let name = set.uri("fhir").replace("&heartbeatFrequencyMS=500", "");
        let shared = Shared {
            client,
            db,
            urls: Mutex::default(),
            acknowledged: Mutex::default(),
            calm: AtomicBool::new(false),
            enough: AtomicBool::new(false),
        };
        let (shared, servers_now) = (Arc::new(shared), Mutex::default());
        let lab = Self { set, proxies, shared, servers: servers_now, arguments, name, since };
        (0..servers).for_each(|_| lab.start_server());
        Some(lab)
    }

    fn start_server(&self) {
        let server = tokio::task::block_in_place(|| Process::serve(&self.name, self.arguments));
        self.shared.urls.lock().expect("no panic while locked").push(server.url(""));
        self.servers.lock().expect("no panic while locked").push(server);
    }

    /// Kills the server that has been there longest; `start` another after a while.
    pub(crate) async fn replace_server(&self, after: Duration) {
        let mut oldest = self.servers.lock().expect("no panic while locked").remove(0);
        self.shared.urls.lock().expect("no panic while locked").remove(0);
        oldest.kill();
        tokio::time::sleep(after).await;
        self.start_server();
    }

    /// The primary's place among the nodes.
    pub(crate) async fn primary(&self) -> usize {
        self.set.primary().await
    }

    /// An admin command on one node; a node that is away says nothing.
    pub(crate) async fn tell(&self, node: usize, command: Document) {
        let admin = self.set.nodes[node].client().await.database("admin");
        drop(admin.run_command(command).await);
    }

    /// For so long, whatever the servers ask the primary by these commands fails in this way.
    pub(crate) async fn fail(&self, commands: &[&str], how: Document, time: Duration) {
        let mut data = doc! {"failCommands": commands, "appName": "fhirtail"};
        data.extend(how);
        let fail = doc! {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data};
        let primary = self.primary().await;
        self.tell(primary, fail).await;
        tokio::time::sleep(time).await;
        self.tell(primary, doc! {"configureFailPoint": "failCommand", "mode": "off"}).await;
    }

    pub(crate) async fn journal(&self) -> crate::support::oracle::journal::Journal {
        let last = format!("Patient/{LAST}");
        let read =
            crate::support::oracle::log::read(&self.shared.client, "fhir", self.since, &last);
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("the whole log")
    }
}

/// One laboratory at a time: the machine is small.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Whether streams may have to start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resets {
    Never,
    Allowed,
}

/// Runs writers and a crowd through a fault; then nothing may be lost or repeated, and each
/// client is back within ten seconds.
pub(crate) async fn survive(
    name: &str,
    servers: usize,
    arguments: &'static [&'static str],
    resets: Resets,
    fault: impl AsyncFnOnce(&Lab),
) {
    let _one = ONE.lock().await;
    let Some(lab) = Lab::new(servers, arguments).await else { return };
    let shared = &lab.shared;
    let writers: Vec<_> = (0..3).map(|n| tokio::spawn(writers::write(shared.clone(), n))).collect();
    until("the writers write", 30, || shared.acknowledged() > 150).await;
    let clients = setting("FHIRTAIL_FAULT_CLIENTS", 10);
    let clients: Vec<_> =
        (0..clients).map(|seed| crowd::Client::start(shared.clone(), seed)).collect();
    until("all has been caught up once", 60, || clients.iter().all(|c| c.was_level(None))).await;

    fault(&lab).await;

    let end = Instant::now();
    shared.calm.store(true, SeqCst);
    writers::last(shared, AFTER).await;
    let acked = end.elapsed();
    until(name, 60, || clients.iter().all(|client| client.was_level(Some(AFTER)))).await;
    let back = end.elapsed();
    shared.enough.store(true, SeqCst);
    for writer in writers {
        writer.await.expect("a writer");
    }
    writers::last(shared, LAST).await;
    let mut seen = Vec::new();
    for client in clients {
        seen.push(client.end().await);
    }
    let report = report::of(&lab, seen).await;
    eprintln!(
        "fault: {name}, {report}, recovery {:.1} s (writers {:.1} s)",
        back.as_secs_f64(),
        acked.as_secs_f64()
    );
    report.assert_clean(resets);
    assert!(back < Duration::from_secs(10), "{name}: {back:?} to recovery");
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, seconds: u64, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "it does not come: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
