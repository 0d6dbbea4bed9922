//! Writers that know nothing of this server, and that write again what was not acknowledged.
//! Each has keys of its own, so that what is written twice is written once.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use mongodb::{
    bson::{DateTime, Document, doc},
    error::Result,
    options::{Acknowledgment, WriteConcern},
};

use crate::{
    lab::Shared,
    support::{
        chaos::{Dice, stamp},
        oracle::log::json,
    },
};

const KEYS: usize = 40;
const PAUSE: Duration = Duration::from_millis(4);

enum Write {
    Put(Document),
    /// A new text for a document that is there.
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
        let mut writes: Vec<Write> = Vec::new();
        for n in 0..count {
            writes.push(choose(&mut dice, &documents, writer, n));
        }
        while let Err(_away) = commit(&shared, &writes).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for write in writes {
            let (url, document) = write.outcome();
            shared.acknowledge((url.clone(), document.as_ref().map(json)));
            match document {
                Some(document) => documents.insert(url, document),
                None => documents.remove(&url),
            };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The number keeps the writes of one transaction apart.
fn choose(dice: &mut Dice, there: &BTreeMap<String, Document>, writer: u64, n: usize) -> Write {
    let ty = crate::lab::TYPES[dice.below(2)];
    let id = format!("{writer}-{n}-{}", dice.below(KEYS));
    match (dice.roll(6), there.get(&format!("{ty}/{id}"))) {
        (0, Some(_)) => Write::Delete { ty, id },
        (1 | 2, Some(document)) => {
            let mut document = document.clone();
            document.insert("language", stamp());
            Write::Set(document)
        }
        _ => Write::Put(document(ty, &id)),
    }
}

fn document(ty: &str, id: &str) -> Document {
    let padding = "x".repeat(400);
    doc! {
        "_id": id, "resourceType": ty, "id": id, "language": stamp(),
        "meta": {"lastUpdated": DateTime::now()}, "implicitRules": padding,
    }
}

impl Write {
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

async fn commit(shared: &Shared, writes: &[Write]) -> Result<()> {
    let mut session = shared.client.start_session().await?;
    session.start_transaction().write_concern(majority()).await?;
    for write in writes {
        let (url, document) = write.outcome();
        let (ty, id) = url.split_once('/').expect("Type/id");
        let collection = shared.db.collection::<Document>(ty);
        let this = doc! {"_id": id};
        match (write, document) {
            (Write::Set(_), Some(document)) => {
                let text = document.get_str("language").expect("a text");
                let set = doc! {"$set": {"language": text}};
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
    session.commit_transaction().await
}

/// Writes a patient of this id, however long that takes.
pub(crate) async fn last(shared: &Shared, id: &str) {
    let writes = [Write::Put(document("Patient", id))];
    while let Err(_away) = commit(shared, &writes).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (url, document) = writes[0].outcome();
    shared.acknowledge((url, document.as_ref().map(json)));
}
