//! Clues: what they leave out is never wanted, whatever the documents hold and whatever indexes
//! there are; and with an index the collection is not read.

use std::sync::Arc;

use fhirtail::{
    search::{Context, Search},
    store::{Along, DocId, Scan, ScanKey},
};
use mongodb::{Collection, bson::Document};

use crate::tools::{Bench, ty};

mod indexes;
mod shapes;
mod values;

fn search(name: &str, query: &str) -> Search {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').expect("a pair");
        (name.to_owned(), value.to_owned())
    };
    let pairs: Vec<_> = query.split('&').map(pair).collect();
    let context = Context { base: Some("http://here/fhir/"), ..Context::default() };
    Search::parse(ty(name), &pairs, context).unwrap_or_else(|error| panic!("{query}: {error}"))
}

async fn found(bench: &Bench, search: &Search, scan: Scan) -> Vec<DocId> {
    let mut batches = bench.snapshot().await.scan(scan);
    let mut found = Vec::new();
    while let Some(batch) = batches.recv().await {
        for one in batch.expect("a batch").resources() {
            if search.matches(&one.json) {
                found.push(one.key.doc().clone());
            }
        }
    }
    found
}

async fn index(collection: &Collection<Document>, keys: Document) {
    let index = mongodb::IndexModel::builder().keys(keys).build();
    collection.create_index(index).await.expect("an index");
}

/// Every search finds, narrowed, what it finds without: whichever way it goes, from any key on.
async fn agrees(bench: &Bench, name: &str, queries: &[String]) -> usize {
    let mut fruitful = 0;
    for query in queries {
        let search = search(name, query);
        let whole = found(bench, &search, Scan::of(ty(name))).await;
        let clues: Arc<[_]> = search.clues().into();
        assert!(!clues.is_empty(), "{query} tells something");
        let narrowed = Scan { clues, ..Scan::of(ty(name)) };
        assert_eq!(found(bench, &search, narrowed.clone()).await, whole, "{query}");
        let down = Scan { along: Along::IdDown, ..narrowed.clone() };
        let mut back = found(bench, &search, down.clone()).await;
        back.reverse();
        assert_eq!(back, whole, "{query} from the last to the first");
        if let Some(middle) = whole.get(whole.len() / 2) {
            let after = Some(ScanKey::Id(middle.clone()));
            let rest = found(bench, &search, Scan { after: after.clone(), ..narrowed }).await;
            assert_eq!(rest, whole[whole.len() / 2 + 1..], "{query} from {middle}");
            let mut rest = found(bench, &search, Scan { after, ..down }).await;
            rest.reverse();
            assert_eq!(rest, whole[..whole.len() / 2], "{query} back from {middle}");
            fruitful += 1;
        }
    }
    fruitful
}
