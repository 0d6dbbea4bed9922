//! Which way a narrowed scan goes: along indexes that are there, and through little.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fhirtail::{
    history::History,
    plan::{Grant, Plan, Scope},
    search::Context,
    store::{Along, DocId, Scan, ScanKey, Window},
    type_filter::TypeFilters,
};
use mongodb::bson::{Bson, DateTime, Document, doc};

use super::{agrees, found, index, search};
use support::mongod::ReplicaSet;

use crate::tools::{Bench, bench, bench_on, scan, ty};

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

/// What comes of something, and how many documents the server reads for it.
async fn profiled<T>(bench: &Bench, name: &str, doing: impl Future<Output = T>) -> (T, i64) {
    let profile = doc! {"create": "system.profile", "capped": true, "size": 64 << 20};
    bench.db.run_command(profile).await.expect("room for the profile");
    bench.db.run_command(doc! {"profile": 2}).await.expect("a profile");
    let done = doing.await;
    bench.db.run_command(doc! {"profile": 0}).await.expect("no profile");
    let (_, documents) = looked_at(bench, name).await;
    bench.db.collection::<Document>("system.profile").drop().await.expect("dropped");
    (done, documents)
}

/// How many resources a history of a search brings, and how many documents are read for them.
async fn exported(bench: &Bench, filter: &str, window: Window) -> (usize, i64) {
    let (filters, _) =
        TypeFilters::parse(&[filter.to_owned()], Context::default()).expect("a filter");
    let types = [ty("Observation")];
    let plan = Plan::new(Scope::System, Some(&types), window, false, Grant::Everything);
    let plan = Arc::new(Plan { filters: Arc::new(filters), ..plan });
    let mut history = History::new(Arc::clone(&plan), bench.snapshot().await, None);
    let count = async {
        let mut found = 0;
        while history.fetch().await.expect("resources") {
            let part = history.take(usize::MAX).expect("a part");
            let lines = part.range.map(|index| part.batch.line(index));
            found += lines.filter(|line| plan.filters.find(types[0], line)).count();
        }
        found
    };
    profiled(bench, "Observation", count).await
}

/// The history of a stream's one search of a type goes the way that a search goes.
#[tokio::test]
async fn an_export_of_a_search_goes_along_an_index() {
    let Some(bench) = bench().await else { return };
    const ALL: usize = 3_000;
    let document = |n: usize| {
        doc! {
            "_id": format!("o{n:06}"), "status": if n.is_multiple_of(2) { "final" } else { "amended" },
            "subject": {"reference": format!("Patient/{}", n % 100)},
            "meta": {"lastUpdated": DateTime::from_millis(n as i64 * 1_000)},
        }
    };
    let collection = bench.collection("Observation");
    collection.insert_many((0..ALL).map(document)).await.expect("inserted");
    let (one, two) = ("Observation?patient=7", "Observation?patient=7,Observation?patient=8");
    let (all, late) = (Window::default(), Window { after_ms: Some(1_500_000), before_ms: None });
    assert_eq!(exported(&bench, one, all).await, (30, ALL as i64));
    index(&collection, doc! {"subject.reference": 1, "_id": 1}).await;
    index(&collection, doc! {"meta.lastUpdated": 1, "_id": 1}).await;
    assert_eq!(exported(&bench, one, all).await, (30, 30));
    assert_eq!(exported(&bench, &format!("{one}&status=amended"), all).await, (30, 30));
    assert_eq!(exported(&bench, one, late).await.0, 15);
    assert_eq!(exported(&bench, two, all).await, (60, ALL as i64), "of two each is asked");
}

/// What lies beyond a window is not walked through, wherever in it a scan begins.
#[tokio::test]
async fn a_window_has_two_ends() {
    let Some(bench) = bench().await else { return };
    let at = |n: i64| DateTime::from_millis(n * 1_000);
    let document = |n: i64| match n {
        0..3_000 => doc! {"_id": format!("o{n:06}"), "meta": {"lastUpdated": at(n)}},
        _ => doc! {"_id": format!("o{n:06}")},
    };
    let collection = bench.collection("Observation");
    collection.insert_many((0..3_100).map(document)).await.expect("inserted");
    index(&collection, doc! {"meta.lastUpdated": 1, "_id": 1}).await;
    let snapshot = bench.snapshot().await;
    let key = |n: i64| Some(ScanKey::Updated(n * 1_000, DocId::Text(format!("o{n:06}").into())));
    let bounds = |after: Option<i64>, before: Option<i64>| Window {
        after_ms: after.map(|n| n * 1_000),
        before_ms: before.map(|n| n * 1_000),
    };
    for (window, after, found) in [
        (bounds(None, Some(1_500)), key(1_400), 99),
        (bounds(Some(1_300), Some(1_500)), key(1_400), 99),
        (bounds(Some(1_300), Some(1_500)), None, 199),
        (bounds(None, Some(100)), None, 100),
        (bounds(Some(2_900), None), None, 99),
        (bounds(Some(1_500), Some(1_500)), None, 0),
        (bounds(Some(1_500), Some(1_400)), None, 0),
        (bounds(None, Some(1_500)), key(1_500), 0),
    ] {
        let part = Scan { window, after, ..Scan::of(ty("Observation")) };
        let (all, read) = profiled(&bench, "Observation", scan(&*snapshot, part.clone())).await;
        assert_eq!(all.expect("a scan").len(), found, "{part:?}");
        assert!(read <= found as i64 + 2, "{part:?}: {read} documents were read");
    }
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

/// Keys alone don't tell an index: two may have the same.
#[tokio::test]
async fn of_two_indexes_with_the_same_keys_the_complete_one_is_taken() {
    let Some(bench) = bench().await else { return };
    let document = |n: i64| {
        let identifier = [doc! {"value": format!("v{n}")}];
        let updated = DateTime::from_millis(n * 1_000);
        doc! {"_id": format!("p{n:03}"), "identifier": identifier, "meta": {"lastUpdated": updated}}
    };
    let patients = bench.collection("Patient");
    patients.insert_many((0..300).map(document)).await.expect("inserted");
    let (value, updated) = (doc! {"identifier.value": 1}, doc! {"meta.lastUpdated": 1, "_id": 1});
    let collation = doc! {"locale": "de"};
    for made in [
        doc! {"key": value.clone(), "name": "a", "collation": collation},
        doc! {"key": value, "name": "b"},
        doc! {"key": updated.clone(), "name": "c", "sparse": true},
        doc! {"key": updated, "name": "d"},
    ] {
        let command = doc! {"createIndexes": "Patient", "indexes": [made]};
        bench.db.run_command(command).await.expect("an index");
    }
    let search = search("Patient", "identifier=v7");
    let part = Scan { clues: search.clues().into(), ..Scan::of(search.ty) };
    let sought = found(&bench, &search, part);
    let (ids, read) = profiled(&bench, "Patient", sought).await;
    assert_eq!((ids.as_slice(), read), (&[DocId::Text("p007".into())][..], 1));
    let window = Window { after_ms: Some(99_000), before_ms: Some(200_000) };
    let whole = Scan { window, ..Scan::of(search.ty) };
    let key = |n: i64| ScanKey::Updated(n * 1_000, DocId::Text(format!("p{n:03}").into()));
    let snapshot = bench.snapshot().await;
    for (after, count) in [(None, 100), (Some(key(149)), 50)] {
        let part = Scan { after, ..whole.clone() };
        let (all, read) = profiled(&bench, "Patient", scan(&*snapshot, part)).await;
        assert_eq!(all.expect("a scan").len(), count);
        assert!(read <= count as i64 + 1, "{read} documents were read");
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
        let gender = if n == 0 { "female" } else { "male" };
        doc! {"_id": format!("p{n}"), "gender": gender, "meta": {"lastUpdated": updated}}
    };
    bench.collection("Patient").insert_many((0..9).map(document)).await.expect("inserted");
    index(&bench.collection("Patient"), doc! {"gender": 1}).await;
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
            == 4
    })
    .await;
    let female = search("Patient", "gender=female");
    let part = Scan { clues: female.clues().into(), ..Scan::of(ty("Patient")) };
    let one = profiled(&bench, "Patient", found(&bench, &female, part)).await;
    assert_eq!((one.0.len(), one.1), (1, 1), "it hides none that is ready");
    let search = search("Patient", "gender=male");
    let whole = Scan::of(ty("Patient"));
    let window = Window { after_ms: Some(4_000), before_ms: None };
    for (scan, count) in [
        (Scan { clues: search.clues().into(), ..whole.clone() }, 8),
        (Scan { along: Along::Updated, ..whole.clone() }, 8),
        (Scan { window, ..whole }, 4),
    ] {
        assert_eq!(found(&bench, &search, scan.clone()).await.len(), count, "{scan:?}");
    }
    failpoint("off").await;
    for one in built {
        one.await.expect("an index");
    }
}
