//! What the collections of a database are asked.

use futures_util::TryStreamExt;
use mongodb::{
    Database,
    bson::{Bson, Document, doc},
    error::Error,
};

use super::{
    collections::{Content, Found, Kind, Sample},
    findings::Asked,
    probes::{number, refusal},
};
use crate::{
    search,
    store::mongo::{
        catalog,
        layout::{DELETED, Layout, OWN},
    },
};

/// The collections of a database.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Those named like a resource type, by name, as the server lists them.
    resources: Vec<(String, Document)>,
    /// Those that are neither resources nor fhirtail's own, by name.
    pub(super) others: Vec<String>,
    /// [`OWN`] is there.
    pub(super) own: bool,
}

impl Listing {
    /// A collection to try reads on; one of ours, there or not, where there are no resources.
    pub(super) fn any(&self) -> &str {
        let plain = |(_, entry): &&(String, Document)| {
            kind(entry) == Kind::Plain && !catalog::facts(entry).capped
        };
        self.resources.iter().find(plain).map_or(OWN, |(name, _)| name)
    }
}

/// Lists them.
pub(super) async fn list(db: &Database) -> Asked<Listing> {
    let entries = async { catalog::list(db, doc! {}).await?.try_collect::<Vec<_>>().await };
    let entries = entries.await.map_err(|error: Error| refusal(&error))?;
    let (layout, mut listing) = (Layout::native(), Listing::default());
    for entry in entries {
        let Ok(name) = entry.get_str("name").map(str::to_owned) else { continue };
        match name.as_str() {
            OWN => listing.own = true,
            DELETED => {}
            name if name.starts_with("system.") => {}
            name if layout.type_of(name).is_some() => {
                listing.resources.push((name.to_owned(), entry));
            }
            _ => listing.others.push(name),
        }
    }
    listing.resources.sort_by(|(one, _), (other, _)| one.cmp(other));
    listing.others.sort();
    Ok(listing)
}

/// Asks each collection that is named like a resource type.
pub(super) async fn resources(db: &Database, listing: &Listing) -> Vec<Found> {
    let mut all = Vec::new();
    for (name, entry) in &listing.resources {
        let facts = catalog::facts(entry);
        let kind = kind(entry);
        let content = match kind {
            Kind::Plain => content(db, name).await.map_err(|error| refusal(&error)),
            _ => Ok(Content::default()),
        };
        let (name, images) = (name.clone(), facts.images);
        let (collated, capped) = (facts.collated, facts.capped);
        all.push(Found { name, kind, images, collated, capped, content });
    }
    all
}

fn kind(entry: &Document) -> Kind {
    match entry.get_str("type") {
        Ok("view") => Kind::View,
        Ok("timeseries") => Kind::TimeSeries,
        _ => Kind::Plain,
    }
}

async fn content(db: &Database, name: &str) -> Result<Content, Error> {
    let stats = db.run_command(doc! {"collStats": name}).await?;
    let indexes = catalog::indexes(db, name).await?;
    Ok(Content {
        documents: number(&stats, "count").unwrap_or(0),
        bytes: number(&stats, "size").unwrap_or(0),
        indexed: indexes.iter().any(catalog::is_updated_index),
        unindexed: unindexed(name, &indexes),
        expiring: indexes.iter().filter_map(expiry).collect(),
        sample: Sample {
            // Where a cluster is too old to look into a collection from within, none are known.
            twin_key: twins(db, name).await.unwrap_or(0),
            ..sample(db, name).await?
        },
    })
}

/// Of the parameters that are searched by most, those whose place has no index: the parameter, and
/// the place.
fn unindexed(name: &str, indexes: &[Document]) -> Vec<(&'static str, String)> {
    const MOST: [&str; 6] = ["patient", "subject", "identifier", "code", "encounter", "url"];
    let ty = Layout::native().type_of(name);
    let places: Vec<_> = ty.into_iter().flat_map(search::places).collect();
    let mut missing: Vec<(&str, String)> = Vec::new();
    for wanted in MOST {
        let Some((name, path)) = places.iter().find(|(name, _)| *name == wanted) else { continue };
        let path = path.join(".");
        let is_known = missing.iter().any(|(_, known)| *known == path);
        if !is_known && catalog::indexes_of(indexes, &path).is_empty() {
            missing.push((name, path));
        }
    }
    missing
}

fn expiry(index: &Document) -> Option<(String, i64)> {
    let seconds = number(index, "expireAfterSeconds")?;
    let member = index.get_document("key").ok()?.keys().next()?;
    Some((member.clone(), seconds.try_into().unwrap_or(i64::MAX)))
}

/// How many documents a sample is of.
const DOCUMENTS: i32 = 200;

/// Takes some documents and counts, on the server, the kinds of their keys and dates.
async fn sample(db: &Database, name: &str) -> Result<Sample, Error> {
    let count = |test: Bson| doc! {"$sum": {"$cond": [test, 1, 0]}};
    let pipeline = [
        doc! {"$sample": {"size": DOCUMENTS}},
        doc! {"$project": {
            "key": {"$type": "$_id"},
            "updated": {"$type": "$meta.lastUpdated"},
            "id": {"$type": "$id"},
            "same": {"$eq": ["$id", converted("$_id", "string")]},
        }},
        doc! {"$group": {
            "_id": null,
            "documents": {"$sum": 1},
            "foreign_key": count(none_of("$key", &["string", "objectId"])),
            "other_id": count(doc! {"$and": [{"$eq": ["$id", "string"]}, {"$not": "$same"}]}.into()),
            "updated_text": count(doc! {"$eq": ["$updated", "string"]}.into()),
            "updated_missing": count(none_of("$updated", &["date", "string"])),
        }},
    ];
    let mut counts = db.collection::<Document>(name).aggregate(pipeline).await?;
    let counts = counts.try_next().await?.unwrap_or_default();
    let count = |name| number(&counts, name).unwrap_or(0);
    Ok(Sample {
        documents: count("documents"),
        foreign_key: count("foreign_key"),
        other_id: count("other_id"),
        updated_text: count("updated_text"),
        updated_missing: count("updated_missing"),
        ..Sample::default()
    })
}

/// Takes some documents and counts those to whose key, a text or an ObjectId, there is the other.
async fn twins(db: &Database, name: &str) -> Result<u64, Error> {
    let is_text = doc! {"$eq": [{"$type": "$_id"}, "string"]};
    let other = doc! {"$cond": [is_text, "objectId", "string"]};
    let twin = converted("$_id", other);
    let text = converted("$_id", "string");
    let pipeline = [
        doc! {"$sample": {"size": DOCUMENTS}},
        doc! {"$project": {"text": text, "twin": twin}},
        doc! {"$match": {"twin": {"$type": ["string", "objectId"]}}},
        doc! {"$lookup": {
            "from": name, "localField": "twin", "foreignField": "_id", "as": "found",
            "pipeline": [{"$project": {"_id": 1}}],
        }},
        doc! {"$match": {"found": {"$ne": []}}},
        // Of the digits of an ObjectId only the small ones are its text.
        doc! {"$match": {"$expr": {"$eq": ["$text", converted("$twin", "string")]}}},
        doc! {"$count": "twins"},
    ];
    let mut counts = db.collection::<Document>(name).aggregate(pipeline).await?;
    let counts = counts.try_next().await?.unwrap_or_default();
    Ok(number(&counts, "twins").unwrap_or(0))
}

fn converted(of: &str, to: impl Into<Bson>) -> Document {
    doc! {"$convert": {"input": of, "to": to.into(), "onError": null, "onNull": null}}
}

fn none_of(member: &str, types: &[&str]) -> Bson {
    doc! {"$not": {"$in": [member, types]}}.into()
}
