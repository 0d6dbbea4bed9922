//! Updates that come without the document: it is read at a cluster time, then stands for the
//! last such event of its key.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures_util::StreamExt;
use mongodb::{
    ClientSession,
    bson::{Bson, doc},
};

use super::{Shared, decode, errors, head::Head, log};
use crate::{
    fhir::ResourceType,
    store::{DocId, DocRef, StoreError},
};

/// A document's place: type and key.
pub(super) type Place = (ResourceType, DocId);

/// A document as it was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) json: Bytes,
    pub(super) updated_ms: Option<i64>,
}

/// Documents as of one cluster time.
#[derive(Debug)]
pub(super) struct AsOf {
    pub(super) time: u64,
    pub(super) documents: HashMap<Place, Found>,
}

/// Reads documents as of `wanted`; where that is too long ago, as of `late`, where that lies behind
/// it; where that is too long ago as well, as of now.
pub(super) async fn look_up(
    shared: &Shared,
    places: &[Place],
    wanted: u64,
    late: u64,
) -> Result<AsOf, StoreError> {
    const ATTEMPTS: usize = 5;
    let mut times = [wanted, late].into_iter().filter(|time| *time >= wanted);
    for _ in 0..ATTEMPTS {
        let time = match times.next() {
            Some(time) => time,
            None => log::commit_point(shared).await?.time.max(wanted),
        };
        let mut session = shared.session_at(time).await?;
        match read_all(shared, places, &mut session).await {
            Ok(documents) => return Ok(AsOf { time, documents }),
            Err(StoreError::SnapshotExpired) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Unavailable("the collections keep changing".into()))
}

async fn read_all(
    shared: &Shared,
    places: &[Place],
    session: &mut ClientSession,
) -> Result<HashMap<Place, Found>, StoreError> {
    let mut keys = BTreeMap::<ResourceType, Vec<Bson>>::new();
    for (ty, doc) in places {
        keys.entry(*ty).or_default().push(decode::key(doc));
    }
    let mut documents = HashMap::new();
    for (ty, keys) in keys {
        read_type(shared, ty, keys, session, &mut documents).await?;
    }
    Ok(documents)
}

async fn read_type(
    shared: &Shared,
    ty: ResourceType,
    keys: Vec<Bson>,
    session: &mut ClientSession,
    documents: &mut HashMap<Place, Found>,
) -> Result<(), StoreError> {
    let expired = |error| errors::at_instant(&error);
    let collection = shared.collection(ty);
    let find = collection.find(doc! {"_id": {"$in": keys}}).session(&mut *session);
    let mut cursor = find.await.map_err(expired)?;
    let mut stream = cursor.stream(session);
    while let Some(document) = stream.next().await {
        let document = document.map_err(expired)?;
        let bytes = document.as_bytes();
        let head = Head::of(bytes).ok();
        let (doc, updated_ms) = head.map_or((None, None), |head| (head.doc, head.updated_ms));
        let doc = doc.map(DocRef::to_doc);
        if let (Some(doc), Some(json)) = (doc, shared.json(ty, bytes)) {
            documents.insert((ty, doc), Found { json, updated_ms });
        }
    }
    Ok(())
}
