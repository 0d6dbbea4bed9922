//! Judgement of a deployment as a whole: facts in, sentences and commands out. Pure.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It works.
    Ok,
    /// It works in part, or at a price.
    Slow,
    /// It does not work, or resources would be missing.
    Fail,
}

/// One sentence about the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in one word.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// For people.
    pub text: String,
    /// The command that mends it, for mongosh where nothing else is said.
    pub mend: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, text: text.into(), mend: None }
    }

    pub(super) fn slow(check: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Slow, ..Self::ok(check, text) }
    }

    pub(super) fn fail(check: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::ok(check, text) }
    }

    pub(super) fn mended_by(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}

/// Why the server gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For want of a right.
    pub(super) denied: bool,
    /// The server's words.
    pub(super) why: String,
}

/// What was asked of the server.
pub(super) type Asked<T> = Result<T, Refusal>;

/// Who is asking, and for which database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// (name, database of the login); `None`: without a login.
    pub(super) user: Option<(String, String)>,
    pub(super) database: String,
}

impl Login {
    /// The command that lets it read the database.
    fn reader(&self) -> String {
        self.grant("read", &self.database)
    }

    /// The command that gives a role.
    fn grant(&self, role: &str, database: &str) -> String {
        let Some((user, home)) = &self.user else {
            return "(a login in the URI: mongodb://USER:PASSWORD@HOST/DATABASE?authSource=admin)"
                .into();
        };
        let (user, home) = (quoted(user), quoted(home));
        let (role, database) = (quoted(role), quoted(database));
        format!(
            "db.getSiblingDB({home}).grantRolesToUser({user}, [{{role: {role}, db: {database}}}])"
        )
    }
}

/// What kind of deployment it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topology {
    Standalone,
    ReplicaSet(String),
    Sharded,
}

pub(super) fn connection(hosts: &str, login: &Login) -> Finding {
    let user = match &login.user {
        Some((user, _)) => format!("as {user}"),
        None => "without a login".into(),
    };
    let database = &login.database;
    Finding::ok("connection", format!("MongoDB answers at {hosts} {user}; database {database}"))
}

pub(super) fn topology(topology: &Topology) -> Finding {
    match topology {
        Topology::ReplicaSet(name) => Finding::ok("topology", format!("replica set {name}")),
        Topology::Sharded => Finding::ok("topology", "sharded cluster"),
        Topology::Standalone => {
            let text = "it is a standalone server, which keeps no log of changes and no \
                        snapshots; as a replica set of one it has both";
            let mend = "(in mongod.conf; or mongod --replSet rs0)\n\
                        replication: {replSetName: rs0}\n\
                        (after its restart, once)\n\
                        rs.initiate()";
            Finding::fail("topology", text).mended_by(mend)
        }
    }
}

pub(super) fn version(version: &str, has_snapshots: bool, has_images: bool) -> Finding {
    match (has_snapshots, has_images) {
        (false, _) => Finding::fail(
            "version",
            format!("MongoDB {version}: 5.0 is the oldest with snapshot reads"),
        ),
        (true, false) => Finding::slow(
            "version",
            format!(
                "MongoDB {version} keeps no pre- and post-images (6.0 does): live exports of a \
                 compartment or group are refused, those with a _typeFilter tell of deletions \
                 of what they never sent, and an update in place is sent as it is when it is \
                 looked up"
            ),
        ),
        (true, true) => Finding::ok("version", format!("MongoDB {version}")),
    }
}

/// `name`: none where mongos, which has no storage, answered.
pub(super) fn engine(name: &Asked<Option<String>>) -> Option<Finding> {
    match name {
        Ok(None) => None,
        Ok(Some(name)) if name == "wiredTiger" => {
            Some(Finding::ok("engine", "storage engine wiredTiger"))
        }
        Ok(Some(name)) => {
            let text = format!("storage engine {name}: fhirtail is made for wiredTiger");
            Some(Finding::slow("engine", text))
        }
        Err(refusal) => {
            let text = format!("the storage engine is not told ({})", refusal.why);
            Some(Finding::ok("engine", text))
        }
    }
}

/// Whether what is written is soon committed by majority. `behind_s`: by how many seconds the
/// commit point is behind the last write; none where nobody says.
pub(super) fn majority(read: &Asked<()>, behind_s: Option<u32>, login: &Login) -> Finding {
    const LATE_S: u32 = 10;
    if let Err(refusal) = read {
        let text = "documents can't be read as committed by majority";
        return refused("majority", text, refusal, login.reader());
    }
    match behind_s {
        Some(seconds) if seconds > LATE_S => {
            let text = format!(
                "the last write waits for its majority since {seconds} s, and streams with it: a \
                 member is down or lags"
            );
            Finding::slow("majority", text).mended_by("rs.status()")
        }
        _ => Finding::ok("majority", "documents can be read as committed by majority"),
    }
}

pub(super) fn listing(listed: &Asked<()>, login: &Login) -> Finding {
    match listed {
        Ok(()) => Finding::ok("listing", "collections can be listed"),
        Err(refusal) => refused("listing", "collections can't be listed", refusal, login.reader()),
    }
}

pub(super) fn snapshot(read: &Asked<()>, login: &Login) -> Finding {
    match read {
        Ok(()) => Finding::ok("snapshot", "reads as of one instant work"),
        Err(refusal) => {
            refused("snapshot", "reads as of one instant don't work", refusal, login.reader())
        }
    }
}

/// What the times in resume tokens were compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokens {
    /// So many events' own times, and they are the same.
    SameAsEvents(usize),
    /// There was no event; the mark of the empty stream lies where it must.
    InTheLog,
    /// Something, and they differ; or they can't be read.
    Unknown,
}

pub(super) fn changes(opened: &Asked<Tokens>, login: &Login) -> Vec<Finding> {
    let opens = || Finding::ok("changes", "the change stream of the database opens");
    match opened {
        Ok(Tokens::SameAsEvents(events)) => {
            let text = format!("resume tokens show their events' times ({events} compared)");
            vec![opens(), Finding::ok("tokens", text)]
        }
        Ok(Tokens::InTheLog) => {
            let text = "resume tokens show a time in the log (there was no event to compare with)";
            vec![opens(), Finding::ok("tokens", text)]
        }
        Ok(Tokens::Unknown) => {
            let text = "resume tokens show no times that can be read: a stream without changes \
                        gets no newer position, and comes back to a log that may have moved on";
            vec![opens(), Finding::slow("tokens", text)]
        }
        Err(refusal) => {
            let text = "the change stream of the database does not open";
            vec![refused("changes", text, refusal, login.reader())]
        }
    }
}

/// `tried`: a transaction that makes a collection, its index, and a document, and is aborted.
pub(super) fn writing(tried: &Asked<()>, login: &Login) -> Finding {
    match tried {
        Ok(()) => Finding::ok("writing", "collections can be made and written in transactions"),
        Err(refusal) if refusal.denied => {
            let text = "this login may not make or write collections: streams work, and every \
                        write is refused";
            Finding::slow("writing", text).mended_by(login.grant("readWrite", &login.database))
        }
        Err(refusal) => refused("writing", "writes don't work", refusal, String::new()),
    }
}

/// What a position's epoch is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// The replica set's own id.
    Set,
    /// The collection `fhirtail`, which is there.
    Own,
    /// The collection `fhirtail`, which is to be made.
    OwnToMake,
}

pub(super) fn epoch(identity: Identity, sharded: bool, may_write: bool, login: &Login) -> Finding {
    let stands = "the collection 'fhirtail' stands for the log in positions";
    let why = match sharded {
        true => "a cluster has several logs",
        false => "replSetGetConfig is not allowed",
    };
    match identity {
        Identity::Set => Finding::ok("epoch", "positions are bound to the replica set's id"),
        Identity::Own => {
            Finding::ok("epoch", format!("{why}: {stands}; if it is dropped, streams start over"))
        }
        Identity::OwnToMake if may_write => {
            Finding::ok("epoch", format!("{why}: {stands}; the first start makes it"))
        }
        Identity::OwnToMake => {
            let text = format!("{why}, and {stands} only where it is: this login can't make it");
            let mend = match sharded {
                true => "db.createCollection(\"fhirtail\")".into(),
                false => login.grant("clusterMonitor", "admin"),
            };
            Finding::fail("epoch", text).mended_by(mend)
        }
    }
}

/// The oplog.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Oplog {
    /// Between its first and its last entry.
    pub(super) seconds: u32,
    /// How much of its size is in use, from 0 to 1; none where nobody says.
    pub(super) full: Option<f64>,
}

/// How long clients should be able to stay away, in hours: judged by, and proposed.
const ENOUGH_H: f64 = 24.0;
const GOOD_H: u32 = 72;

pub(super) fn oplog(oplog: &Asked<Oplog>, login: &Login) -> Finding {
    let oplog = match oplog {
        Ok(oplog) => oplog,
        Err(refusal) => {
            let text = format!(
                "the oplog may not be read, so how far back it reaches is not told ({})",
                refusal.why
            );
            return Finding::ok("oplog", text).mended_by(login.grant("read", "local"));
        }
    };
    let hours = f64::from(oplog.seconds) / 3600.0;
    let full = oplog.full.filter(|full| *full > 0.0).unwrap_or(1.0);
    let is_full = full > 0.9;
    let (reach, percent) = (duration(hours), full * 100.0);
    if !is_full && hours < 1.0 {
        let text = format!("the oplog is {reach} long and {percent:.0} % full: too young to judge");
        return Finding::ok("oplog", text);
    }
    let projected = if is_full { hours } else { hours / full };
    let reaches = match is_full {
        true => format!("the oplog reaches back {reach}"),
        false => format!(
            "the oplog reaches back {reach} so far, {percent:.0} % full; full, as things go, {}",
            duration(projected)
        ),
    };
    if projected >= ENOUGH_H {
        return Finding::ok("oplog", format!("{reaches}: so long may a client stay away"));
    }
    let text = format!("{reaches}: a client that stays away longer starts over");
    let mend = format!("db.adminCommand({{replSetResizeOplog: 1, minRetentionHours: {GOOD_H}}})");
    Finding::slow("oplog", text)
        .mended_by(format!("(on every member; it needs the disk space)\n{mend}"))
}

/// `seconds`: minSnapshotHistoryWindowInSeconds.
pub(super) fn snapshot_window(seconds: &Asked<u32>) -> Finding {
    const DEFAULT_S: u32 = 300;
    match seconds {
        Ok(seconds) if *seconds >= DEFAULT_S => {
            Finding::ok("window", format!("a snapshot can be read for {seconds} s"))
        }
        Ok(seconds) => {
            let text = format!(
                "a snapshot can be read for only {seconds} s: a long history takes many of them"
            );
            let mend = format!(
                "db.adminCommand({{setParameter: 1, minSnapshotHistoryWindowInSeconds: \
                 {DEFAULT_S}}})"
            );
            Finding::slow("window", text).mended_by(mend)
        }
        Err(refusal) => {
            let text = format!("how long a snapshot can be read is not told ({})", refusal.why);
            Finding::ok("window", text)
        }
    }
}

/// What does not work, and the role that helps where a right is missing.
fn refused(check: &'static str, what: &str, refusal: &Refusal, grant: String) -> Finding {
    let finding = Finding::fail(check, format!("{what}: {}", refusal.why));
    Finding { mend: refusal.denied.then_some(grant), ..finding }
}

fn duration(hours: f64) -> String {
    match hours {
        hours if hours < 1.0 => format!("{:.0} min", hours * 60.0),
        hours if hours < 100.0 => format!("{hours:.1} h"),
        hours => format!("{:.0} days", hours / 24.0),
    }
}

/// A text as a string literal.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
