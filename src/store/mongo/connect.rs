//! From a URI to a deployment that this store can work with, or one clear line why not.

use futures_util::TryStreamExt;
use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc, spec::BinarySubtype},
    error::{Error, ErrorKind},
    options::{Acknowledgment, ClientOptions, ReadConcern, WriteConcern},
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

use super::{
    catalog::{self, Catalog},
    errors,
    layout::{Layout, OWN},
};
use crate::{
    position::{Epoch, StableHash},
    store::StoreError,
};

/// Why there is no store. One line for people; never a password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Not a connection string.
    #[error("the MongoDB URI can't be read: {0}")]
    Uri(String),
    /// The connection string names no database.
    #[error("the MongoDB URI names no database: write mongodb://host:27017/DATABASE")]
    NoDatabase,
    /// The connection string names a database of MongoDB's own.
    #[error("the MongoDB URI names the database {0}, which is MongoDB's own: name another")]
    NotOurs(String),
    /// Nobody there.
    #[error("no MongoDB answers at {hosts}: {why}")]
    Unreachable {
        /// The hosts of the URI.
        hosts: String,
        /// What was tried.
        why: String,
    },
    /// Wrong user, wrong password, or no right to the database.
    #[error("MongoDB at {hosts} refuses the login: {why}")]
    Denied {
        /// The hosts of the URI.
        hosts: String,
        /// The server's words.
        why: String,
    },
    /// Neither a replica set nor a sharded cluster.
    #[error(
        "MongoDB at {hosts} is a standalone server and keeps no log of changes: start it with \
         `mongod --replSet rs0` and run `rs.initiate()` once"
    )]
    Standalone {
        /// The hosts of the URI.
        hosts: String,
    },
    /// One node was to be asked and no other, and it is no primary.
    #[error(
        "MongoDB at {hosts} is not the primary of its replica set, and directConnection=true keeps \
         to it: name the primary, or leave that out"
    )]
    NoPrimary {
        /// The hosts of the URI.
        hosts: String,
    },
    /// Older than 5.0.
    #[error("MongoDB at {hosts} has version {version}; 5.0 is the oldest with snapshot reads")]
    TooOld {
        /// The hosts of the URI.
        hosts: String,
        /// The server's version.
        version: String,
    },
    /// Anything else the server refused.
    #[error("MongoDB at {hosts}: {why}")]
    Failed {
        /// The hosts of the URI.
        hosts: String,
        /// The server's words.
        why: String,
    },
}

/// A deployment that has passed all checks.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) client: Client,
    /// For whoever reads the log.
    pub(super) log: Client,
    /// Without concerns of its own: snapshot sessions bring theirs.
    pub(super) db: Database,
    pub(super) epoch: Epoch,
    /// MongoDB ≥ 6.0: collections can keep pre- and post-images.
    pub(super) has_images: bool,
    /// Reached through mongos.
    pub(super) sharded: bool,
    hosts: String,
    pub(super) description: String,
}

/// MongoDB 5.0 and 6.0, as `maxWireVersion`.
const WIRE_5_0: i32 = 13;
const WIRE_6_0: i32 = 17;

/// How long a primary is waited for, where the URI does not say.
pub(super) const SERVER_SELECTION: Duration = Duration::from_secs(5);
const POOL: u32 = 64;
const CONNECT: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Between two questions to a server that has to find itself first.
const WAIT: Duration = Duration::from_millis(250);

/// A server that answers, whatever it is.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) client: Client,
    /// The database that the URI names.
    pub(crate) db: Database,
    /// The hosts of the URI.
    pub(crate) hosts: String,
    hello: Document,
    /// How long a primary is waited for.
    patience: Duration,
}

impl Dialed {
    /// The name of the replica set.
    pub(crate) fn set(&self) -> Option<&str> {
        self.hello.get_str("setName").ok()
    }

    /// Whether it was reached through mongos.
    pub(crate) fn is_sharded(&self) -> bool {
        self.hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid")
    }

    /// Waits for it to be a primary, as the driver does for any that it may choose.
    async fn is_primary(&self) -> Result<bool, Error> {
        let deadline = Instant::now() + self.patience;
        let mut hello = self.hello.clone();
        while !hello.get_bool("isWritablePrimary").unwrap_or(false) {
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(WAIT).await;
            hello = self.db.run_command(doc! {"hello": 1}).await?;
        }
        Ok(true)
    }

    /// Whether it knows snapshot reads outside transactions (5.0).
    pub(crate) fn has_snapshots(&self) -> bool {
        self.wire() >= WIRE_5_0
    }

    /// Whether its collections can keep pre- and post-images (6.0).
    pub(crate) fn has_images(&self) -> bool {
        self.wire() >= WIRE_6_0
    }

    /// The server's version, as text.
    pub(crate) async fn version(&self) -> String {
        let reply = self.db.run_command(doc! {"buildInfo": 1}).await.unwrap_or_default();
        reply.get_str("version").unwrap_or("unknown").to_owned()
    }

    fn wire(&self) -> i32 {
        self.hello.get_i32("maxWireVersion").unwrap_or(0)
    }
}

/// Connects, logs in, and asks the server what it is.
pub(crate) async fn dial(uri: &str) -> Result<Dialed, ConnectError> {
    let options = parse(uri).await?;
    let hosts: Vec<String> = options.hosts.iter().map(ToString::to_string).collect();
    let hosts = hosts.join(",");
    let failed = |error: Error| refusal(&hosts, &error);
    let name = options.default_database.clone().ok_or(ConnectError::NoDatabase)?;
    if ["admin", "config", "local"].contains(&name.as_str()) {
        return Err(ConnectError::NotOurs(name));
    }
    let patience = options.server_selection_timeout.unwrap_or(SERVER_SELECTION);
    let client = Client::with_options(options).map_err(failed)?;
    let db = client.database(&name);
    let hello = db.run_command(doc! {"hello": 1}).await.map_err(failed)?;
    Ok(Dialed { client, db, hosts, hello, patience })
}

/// Connects and checks.
pub(super) async fn connect(uri: &str) -> Result<Deployment, ConnectError> {
    let dialed = dial(uri).await?;
    let sharded = dialed.is_sharded();
    if dialed.set().is_none() && !sharded {
        return Err(ConnectError::Standalone { hosts: dialed.hosts });
    }
    if !dialed.has_snapshots() {
        let version = dialed.version().await;
        return Err(ConnectError::TooOld { hosts: dialed.hosts, version });
    }
    if !sharded && !dialed.is_primary().await.map_err(|error| refusal(&dialed.hosts, &error))? {
        return Err(ConnectError::NoPrimary { hosts: dialed.hosts });
    }
    let epoch = epoch(&dialed.db, sharded).await;
    let epoch = epoch.map_err(|error| refusal(&dialed.hosts, &error))?;
    let kind = dialed.set().map_or("sharded cluster".into(), |set| format!("replica set {set}"));
    let description = format!("MongoDB {kind} at {}, database {}", dialed.hosts, dialed.db.name());
    let has_images = dialed.has_images();
    let log = Client::with_options(parse(uri).await?);
    let log = log.map_err(|error| refusal(&dialed.hosts, &error))?;
    let Dialed { client, db, hosts, .. } = dialed;
    Ok(Deployment { client, log, db, epoch, has_images, sharded, hosts, description })
}

/// The first listing, with which a lack of rights on the database shows.
pub(super) async fn catalog(
    deployment: &Deployment,
    layout: &Layout,
) -> Result<Catalog, ConnectError> {
    let listed = Catalog::read(&deployment.db, layout).await;
    listed.map_err(|error| refusal(&deployment.hosts, &error))
}

async fn parse(uri: &str) -> Result<ClientOptions, ConnectError> {
    let unreadable = |error: Error| ConnectError::Uri(without_password(uri, &errors::text(&error)));
    let mut options = ClientOptions::parse(uri).await.map_err(unreadable)?;
    options.app_name.get_or_insert_with(|| "fhirtail".into());
    options.server_selection_timeout.get_or_insert(SERVER_SELECTION);
    options.max_pool_size.get_or_insert(POOL);
    // A node is given up, and what hangs on its connections ends, after both of these together:
    // by the driver's own values after 20 s.
    options.connect_timeout.get_or_insert(CONNECT);
    options.heartbeat_freq.get_or_insert(HEARTBEAT);
    // A client-wide read concern would contradict the snapshot sessions' own.
    options.read_concern = None;
    options.write_concern = Some(durable());
    Ok(options)
}

/// How long a write waits for a majority that does not come.
const MAJORITY: Duration = Duration::from_secs(10);

/// Acknowledged by a majority, in its journals.
pub(crate) fn durable() -> WriteConcern {
    let majority = WriteConcern::builder().w(Acknowledgment::Majority).journal(true);
    majority.w_timeout(MAJORITY).build()
}

/// What reads outside snapshots see.
pub(super) fn majority() -> ReadConcern {
    ReadConcern::majority()
}

/// A driver's message about a URI, in which the password could stand.
fn without_password(uri: &str, message: &str) -> String {
    let credentials = uri.split_once("://").map_or(uri, |(_, rest)| rest).rsplit_once('@');
    match credentials.and_then(|(credentials, _)| credentials.split_once(':')) {
        Some((_, password)) if !password.is_empty() => message.replace(password, "***"),
        _ => message.to_owned(),
    }
}

fn refusal(hosts: &str, error: &Error) -> ConnectError {
    const UNAUTHORIZED: [i32; 2] = [13, 18];
    let hosts = hosts.to_owned();
    let why = errors::text(error);
    match &*error.kind {
        ErrorKind::Authentication { .. } => ConnectError::Denied { hosts, why },
        ErrorKind::Command(command) if UNAUTHORIZED.contains(&command.code) => {
            ConnectError::Denied { hosts, why }
        }
        ErrorKind::ServerSelection { .. } | ErrorKind::Io(_) | ErrorKind::DnsResolve { .. } => {
            ConnectError::Unreachable { hosts, why }
        }
        _ => ConnectError::Failed { hosts, why },
    }
}

/// The replica set's id and the database's name; where the id may not be read, or there are
/// several sets, the UUID of a collection of ours instead.
async fn epoch(db: &Database, sharded: bool) -> Result<Epoch, Error> {
    let set = if sharded { None } else { replica_set_id(db).await? };
    let id = match set {
        Some(id) => id,
        None => own_uuid(db).await?,
    };
    Ok(Epoch(StableHash::default().with(&id).with(db.name().as_bytes()).finish()))
}

/// The id that a replica set got when it was initiated; `None` where it may not be read.
///
/// A server that does not answer at the moment has not refused: taken for a refusal, that would
/// make all positions another database's. It is asked again for about as long as one is waited
/// for.
///
/// # Errors
/// Those that may pass.
pub(crate) async fn replica_set_id(db: &Database) -> Result<Option<Vec<u8>>, Error> {
    let admin = db.client().database("admin");
    let deadline = Instant::now() + SERVER_SELECTION;
    let reply = loop {
        match admin.run_command(doc! {"replSetGetConfig": 1}).await {
            Ok(reply) => break reply,
            Err(error) if !matches!(errors::plain(&error), StoreError::Unavailable(_)) => {
                return Ok(None);
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(WAIT).await,
        }
    };
    let settings = reply.get_document("config").and_then(|config| config.get_document("settings"));
    let id = settings.and_then(|settings| settings.get_object_id("replicaSetId"));
    Ok(id.ok().map(|id| id.bytes().to_vec()))
}

const NO_EPOCH: &str = "this login may neither read the replica set's id (role clusterMonitor) nor \
                        make the collection 'fhirtail' (role readWrite): positions could not \
                        tell this database from another";

async fn own_uuid(db: &Database) -> Result<Vec<u8>, Error> {
    const NAMESPACE_EXISTS: i32 = 48;
    const UNAUTHORIZED: i32 = 13;
    // Whoever may only read can do with a collection that another has made.
    match db.create_collection(OWN).write_concern(durable()).await {
        Err(error)
            if ![Some(NAMESPACE_EXISTS), Some(UNAUTHORIZED)].contains(&errors::code(&error)) =>
        {
            return Err(error);
        }
        _ => {}
    }
    let mut found = catalog::list(db, doc! {"name": OWN}).await?;
    let entry = found.try_next().await?.unwrap_or_default();
    uuid(&entry).ok_or_else(|| Error::custom(NO_EPOCH.to_owned()))
}

fn uuid(entry: &Document) -> Option<Vec<u8>> {
    match entry.get_document("info").ok()?.get("uuid") {
        Some(Bson::Binary(binary)) if binary.subtype == BinarySubtype::Uuid => {
            Some(binary.bytes.clone())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bad_uri_is_told_without_its_password() {
        for uri in [
            "postgres://u:s3cret@h/db",
            "mongodb://u:s3cret/x@h/db",
            "mongodb://u:s3cret@h:port/db",
            "mongodb://u:s3cret@/db",
            "mongodb://u:s3%cret@h/db",
            "",
        ] {
            let error = connect(uri).await.expect_err("no URI").to_string();
            assert!(error.starts_with("the MongoDB URI can't be read: "), "{error}");
            assert!(!error.contains("s3") && !error.contains('\n'), "{error}");
        }
    }

    #[tokio::test]
    async fn a_uri_needs_a_database() {
        let error = connect("mongodb://127.0.0.1:1/?directConnection=true").await;
        assert!(matches!(error, Err(ConnectError::NoDatabase)));
    }
}
