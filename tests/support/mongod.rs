//! Real mongod processes: replica sets and a standalone on free ports of 127.0.0.1, each node in
//! a temporary directory.
//!
//! A node dies with the value that holds it, and with the test process, whichever ends first: a
//! shell waits for the end of its standard input and then kills the node that it started.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use mongodb::{
    Client,
    bson::{Document, Timestamp, doc},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// How long anything here may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where mongod is: `MONGOD_BIN`, `mongod` on PATH, `target/mongod/mongod`. `None`: the tests
/// are to be skipped (`FHIRTAIL_SKIP_MONGO=1`).
pub fn binary() -> Option<PathBuf> {
    if std::env::var("FHIRTAIL_SKIP_MONGO").is_ok_and(|skip| skip == "1") {
        return None;
    }
    let named = std::env::var_os("MONGOD_BIN").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("mongod"));
    let fetched = crate::root().join("target/mongod/mongod");
    let found = named.into_iter().chain(on_path).chain([fetched]).find(|file| file.is_file());
    Some(found.unwrap_or_else(|| {
        panic!(
            "no mongod: set MONGOD_BIN, put mongod on PATH or into target/mongod/, or skip these \
             tests with FHIRTAIL_SKIP_MONGO=1"
        )
    }))
}

/// Runs its arguments, and says as which process, until stdin ends, as it does when the test's
/// process goes, however it goes; then nothing of them is left, but for the folder if a line says
/// to keep it.
const UNTIL_STDIN_ENDS: &str = r#"
    "$@" >/dev/null 2>&1 & node=$!
    echo $node
    read -r keep
    kill -9 $node; wait
    [ -n "$keep" ] || rm -rf "$FOLDER"
"#;

/// What each node gets beside its own arguments.
const USUAL: [&str; 7] = [
    "--wiredTigerCacheSizeGB",
    "0.25",
    "--nounixsocket",
    "--setParameter",
    "enableTestCommands=1",
    "--setParameter",
    "diagnosticDataCollectionEnabled=false",
];

/// One mongod.
#[derive(Debug)]
pub struct Node {
    running: Mutex<Running>,
    command: Vec<OsString>,
    pub port: u16,
    folder: TempDir,
}

/// A node's process.
#[derive(Debug)]
struct Running {
    shell: Child,
    /// The node lives as long as this is open.
    input: Option<ChildStdin>,
    pid: String,
}

impl Running {
    fn start(command: &[OsString], folder: &Path) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", UNTIL_STDIN_ENDS, "sh"])
            .args(command)
            .env("FOLDER", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let input = shell.stdin.take();
        let mut pid = String::new();
        let said = BufReader::new(shell.stdout.take().expect("its output")).read_line(&mut pid);
        said.expect("the process");
        Self { shell, input, pid: pid.trim().to_owned() }
    }

    /// Kills the node, and waits until it is gone.
    fn end(&mut self) {
        drop(self.input.take());
        let _ = self.shell.wait();
    }
}

impl Node {
    fn start(binary: &Path, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let mut command = vec![OsString::from(binary)];
        command.extend(["--bind_ip", "127.0.0.1", "--port"].map(OsString::from));
        command.extend([port.to_string().into(), "--dbpath".into(), folder.path().into()]);
        command.extend(["--logpath".into(), folder.path().join("log").into()]);
        command.extend(USUAL.iter().chain(args).map(OsString::from));
        let running = Mutex::new(Running::start(&command, folder.path()));
        let node = Self { running, command, port, folder };
        node.wait_for_port();
        node
    }

    fn wait_for_port(&self) {
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(start.elapsed() < DEADLINE, "mongod does not start:\n{}", self.end_of_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().expect("no panic while locked")
    }

    /// Kills the process at once, as a crash would, and for good.
    pub fn kill(&self) {
        drop(self.running().input.take());
    }

    /// Kills the process as a crash would. What it has on its disk stays.
    pub fn crash(&self) {
        let mut running = self.running();
        if let Some(input) = &mut running.input {
            input.write_all(b"keep\n").expect("it listens");
        }
        running.end();
    }

    /// Starts it again after a crash, on its disk and its port.
    pub fn restart(&self) {
        *self.running() = Running::start(&self.command, self.folder.path());
        self.wait_for_port();
    }

    /// Sends its process a signal, such as `-STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.running().pid]).status();
        assert!(sent.expect("kill").success());
    }

    /// The node's log.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn end_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// This node alone, whatever set it is in.
    pub fn direct_uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/admin?directConnection=true", self.port)
    }

    pub async fn client(&self) -> Client {
        Client::with_uri_str(self.direct_uri()).await.expect("a client")
    }

    /// What it says of itself; nothing where it does not answer soon.
    async fn hello(&self) -> Document {
        let asked = self.client().await.database("admin");
        let answer = tokio::spawn(async move { asked.run_command(doc! {"hello": 1}).await });
        let answer = tokio::time::timeout(Duration::from_secs(2), answer).await;
        answer.ok().and_then(Result::ok).and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running().end();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A replica set, with a primary.
#[derive(Debug)]
pub struct ReplicaSet {
    pub nodes: Vec<Node>,
    /// Under which ports of 127.0.0.1 all the world knows the nodes, they themselves included.
    ports: Vec<u16>,
}

impl ReplicaSet {
    /// Starts `count` nodes with these arguments beside the usual ones. `None`: skipped.
    pub async fn start(count: usize, args: &[&str]) -> Option<Self> {
        let nodes = Self::nodes(count, args)?;
        let ports = nodes.iter().map(|node| node.port).collect();
        Some(Self::of(nodes, ports).await)
    }

    /// Nodes that are to be in a set.
    pub fn nodes(count: usize, args: &[&str]) -> Option<Vec<Node>> {
        let binary = binary()?;
        let mut all = vec!["--replSet", "rs0"];
        if !args.contains(&"--oplogSize") {
            all.extend(["--oplogSize", "128"]);
        }
        all.extend(args);
        Some((0..count).map(|_| Node::start(&binary, &all)).collect())
    }

    /// Makes nodes a set, in which each goes by the port of its place.
    pub async fn of(nodes: Vec<Node>, ports: Vec<u16>) -> Self {
        let set = Self { nodes, ports };
        set.initiate().await;
        set
    }

    async fn initiate(&self) {
        let member = |(index, port): (usize, &u16)| {
            doc! {"_id": index as i32, "host": format!("127.0.0.1:{port}")}
        };
        let members: Vec<Document> = self.ports.iter().enumerate().map(member).collect();
        let config = doc! {
            "_id": "rs0",
            "members": members,
            "settings": {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500},
        };
        let first = self.nodes[0].client().await;
        self.admin_of(&first, doc! {"replSetInitiate": config}).await;
        self.primary().await;
    }

    async fn admin_of(&self, client: &Client, command: Document) -> Document {
        let name = command.keys().next().cloned();
        let reply = client.database("admin").run_command(command).await;
        reply.unwrap_or_else(|error| panic!("{name:?}: {error}"))
    }

    /// Waits until there is a primary that takes writes, and returns its place.
    pub async fn primary(&self) -> usize {
        let start = Instant::now();
        loop {
            for (index, node) in self.nodes.iter().enumerate() {
                if node.hello().await.get_bool("isWritablePrimary").unwrap_or(false) {
                    return index;
                }
            }
            assert!(start.elapsed() < DEADLINE, "no primary:\n{}", self.nodes[0].end_of_log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The connection string of a database.
    pub fn uri(&self, database: &str) -> String {
        let hosts: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("mongodb://{}/{database}?replicaSet=rs0&heartbeatFrequencyMS=500", hosts.join(","))
    }

    pub async fn client(&self) -> Client {
        Client::with_uri_str(self.uri("admin")).await.expect("a client")
    }

    /// Runs an admin command on the primary.
    pub async fn admin(&self, command: Document) -> Document {
        self.admin_of(&self.client().await, command).await
    }

    /// `setParameter`, such as `{minSnapshotHistoryWindowInSeconds: 1}`.
    pub async fn set_parameter(&self, parameter: Document) {
        let mut command = doc! {"setParameter": 1};
        command.extend(parameter);
        self.admin(command).await;
    }

    /// `configureFailPoint: "failCommand"` with this mode and data.
    pub async fn fail_command(&self, mode: Document, data: Document) {
        self.admin(doc! {"configureFailPoint": "failCommand", "mode": mode, "data": data}).await;
    }
}

/// A database name that no other test has.
pub fn fresh_database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A replica set of one node that the tests of a binary share, a database each. `None`: skipped.
pub async fn shared() -> Option<&'static ReplicaSet> {
    static SHARED: OnceCell<Option<ReplicaSet>> = OnceCell::const_new();
    SHARED.get_or_init(|| ReplicaSet::start(1, &[])).await.as_ref()
}

/// A mongod that is in no replica set.
#[derive(Debug)]
pub struct Standalone {
    pub node: Node,
}

impl Standalone {
    /// Starts it with these arguments beside the usual ones. `None`: skipped.
    pub fn start(args: &[&str]) -> Option<Self> {
        Some(Self { node: Node::start(&binary()?, args) })
    }
}

/// The server's open cursors of which this holds: the command that opened each.
pub async fn cursors(client: &Client, filter: Document) -> Vec<Document> {
    let stages = [
        doc! {"$currentOp": {"allUsers": true, "idleCursors": true}},
        doc! {"$match": {"cursor": {"$exists": true}, "$and": [filter]}},
        // One that begins or ends to work meanwhile may be listed at rest and at work.
        doc! {"$group": {
            "_id": "$cursor.cursorId", "command": {"$first": "$cursor.originatingCommand"},
        }},
        doc! {"$replaceWith": {"$ifNull": ["$command", {}]}},
    ];
    let found = client.database("admin").aggregate(stages).await.expect("cursors");
    found.try_collect().await.expect("cursors")
}

/// The change streams that are open on a database: from which time on each was asked for.
pub async fn change_streams(client: &Client, database: &str) -> Vec<Timestamp> {
    let filter = doc! {
        "cursor.originatingCommand.pipeline.0.$changeStream": {"$exists": true},
        "cursor.originatingCommand.$db": database,
    };
    let begins = |command: &Document| {
        let stage = command.get_array("pipeline").ok()?.first()?.as_document()?;
        stage.get_document("$changeStream").ok()?.get_timestamp("startAtOperationTime").ok()
    };
    let found = cursors(client, filter).await;
    found.iter().map(|command| begins(command).expect("where it begins")).collect()
}
