//! Writers that write again what was not acknowledged: to MongoDB, knowing nothing of this
//! server, or through it. Each has keys of its own.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use mongodb::{
    Client, Database,
    bson::{DateTime, Document, doc},
    error::Result,
    options::{Acknowledgment, WriteConcern},
};
use serde_json::{Value, json};
use support::{
    chaos::{Dice, stamp},
    oracle::log,
};

use crate::shared::Shared;

/// Whose observations are written.
pub(crate) const SUBJECTS: [&str; 2] = ["Patient/subject-0", "Patient/subject-1"];
const KEYS: usize = 40;
/// How much too old some of what is written says that it is.
const BACKDATED_MS: i64 = 3_600_000;
const PAUSE: Duration = Duration::from_millis(4);

/// Where writes go.
pub(crate) enum Sink {
    Mongo(Client, Database),
    Http(reqwest::Client),
}

enum Write {
    Put(Document),
    /// A new text, status and subject for a document that is there.
    Set(Document),
    Delete {
        ty: &'static str,
        id: String,
    },
}

pub(crate) async fn write(shared: Arc<Shared>, writer: u64) {
    let mut dice = Dice(writer);
    // What is there.
    let mut documents = BTreeMap::new();
    while !shared.enough.load(SeqCst) {
        let count = [1, 1, 1, 3][dice.below(4)];
        let stamp = text(count);
        let mut writes: Vec<Write> = Vec::new();
        for n in 0..count {
            let ty = crate::lab::TYPES[dice.below(2)];
            // The number keeps the writes of one transaction apart.
            let id = format!("{writer}-{n}-{}", dice.below(KEYS));
            let there = documents.get(&format!("{ty}/{id}"));
            writes.push(match (dice.roll(6), there) {
                // A text that others in the transaction share tells which are together.
                (0, Some(_)) if count == 1 => Write::Delete { ty, id },
                (1 | 2, Some(document)) => Write::set(document, &stamp, place(&mut dice)),
                _ => {
                    let mut document = document(&shared, ty, &id, &stamp, place(&mut dice));
                    if dice.roll(4) == 0 {
                        backdate(&mut document);
                    }
                    Write::Put(document)
                }
            });
        }
        for write in commit(&shared, writes).await {
            let (url, document) = write.outcome();
            match document {
                Some(document) => documents.insert(url, document),
                None => documents.remove(&url),
            };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn document(shared: &Shared, ty: &str, id: &str, stamp: &str, place: Document) -> Document {
    let padding = "x".repeat(shared.padding);
    let mut document = doc! {
        "_id": id, "resourceType": ty, "id": id, "language": stamp,
        "meta": {"lastUpdated": DateTime::now()}, "implicitRules": padding,
    };
    document.extend(place);
    document
}

/// As restores and imports do. (Our server stamps what it is given.)
fn backdate(document: &mut Document) {
    let then = DateTime::now().timestamp_millis() - BACKDATED_MS;
    document.insert("meta", doc! {"lastUpdated": DateTime::from_millis(then)});
}

/// By this, some clients' streams hold an observation or do not.
fn place(dice: &mut Dice) -> Document {
    let status = ["final", "preliminary"][dice.below(2)];
    doc! {"status": status, "subject": {"reference": SUBJECTS[dice.below(2)]}}
}

/// Whom some clients ask for. No date tells that he is old, and none of the writers writes him again.
fn subject() -> Document {
    let id = SUBJECTS[0].trim_start_matches("Patient/");
    doc! {"_id": id, "resourceType": "Patient", "id": id, "language": text(1)}
}

impl Write {
    fn set(document: &Document, stamp: &str, place: Document) -> Self {
        let mut document = document.clone();
        document.insert("language", stamp);
        document.extend(place);
        Self::Set(document)
    }

    fn restamp(&mut self, stamp: &str) {
        if let Self::Put(document) | Self::Set(document) = self {
            document.insert("language", stamp);
        }
    }

    fn outcome(&self) -> (String, Option<Document>) {
        match self {
            Self::Put(document) | Self::Set(document) => {
                let member = |name| document.get_str(name).expect("a text");
                let url = format!("{}/{}", member("resourceType"), member("id"));
                (url, Some(document.clone()))
            }
            Self::Delete { ty, id } => (format!("{ty}/{id}"), None),
        }
    }
}

fn majority() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).build()
}

/// A text that no other transaction holds; it ends with how many resources this one writes.
fn text(count: usize) -> String {
    format!("{}/{count}", stamp())
}

/// Commits them as one, again and again until that is acknowledged; what was, then.
async fn commit(shared: &Shared, mut writes: Vec<Write>) -> Vec<Write> {
    loop {
        let kept = match &shared.sink {
            Sink::Mongo(client, db) => commit_to(client, db, &writes).await.ok(),
            Sink::Http(http) => post(shared, http, &writes).await,
        };
        if let Some(kept) = kept {
            kept.into_iter().for_each(|write| shared.acknowledge(write));
            return writes;
        }
        shared.refused.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
        // It may be there all the same. To write the same again would be to write nothing, and
        // MongoDB acknowledges that though no majority has what is there.
        let text = text(writes.len());
        writes.iter_mut().for_each(|write| write.restamp(&text));
    }
}

/// What an update sets.
const NEW: [&str; 3] = ["language", "status", "subject"];

type Kept = Vec<(String, Option<Value>)>;

async fn commit_to(client: &Client, db: &Database, writes: &[Write]) -> Result<Kept> {
    let mut session = client.start_session().await?;
    session.start_transaction().write_concern(majority()).await?;
    for write in writes {
        let (url, document) = write.outcome();
        let (ty, id) = url.split_once('/').expect("Type/id");
        let collection = db.collection::<Document>(ty);
        let this = doc! {"_id": id};
        match (write, document) {
            (Write::Set(_), Some(document)) => {
                let is_new = |(name, _): &(String, _)| NEW.contains(&name.as_str());
                let new: Document = document.clone().into_iter().filter(is_new).collect();
                let set = doc! {"$set": new};
                let set = collection.update_one(this.clone(), set).session(&mut session).await?;
                if set.matched_count == 0 {
                    // Its collection was dropped.
                    let put = collection.replace_one(this, document).upsert(true);
                    put.session(&mut session).await?;
                }
            }
            (_, Some(document)) => {
                let put = collection.replace_one(this, document).upsert(true);
                put.session(&mut session).await?;
            }
            (_, None) => {
                collection.delete_one(this).session(&mut session).await?;
            }
        }
    }
    session.commit_transaction().await?;
    let kept = |write: &Write| {
        let (url, document) = write.outcome();
        (url, document.as_ref().map(log::json))
    };
    Ok(writes.iter().map(kept).collect())
}

/// A transaction over HTTP; `None`: nobody says that it is there.
async fn post(shared: &Shared, http: &reqwest::Client, writes: &[Write]) -> Option<Kept> {
    let entry = |write: &Write| {
        let (url, document) = write.outcome();
        let method = if document.is_some() { "PUT" } else { "DELETE" };
        let mut entry = json!({"request": {"method": method, "url": url}});
        if let Some(document) = document {
            entry["resource"] = log::json(&document);
        }
        entry
    };
    let entries: Vec<Value> = writes.iter().map(entry).collect();
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    let url = format!("{}/fhir", shared.urls().first()?);
    let request = http.post(url).header("Content-Type", "application/fhir+json");
    let request = request.header("Prefer", "return=representation").body(bundle.to_string());
    let answer = request.timeout(Duration::from_secs(5)).send().await.ok()?;
    let status = answer.status();
    assert!(status == 200 || status == 503, "{status}: {}", answer.text().await.expect("a text"));
    let answer: Value = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
    let entries = answer["entry"].as_array().filter(|_| status == 200)?;
    assert_eq!(entries.len(), writes.len());
    let kept =
        |(write, entry): (&Write, &Value)| (write.outcome().0, entry.get("resource").cloned());
    Some(writes.iter().zip(entries).map(kept).collect())
}

/// Writes the patient for whom some clients ask: nobody may do so while he is not there.
pub(crate) async fn first(shared: &Shared) {
    commit(shared, vec![Write::Put(subject())]).await;
}

/// Writes 4 MB of a type that nobody writes again.
pub(crate) async fn fill(shared: &Shared, ty: &'static str) {
    for ten in 0..4 {
        let text = text(10);
        let write = |n: usize| {
            let id = format!("ballast-{ten}{n}");
            let large = "x".repeat(100_000);
            let document = doc! {"_id": &id, "resourceType": ty, "id": &id, "language": &text, "alias": [large]};
            Write::Put(document)
        };
        commit(shared, (0..10).map(write).collect()).await;
    }
}

/// Writes an observation of this id, which every stream of observations holds, and a patient, as
/// one, however long that takes.
pub(crate) async fn last(shared: &Shared, id: &str) {
    let place = doc! {"status": "final", "subject": {"reference": SUBJECTS[0]}};
    let text = text(2);
    let write = |ty| Write::Put(document(shared, ty, id, &text, place.clone()));
    commit(shared, vec![write("Observation"), write("Patient")]).await;
}
