//! What a deployment is asked. Nothing is left behind: what is written is in a transaction that
//! is aborted.

use futures_util::StreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, doc, oid::ObjectId},
    error::Error,
    raw_batch_cursor::RawBatch,
};

use super::{
    collections,
    findings::{self, Asked, Finding, Identity, Login, Oplog, Refusal, Tokens, Topology},
    survey::{self, Listing},
};
use crate::store::mongo::{
    catalog,
    change_stream::change_stream,
    connect::{self, Dialed},
    errors,
    event::time_in_token,
    log, time,
};

/// All that is to be said of the deployment and the database that a URI names.
pub(super) async fn findings(uri: String) -> Vec<Finding> {
    let server = match connect::dial(&uri).await {
        Ok(server) => server,
        Err(error) => return vec![Finding::fail("connection", error.to_string())],
    };
    let login = login(&server).await;
    let kind = topology(&server);
    let version = server.version().await;
    let mut all = vec![
        findings::connection(&server.hosts, &login),
        findings::topology(&kind),
        findings::version(&version, server.has_snapshots(), server.has_images()),
    ];
    all.extend(findings::engine(&engine(&server).await));
    let listing = survey::list(&server.db).await;
    all.push(findings::listing(&listing.as_ref().map(drop).map_err(Clone::clone), &login));
    let listed = listing.is_ok();
    let listing = listing.unwrap_or_default();
    all.push(majority(&server, &listing, &login).await);
    if kind != Topology::Standalone {
        all.extend(log_and_writes(&server, &listing, &login).await);
    }
    if listed {
        all.extend(collections(&server, &listing).await);
    }
    server.client.shutdown().await;
    all
}

/// What a standalone server has nothing of.
async fn log_and_writes(server: &Dialed, listing: &Listing, login: &Login) -> Vec<Finding> {
    let snapshot = match server.has_snapshots() {
        true => Some(findings::snapshot(&read_snapshot(server, listing).await, login)),
        false => None,
    };
    let writing = write(server).await;
    let identity = identity(server, listing).await;
    let mut all: Vec<Finding> = snapshot.into_iter().collect();
    all.extend(findings::changes(&read_changes(server).await, login));
    all.push(findings::writing(&writing, login));
    all.push(findings::epoch(identity, server.is_sharded(), writing.is_ok(), login));
    if !server.is_sharded() {
        all.push(findings::oplog(&oplog(server).await, login));
        all.push(findings::snapshot_window(&snapshot_window(server).await));
    }
    all
}

async fn collections(server: &Dialed, listing: &Listing) -> Vec<Finding> {
    let mut all = Vec::new();
    for found in survey::resources(&server.db, listing).await {
        all.extend(collections::findings(&found, server.has_images()));
    }
    if all.is_empty() {
        all.push(collections::none_found());
    }
    all.extend(collections::ignored(&listing.others));
    all
}

/// What an error of the driver says, without the command that it was about.
pub(super) fn refusal(error: &Error) -> Refusal {
    const UNAUTHORIZED: i32 = 13;
    let text = errors::text(error);
    let why = text.split(" to execute command ").next().unwrap_or_default().to_owned();
    Refusal { denied: errors::code(error) == Some(UNAUTHORIZED), why }
}

async fn admin(server: &Dialed, command: Document) -> Asked<Document> {
    let reply = server.client.database("admin").run_command(command).await;
    reply.map_err(|error| refusal(&error))
}

async fn login(server: &Dialed) -> Login {
    let status = admin(server, doc! {"connectionStatus": 1}).await.unwrap_or_default();
    let user = status
        .get_document("authInfo")
        .and_then(|auth| auth.get_array("authenticatedUsers"))
        .ok()
        .and_then(|users| users.first()?.as_document());
    let member = |name| Some(user?.get_str(name).ok()?.to_owned());
    Login { user: member("user").zip(member("db")), database: server.db.name().to_owned() }
}

fn topology(server: &Dialed) -> Topology {
    match server.set() {
        Some(name) => Topology::ReplicaSet(name.to_owned()),
        None if server.is_sharded() => Topology::Sharded,
        None => Topology::Standalone,
    }
}

async fn engine(server: &Dialed) -> Asked<Option<String>> {
    let status = admin(server, doc! {"serverStatus": 1, "metrics": 0, "wiredTiger": 0}).await?;
    let engine = status.get_document("storageEngine").and_then(|engine| engine.get_str("name"));
    Ok(engine.ok().map(str::to_owned))
}

async fn majority(server: &Dialed, listing: &Listing, login: &Login) -> Finding {
    let find = doc! {"find": listing.any(), "limit": 1, "readConcern": {"level": "majority"}};
    let read = server.db.run_command(find).await.map(drop);
    let hello = hello(server).await.unwrap_or_default();
    let behind_s = log::written(&hello)
        .zip(log::majority(&hello, server.is_sharded()))
        .map(|(last, common)| time::seconds(last).saturating_sub(time::seconds(common)));
    findings::majority(&read.map_err(|error| refusal(&error)), behind_s, login)
}

async fn hello(server: &Dialed) -> Result<Document, Error> {
    server.db.run_command(doc! {"hello": 1}).await
}

/// Up to where everything is committed by majority.
async fn committed(server: &Dialed) -> Result<u64, Error> {
    let no_time = || Error::custom("no primary names its cluster time".to_owned());
    let known = log::known(server.is_sharded(), || hello(server)).await?;
    known.map(|(_, time)| time).ok_or_else(no_time)
}

async fn read_snapshot(server: &Dialed, listing: &Listing) -> Asked<()> {
    try_snapshot(server, listing).await.map_err(|error| refusal(&error))
}

async fn try_snapshot(server: &Dialed, listing: &Listing) -> Result<(), Error> {
    let at = time::to_bson(committed(server).await?);
    let mut session = server.client.start_session().snapshot(true).snapshot_time(at).await?;
    let collection = server.db.collection::<Document>(listing.any());
    collection.find_one(doc! {}).session(&mut session).await.map(drop)
}

async fn read_changes(server: &Dialed) -> Asked<Tokens> {
    try_changes(server).await.map_err(|error| refusal(&error))
}

/// Opens the change stream some time back, and compares the times that its resume tokens show
/// with those of its events; of a stream without events, with where it began.
async fn try_changes(server: &Dialed) -> Result<Tokens, Error> {
    const BACK_S: u64 = 300;
    const BATCH: u32 = 100;
    const POSITION_LOST: [i32; 2] = [286, 280];
    const REPLIES: usize = 3;
    let now = committed(server).await?;
    let images = server.has_images();
    let mut from = now.saturating_sub(BACK_S << 32);
    let mut stream = change_stream(&server.db, images, BATCH, from).await;
    if stream.as_ref().is_err_and(|e| errors::code(e).is_some_and(|c| POSITION_LOST.contains(&c))) {
        from = now;
        stream = change_stream(&server.db, images, BATCH, from).await;
    }
    let mut stream = stream?;
    let mut mark = None;
    for _ in 0..REPLIES {
        let Some(reply) = stream.next().await else { break };
        let reply = reply?;
        if let Some(compared) = compare_events(&reply)? {
            return Ok(compared);
        }
        mark = mark_of(&reply);
    }
    let latest = log::written(&hello(server).await?).unwrap_or(u64::MAX);
    let within = mark.is_some_and(|mark| (from..=latest).contains(&mark));
    Ok(if within { Tokens::InTheLog } else { Tokens::Unknown })
}

/// The times in the events' resume tokens with the events' own; `None` where there are none.
fn compare_events(reply: &RawBatch) -> Result<Option<Tokens>, Error> {
    let mut events = 0;
    for event in reply.doc_slices()? {
        events += 1;
        let event = event.ok().and_then(|event| event.as_document());
        let token = event.and_then(|event| event.get_document("_id").ok());
        let token = token.and_then(|token| token.get_str("_data").ok()).and_then(time_in_token);
        let own = event.and_then(|event| event.get_timestamp("clusterTime").ok());
        if token.is_none() || token != own.map(time::from_bson) {
            return Ok(Some(Tokens::Unknown));
        }
    }
    Ok((events > 0).then_some(Tokens::SameAsEvents(events)))
}

fn mark_of(reply: &RawBatch) -> Option<u64> {
    let cursor = reply.as_raw_document().get_document("cursor").ok()?;
    let token = cursor.get_document("postBatchResumeToken").ok()?;
    time_in_token(token.get_str("_data").ok()?)
}

/// What a write of a new type does, in a transaction that is aborted.
async fn write(server: &Dialed) -> Asked<()> {
    let refused = |error: Error| refusal(&error);
    let mut session = server.client.start_session().await.map_err(refused)?;
    session.start_transaction().await.map_err(refused)?;
    let written = write_in(server, &mut session).await;
    let aborted = session.abort_transaction().await;
    written.and(aborted).map_err(refused)
}

async fn write_in(server: &Dialed, session: &mut ClientSession) -> Result<(), Error> {
    let name = format!("fhirtail_check_{}", ObjectId::new().to_hex());
    let mut create = doc! {"create": &name};
    if server.has_images() {
        create.insert("changeStreamPreAndPostImages", doc! {"enabled": true});
    }
    server.db.run_command(create).session(&mut *session).await?;
    let index = doc! {"key": catalog::updated_index(), "name": "meta.lastUpdated_1__id_1"};
    let index = doc! {"createIndexes": &name, "indexes": [index]};
    server.db.run_command(index).session(&mut *session).await?;
    let collection = server.db.collection::<Document>(&name);
    collection.insert_one(doc! {"_id": "1"}).session(&mut *session).await?;
    collection.replace_one(doc! {"_id": "1"}, doc! {"a": 1}).session(&mut *session).await?;
    collection.delete_one(doc! {"_id": "1"}).session(session).await.map(drop)
}

async fn identity(server: &Dialed, listing: &Listing) -> Identity {
    let set = match server.is_sharded() {
        true => None,
        false => connect::replica_set_id(&server.db).await.unwrap_or_default(),
    };
    match set {
        Some(_) => Identity::Set,
        None if listing.own => Identity::Own,
        None => Identity::OwnToMake,
    }
}

async fn oplog(server: &Dialed) -> Asked<Oplog> {
    let refused = |error: Error| refusal(&error);
    let local = server.client.database("local");
    let oplog = local.collection::<Document>("oplog.rs");
    let mut ends = Vec::new();
    for direction in [1, -1] {
        let end = oplog.find_one(doc! {}).sort(doc! {"$natural": direction});
        let end = end.projection(doc! {"ts": 1}).await.map_err(refused)?;
        ends.extend(end.and_then(|entry| entry.get_timestamp("ts").ok()));
    }
    let seconds = match ends.as_slice() {
        [first, last] => last.time.saturating_sub(first.time),
        _ => 0,
    };
    let stats = local.run_command(doc! {"collStats": "oplog.rs"}).await.unwrap_or_default();
    let full = number(&stats, "size").zip(number(&stats, "maxSize"));
    Ok(Oplog { seconds, full: full.map(|(size, most)| size as f64 / most.max(1) as f64) })
}

async fn snapshot_window(server: &Dialed) -> Asked<u32> {
    const NAME: &str = "minSnapshotHistoryWindowInSeconds";
    let reply = admin(server, doc! {"getParameter": 1, NAME: 1}).await?;
    let seconds = number(&reply, NAME).and_then(|seconds| seconds.try_into().ok());
    seconds.ok_or_else(|| Refusal { denied: false, why: format!("no {NAME} in the reply") })
}

/// A member that is a number of whatever type.
pub(super) fn number(document: &Document, name: &str) -> Option<u64> {
    match document.get(name)? {
        Bson::Int32(number) => (*number).try_into().ok(),
        Bson::Int64(number) => (*number).try_into().ok(),
        Bson::Double(number) if *number >= 0.0 => Some(*number as u64),
        _ => None,
    }
}
