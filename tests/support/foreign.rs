//! A program that writes to MongoDB and knows nothing of this server: its own clock, no
//! versions, update operators, transactions.

use std::time::Duration;

use mongodb::{
    Database,
    bson::{DateTime, Document, doc},
    error::Result,
};

use super::chaos::{Dice, OBSERVATIONS, PATIENTS, stamp};

/// Writes `count` times. A write that meets another's is tried again.
pub async fn write(database: Database, seed: u64, count: usize) {
    let mut dice = Dice(seed ^ 0xf0f0);
    for _ in 0..count {
        let choice = dice.roll(7);
        let id = format!("o{}", dice.below(OBSERVATIONS));
        let document = observation(&mut dice, &id);
        while let Err(error) = write_one(&database, choice, &id, &document).await {
            let again = error.contains_label("TransientTransactionError")
                || error.to_string().contains("WriteConflict")
                || error.to_string().contains("E11000");
            assert!(again, "{error}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn write_one(database: &Database, choice: u64, id: &str, document: &Document) -> Result<()> {
    let observations = database.collection::<Document>("Observation");
    let this = || doc! {"_id": id};
    match choice {
        0 => {
            observations.delete_one(this()).await?;
        }
        1 | 2 => {
            observations.replace_one(this(), document).upsert(true).await?;
        }
        3 | 4 => {
            let set = doc! {"$set": {"valueString": stamp()}, "$unset": {"meta.versionId": 1}};
            observations.update_one(this(), set).await?;
        }
        5 => {
            let set = doc! {"$set": {"status": stamp()}, "$unset": {"meta": 1}};
            observations.update_many(doc! {"_id": {"$in": [id, "o1", "o2"]}}, set).await?;
        }
        _ => {
            let mut session = database.client().start_session().await?;
            session.start_transaction().await?;
            let replace = observations.replace_one(this(), document).upsert(true);
            replace.session(&mut session).await?;
            let set = doc! {"$set": {"valueString": stamp()}};
            observations.update_one(doc! {"_id": "o3"}, set).session(&mut session).await?;
            observations.delete_one(doc! {"_id": "o4"}).session(&mut session).await?;
            session.commit_transaction().await?;
        }
    }
    Ok(())
}

/// An Observation with a lastUpdated of long ago, of the far future, or none.
fn observation(dice: &mut Dice, id: &str) -> Document {
    let mut document = doc! {
        "_id": id, "resourceType": "Observation", "id": id, "status": "final",
        "code": {"text": "weight"},
        "subject": {"reference": format!("Patient/p{}", dice.below(PATIENTS))},
        "valueString": stamp(),
    };
    let years = [-30, 30][dice.below(2)];
    let now = DateTime::now().timestamp_millis();
    let at = DateTime::from_millis(now + years * 31_557_600_000);
    if dice.roll(3) > 0 {
        document.insert("meta", doc! {"lastUpdated": at});
    }
    document
}
