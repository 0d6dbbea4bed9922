//! Clues: what they leave out is never wanted, whatever the documents hold and whatever indexes
//! there are; and with an index the collection is not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use fhirtail::{
    search::{Context, Search},
    store::{Along, DocId, Scan, ScanKey, Window},
};
use mongodb::{
    Collection,
    bson::{
        Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp,
        doc, oid::ObjectId, spec::BinarySubtype,
    },
};

use crate::{
    support::mongod::ReplicaSet,
    tools::{Bench, bench, bench_on, ty},
};

fn search(name: &str, query: &str) -> Search {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').expect("a pair");
        (name.to_owned(), value.to_owned())
    };
    let pairs: Vec<_> = query.split('&').map(pair).collect();
    let context = Context { base: Some("http://here/fhir/"), ..Context::default() };
    Search::parse(ty(name), &pairs, context).unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// A value of each type of BSON, and some texts that look like those of others.
fn values() -> Vec<Bson> {
    let binary = |bytes: &[u8]| Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() };
    let regex = Regex {
        pattern: "Patient\\/1".to_owned().try_into().expect("no zero"),
        options: String::new().try_into().expect("no zero"),
    };
    let scope = JavaScriptCodeWithScope { code: "f()".into(), scope: doc! {} };
    let texts = [
        "Patient/1",
        "Patient/1/_history/2",
        "Patient/12",
        "http://here/fhir/Patient/1",
        "http://here/fhir/Patient/1/_history/3",
        "http://there/fhir/Patient/1",
        "Group/1",
        "1",
        "http://x/P",
        "http://x/P|2",
        "http://x/Pa",
        "male",
        "Male",
        "true",
        "",
        "ü",
        "0123456789abcdef01234567",
        "2024-01-02T03:04:05.678Z",
        "2024-01-02",
        "2023",
        "2024-01-02T03:04:05.6789+01:00",
        "MinKey",
        "TUFMRQ==",
    ];
    let mut all: Vec<Bson> = texts.into_iter().map(Bson::from).collect();
    all.extend([
        Bson::Symbol("Patient/1".into()),
        Bson::JavaScriptCode("Patient/1".into()),
        Bson::JavaScriptCodeWithScope(scope),
        Bson::RegularExpression(regex),
        ObjectId::parse_str("0123456789abcdef01234567").expect("an id").into(),
        DateTime::from_millis(1_704_164_645_678).into(),
        DateTime::from_millis(1_700_000_000_000).into(),
        Timestamp { time: 1_704_164_645, increment: 7 }.into(),
        binary(b"MALE").into(),
        // Its base64 is `male`.
        binary(&[0x99, 0xa9, 0x5e]).into(),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        Bson::Undefined,
        1.into(),
        1_i64.into(),
        1.0.into(),
        true.into(),
        false.into(),
        "1".parse::<Decimal128>().expect("a number").into(),
        doc! {}.into(),
        doc! {"reference": "Patient/1"}.into(),
    ]);
    all
}

/// Ways to put a value at the end of a path: bare, in arrays, in arrays of arrays.
fn shapes(path: &[&str], value: &Bson) -> Vec<Bson> {
    let array = |value: Bson| Bson::Array(vec![value]);
    let ways = |value: Bson| {
        let beside = Bson::Array(vec![7.into(), Bson::Null, value.clone(), "other".into()]);
        [value.clone(), array(value.clone()), array(array(value)), beside]
    };
    let Some((name, rest)) = path.split_first() else { return ways(value.clone()).to_vec() };
    let below = shapes(rest, value);
    let below = below.into_iter().map(|value| Bson::Document(doc! {*name: value}));
    if path.len() > 2 {
        return below.collect();
    }
    below.flat_map(|value| ways(value).into_iter().take(3)).collect()
}

fn documents(path: &[&str]) -> Vec<Document> {
    let whole = |value: &Bson| {
        let (first, rest) = path.split_first().expect("a path");
        shapes(rest, value).into_iter().map(|value| doc! {*first: value}).collect::<Vec<_>>()
    };
    let mut all: Vec<Document> = values().iter().flat_map(whole).collect();
    all.extend([doc! {path.join("."): "Patient/1"}, doc! {}, doc! {path[0]: []}]);
    let oid = |n: usize| ObjectId::from_bytes([n as u8; 12]);
    for (n, document) in all.iter_mut().enumerate() {
        let id = if n % 7 == 3 { Bson::ObjectId(oid(n)) } else { format!("d{n:05}").into() };
        document.insert("_id", id);
    }
    all.extend([doc! {"_id": 7, path[0]: "male"}]);
    // Keys that are there twice were for ObjectIds of one byte.
    let mut seen = BTreeSet::new();
    all.retain(|document| seen.insert(document.get("_id").map(Bson::to_string)));
    all
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

/// In each state of the indexes.
async fn agrees_with_indexes(bench: &Bench, name: &str, path: &str, queries: &[String]) {
    let collection = bench.collection(name);
    let fruitful = agrees(bench, name, queries).await;
    assert!(fruitful * 2 > queries.len(), "{fruitful} of {} find anything", queries.len());
    index(&collection, doc! {path: 1}).await;
    agrees(bench, name, queries).await;
    index(&collection, doc! {path: -1, "_id": 1}).await;
    agrees(bench, name, queries).await;
}

fn of_each(start: &str, texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| format!("{start}{}", text.replace('|', "\\|"))).collect()
}

#[tokio::test]
async fn references_of_any_shape_are_found() {
    let Some(bench) = bench().await else { return };
    let all = documents(&["subject", "reference"]);
    bench.collection("Observation").insert_many(all).await.expect("inserted");
    let mut queries = of_each("subject=", &["Patient/1", "1", "Patient/12", "Group/1"]);
    queries.extend(of_each("patient=", &["Patient/1", "1", "http://there/fhir/Patient/1"]));
    queries.extend(of_each("subject:Patient=", &["1", "1,12"]));
    queries.push("subject=Patient/1/_history/2".into());
    queries.push("subject=http://here/fhir/Patient/1,Group/1".into());
    agrees_with_indexes(&bench, "Observation", "subject.reference", &queries).await;
}

#[tokio::test]
async fn codes_of_any_shape_are_found() {
    let Some(bench) = bench().await else { return };
    let all = documents(&["code", "coding", "code"]);
    bench.collection("Observation").insert_many(all).await.expect("inserted");
    let texts = [
        "male",
        "Patient/1",
        "0123456789abcdef01234567",
        "2024-01-02T03:04:05.678Z",
        "MinKey",
        "TUFMRQ==",
        "http://x/P|2",
        "f()",
        "/Patient\\\\/1/",
        "1",
        "true",
        "ü",
    ];
    let mut queries = of_each("code=", &texts);
    queries.push("code=male,1,|true".into());
    agrees_with_indexes(&bench, "Observation", "code.coding.code", &queries).await;
}

#[tokio::test]
async fn canonicals_and_booleans_of_any_shape_are_found() {
    let Some(bench) = bench().await else { return };
    bench
        .collection("Patient")
        .insert_many(documents(&["meta", "profile"]))
        .await
        .expect("inserted");
    let mut queries = of_each("_profile=", &["http://x/P", "http://x/Pa", "MinKey", "ü"]);
    queries.extend(["_profile=http://x/P|2", "_profile:below=http://x/P"].map(String::from));
    agrees_with_indexes(&bench, "Patient", "meta.profile", &queries).await;
    let active = documents(&["active"]);
    bench.collection("Practitioner").insert_many(active).await.expect("inserted");
    let queries = ["active=true", "active=false", "active=true,false"].map(String::from);
    agrees_with_indexes(&bench, "Practitioner", "active", &queries).await;
}

#[tokio::test]
async fn instants_of_any_shape_are_found() {
    let Some(bench) = bench().await else { return };
    let all = documents(&["meta", "lastUpdated"]);
    bench.collection("Patient").insert_many(all).await.expect("inserted");
    let at = ["", "ge", "gt", "lt", "le", "sa", "eb", "ap"];
    let dates = ["2024-01-02T03:04:05.678Z", "2024-01-02", "2023-11"];
    let queries = at.iter().flat_map(|at| dates.map(|date| format!("_lastUpdated={at}{date}")));
    agrees_with_indexes(&bench, "Patient", "meta.lastUpdated", &queries.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn ids_are_found_by_their_keys() {
    let Some(bench) = bench().await else { return };
    let all = documents(&["gender"]);
    let some: Vec<_> = all.iter().filter_map(|document| document.get("_id")).step_by(3).collect();
    let text = |id: &&Bson| match id {
        Bson::String(id) => Some(id.clone()),
        Bson::ObjectId(id) => Some(id.to_hex()),
        _ => None,
    };
    let ids: Vec<String> = some.iter().filter_map(text).collect();
    bench.collection("Patient").insert_many(all).await.expect("inserted");
    let queries = [format!("_id={}", ids.join(",")), format!("_id={}&gender=male", ids.join(","))];
    agrees(&bench, "Patient", &queries).await;
}

/// What the server has looked at since it writes that down: keys of indexes, documents.
async fn looked_at(bench: &Bench, collection: &str) -> (i64, i64) {
    let profile = bench.db.collection::<Document>("system.profile");
    let of = format!("{}.{collection}", bench.db.name());
    let sum = |name: &str| doc! {"$sum": format!("${name}")};
    let pipeline = [
        doc! {"$match": {"ns": of}},
        doc! {"$group": {"_id": null, "k": sum("keysExamined"), "d": sum("docsExamined")}},
    ];
    let mut sums = profile.aggregate(pipeline).await.expect("sums");
    assert!(sums.advance().await.expect("a sum"), "something was profiled");
    let sums = sums.deserialize_current().expect("a document");
    let number = |name| match sums.get(name) {
        Some(Bson::Int64(number)) => *number,
        Some(Bson::Int32(number)) => i64::from(*number),
        other => panic!("{other:?}"),
    };
    (number("k"), number("d"))
}

#[tokio::test]
async fn along_an_index_the_collection_is_not_read() {
    let Some(bench) = bench().await else { return };
    const ALL: usize = 30_000;
    let document = |n: usize| {
        let coding = doc! {"system": "http://loinc.org", "code": format!("c{}", n % 2)};
        let version = if n % 3_000 == 1 { "/_history/1" } else { "" };
        doc! {
            "_id": format!("o{n:06}"), "resourceType": "Observation", "code": {"coding": [coding]},
            "subject": {"reference": format!("Patient/{}{version}", n % 1_000)},
            "meta": {"lastUpdated": DateTime::from_millis(n as i64 * 1_000)},
        }
    };
    let collection = bench.collection("Observation");
    for some in (0..ALL).collect::<Vec<_>>().chunks(5_000) {
        let some = some.iter().map(|n| document(*n));
        collection.insert_many(some).await.expect("inserted");
    }
    // A stretch after the other, from either end.
    let queries = ["patient=7", "code=c1&patient=1,29"].map(String::from);
    assert_eq!(agrees(&bench, "Observation", &queries).await, 2);
    index(&collection, doc! {"subject.reference": 1, "_id": 1}).await;
    index(&collection, doc! {"code.coding.code": 1, "_id": 1}).await;
    index(&collection, doc! {"meta.lastUpdated": 1, "_id": 1}).await;
    let cases = [
        ("patient=Patient/7", 30, 100),
        ("subject=7", 30, 100),
        ("patient=1", 30, 100),
        ("patient=7,8,9&code=c1", 60, 300),
        ("_id=o000001,o029999", 2, 10),
        ("_lastUpdated=ge1970-01-01T08:19:00Z", 60, 200),
        // Half of all, in the order of the keys, without a sort.
        ("code=c1", ALL / 2, ALL / 2 + 10),
        ("_lastUpdated=ge1970-01-01T04:10:00Z&_sort=_lastUpdated", ALL / 2, ALL / 2 + 10),
        ("patient=7&_sort=-_lastUpdated", 30, 100),
    ];
    for (query, finds, most) in cases {
        let profile = doc! {"create": "system.profile", "capped": true, "size": 64 << 20};
        bench.db.run_command(profile).await.expect("room for the profile");
        bench.db.run_command(doc! {"profile": 2}).await.expect("a profile");
        let search = search("Observation", query);
        let along = match search.options.sort.first() {
            None => Along::Keys,
            Some(key) if key.descending => Along::UpdatedDown,
            Some(_) => Along::Updated,
        };
        let scan = Scan { along, clues: search.clues().into(), ..Scan::of(search.ty) };
        let mut ids = found(&bench, &search, scan).await;
        if along.is_down() {
            ids.reverse();
        }
        assert_eq!(ids.len(), finds, "{query}");
        assert!(ids.is_sorted(), "{query}");
        bench.db.run_command(doc! {"profile": 0}).await.expect("no profile");
        let (keys, documents) = looked_at(&bench, "Observation").await;
        println!("{query}: {keys} keys, {documents} documents of {ALL} for {finds}");
        assert!(documents <= most as i64, "{query}: {documents} documents were read");
        let profile = bench.db.collection::<Document>("system.profile");
        let sorted = profile.count_documents(doc! {"hasSortStage": true}).await.expect("a count");
        assert!(finds < 10_000 || sorted == 0, "{query} is sorted");
        profile.drop().await.expect("dropped");
    }
    // What an index has beside the texts is found beside ever so many of them.
    let coding = doc! {"coding": {"code": Bson::JavaScriptCode("c1".into())}};
    collection.insert_one(doc! {"_id": "o000000a", "code": coding}).await.expect("inserted");
    let search = search("Observation", "code=c1");
    let scan = Scan { clues: search.clues().into(), ..Scan::of(search.ty) };
    let ids = found(&bench, &search, scan).await;
    assert_eq!((ids.len(), &ids[0]), (ALL / 2 + 1, &DocId::Text("o000000a".into())));
}

#[tokio::test]
async fn by_time_all_are_read_in_order() {
    let Some(bench) = bench().await else { return };
    let updated: BTreeMap<i64, i64> = (0..60).map(|n| (n, n * 37 % 50)).collect();
    let document = |(n, at): (&i64, &i64)| {
        let id = format!("p{n:02}");
        doc! {"_id": id, "meta": {"lastUpdated": DateTime::from_millis(at * 1_000)}}
    };
    let collection = bench.collection("Patient");
    collection.insert_many(updated.iter().map(document)).await.expect("inserted");
    collection.insert_one(doc! {"_id": "none", "active": true}).await.expect("inserted");
    let mut expected: Vec<_> = updated.iter().map(|(n, at)| (*at, format!("p{n:02}"))).collect();
    expected.push((i64::MIN, "none".into()));
    expected.sort();
    let expected: Vec<_> = expected.into_iter().map(|(_, id)| DocId::Text(id.into())).collect();
    let all = search("Patient", "_sort=_lastUpdated");
    for step in ["no index", "the index", "a text among the dates"] {
        if step == "the index" {
            index(&collection, doc! {"meta.lastUpdated": 1, "_id": 1}).await;
        }
        if step == "a text among the dates" {
            let text = doc! {"$set": {"meta.lastUpdated": "1970-01-01T00:00:00.000Z"}};
            collection.update_one(doc! {"_id": "p00"}, text).await.expect("updated");
        }
        let scan = |along| Scan { along, ..Scan::of(ty("Patient")) };
        assert_eq!(found(&bench, &all, scan(Along::Updated)).await, expected, "{step}");
        let mut down = found(&bench, &all, scan(Along::UpdatedDown)).await;
        down.reverse();
        assert_eq!(down, expected, "{step}, from the last to the first");
        let active = search("Patient", "active=true");
        let scan = Scan { clues: active.clues().into(), ..scan(Along::Updated) };
        assert_eq!(found(&bench, &active, scan).await, [DocId::Text("none".into())], "{step}");
    }
}

/// Waits until a condition holds.
async fn until<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_index_that_is_still_built_is_no_index() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let set: &'static ReplicaSet = Box::leak(Box::new(set));
    let bench = bench_on(set).await;
    let document = |n: i64| {
        let updated = DateTime::from_millis(n * 1_000);
        doc! {"_id": format!("p{n}"), "gender": "male", "meta": {"lastUpdated": updated}}
    };
    bench.collection("Patient").insert_many((0..9).map(document)).await.expect("inserted");
    let failpoint = |mode: &'static str| {
        set.admin(doc! {"configureFailPoint": "hangAfterStartingIndexBuild", "mode": mode})
    };
    failpoint("alwaysOn").await;
    let build = |keys: Document| {
        let collection = bench.collection("Patient");
        tokio::spawn(async move { index(&collection, keys).await })
    };
    let built =
        [build(doc! {"meta.lastUpdated": 1, "_id": 1}), build(doc! {"gender": 1, "_id": 1})];
    until(async || {
        let listed = bench.db.run_command(doc! {"listIndexes": "Patient"}).await.expect("a list");
        listed.get_document("cursor").expect("a cursor").get_array("firstBatch").expect("all").len()
            == 3
    })
    .await;
    let search = search("Patient", "gender=male");
    let whole = Scan::of(ty("Patient"));
    let window = Window { after_ms: Some(4_000), before_ms: None };
    for (scan, count) in [
        (Scan { clues: search.clues().into(), ..whole.clone() }, 9),
        (Scan { along: Along::Updated, ..whole.clone() }, 9),
        (Scan { window, ..whole }, 4),
    ] {
        assert_eq!(found(&bench, &search, scan.clone()).await.len(), count, "{scan:?}");
    }
    failpoint("off").await;
    for one in built {
        one.await.expect("an index");
    }
}
