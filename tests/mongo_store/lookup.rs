//! Updates that come without their document: where it is taken from, and for whom.

use std::time::{Duration, Instant};

use fhirtail::{
    position::LogPosition,
    store::{
        Before, Change, ChangeKind, Snapshot, Store, StoreError,
        mongo::{MongoOptions, MongoStore},
    },
};
use mongodb::bson::doc;
use support::mongod::ReplicaSet;

use crate::tools::{
    Bench, Replica, apply, bench, bench_on, copy, deferred_to, keep_images, read_to, text, ty,
    update, words,
};

/// What who begins at a position hears of all that a reader has read, in words.
fn heard(changes: &[Change], origin: LogPosition) -> Vec<String> {
    let is_news = |change: &&Change| change.position > origin && change.is_news_to(origin);
    changes.iter().filter(is_news).map(words).collect()
}

#[tokio::test]
async fn updates_without_images_are_looked_up_once_per_document() {
    let Some(bench) = bench().await else { return };
    let start = bench.snapshot().await.position();
    for id in ["a", "b", "c"] {
        bench.insert("Patient", doc! {"_id": id, "n": 0}).await;
    }
    for n in 1..=3 {
        update(&bench, "Patient", doc! {"_id": "a"}, doc! {"$set": {"n": n}}).await;
    }
    update(&bench, "Patient", doc! {}, doc! {"$set": {"m": 1}}).await;
    bench.collection("Patient").delete_one(doc! {"_id": "b"}).await.expect("deleted");
    let json = |id: &str, rest: &str| format!(r#"{{"resourceType":"Patient","id":"{id}",{rest}}}"#);
    let changes = bench.changes_until_now(start).await;
    let said = heard(&changes, start);
    // Whatever the replies' borders: each version at most once, and the last one of each.
    let mut versions = said.clone();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), said.len(), "{said:#?}");
    assert!(said.contains(&format!("Unknown -> {}", json("a", r#""n":3,"m":1"#))), "{said:#?}");
    assert!(said.contains(&format!("Unknown -> {}", json("c", r#""n":0,"m":1"#))), "{said:#?}");
    assert_eq!(said.last().map(String::as_str), Some("Unknown -> no Patient/b"), "{said:#?}");
}

/// An update before images are kept, and one after: what was before the second is what the first
/// has made. So who is cut between the two, and finds the second alone, is told the truth by it.
#[tokio::test]
async fn what_was_before_the_next_is_what_an_update_has_made() {
    let Some(bench) = bench().await else { return };
    bench.db.create_collection("Observation").await.expect("a collection");
    let observation = |id: &str| doc! {"_id": id, "resourceType": "Observation", "status": "final"};
    for id in ["o", "p"] {
        bench.insert("Observation", observation(id)).await;
    }
    let start = bench.snapshot().await.position();
    let set_to = async |id: &str, status: &str| {
        let to = doc! {"$set": {"status": status, "meta": {"lastUpdated": "2024-01-02T03:04:05Z"}}};
        update(&bench, "Observation", doc! {"_id": id}, to).await;
    };
    set_to("o", "amended").await;
    set_to("p", "amended").await;
    bench.insert("Observation", observation("between")).await;
    keep_images(&bench, "Observation").await;
    set_to("o", "cancelled").await;
    bench.collection("Observation").delete_one(doc! {"_id": "p"}).await.expect("deleted");
    let changes = bench.changes_until_now(start).await;
    let json = |id: &str, status: &str, rest: &str| {
        format!(r#"{{"resourceType":"Observation","id":"{id}","status":"{status}"{rest}}}"#)
    };
    let meta = r#","meta":{"lastUpdated":"2024-01-02T03:04:05Z"}"#;
    let expected = [
        format!("Unknown -> {}", json("o", "amended", meta)),
        format!("Unknown -> {}", json("p", "amended", meta)),
        format!("Absent -> {}", json("between", "final", "")),
        format!("Known -> {}", json("o", "cancelled", meta)),
        "Known -> no Observation/p".to_owned(),
    ];
    assert_eq!(heard(&changes, start), expected);
    let ChangeKind::Upsert { updated_ms, .. } = changes[0].kind else { panic!("an upsert") };
    assert_eq!(updated_ms, Some(1_704_164_645_000));
    let rest = bench.changes_until_now(changes[2].position).await;
    assert_eq!(heard(&rest, changes[2].position), expected[3..]);
    let ChangeKind::Upsert { before: Before::Known(image), .. } = &rest[0].kind else {
        panic!("{rest:?}")
    };
    assert_eq!(text(&(image.encode)().expect("json")), json("o", "amended", meta));
}

/// Reads nothing any more as of an instant or before.
async fn until_expired(bench: &Bench, last: &dyn Snapshot) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !matches!(last.read(ty("Patient"), "a").await, Err(StoreError::SnapshotExpired)) {
        assert!(Instant::now() < deadline, "it never expires");
        bench.insert("other", doc! {}).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The place of a reader that fell behind the snapshot window. Its changes are read by many: those
/// who begin before an update hear of it, and of nothing that is in it; who begins behind hears of
/// all that came later.
#[tokio::test]
async fn a_lookup_too_long_ago_is_made_now_and_repeats_nothing() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let set: &'static ReplicaSet = Box::leak(Box::new(set));
    let bench = bench_on(set).await;
    for id in ["a", "b", "gone"] {
        bench.insert("Patient", doc! {"_id": id, "n": 0}).await;
    }
    let start = bench.snapshot().await;
    let set_n = |id: &'static str, n: i32| {
        let bench = &bench;
        async move { update(bench, "Patient", doc! {"_id": id}, doc! {"$set": {"n": n}}).await }
    };
    let mut begun = vec![start.position()];
    let mut replicas = vec![copy(&*start, &["Patient"]).await];
    let mut begin = async || {
        // Beyond the reply.
        for n in 0..20 {
            bench.insert("other", doc! {"n": n}).await;
        }
        let snapshot = bench.snapshot().await;
        replicas.push(copy(&*snapshot, &["Patient"]).await);
        begun.push(snapshot.position());
    };
    for id in ["a", "gone", "b"] {
        set_n(id, 1).await;
    }
    begin().await;
    set_n("a", 2).await;
    begin().await;
    set_n("b", 2).await;
    set_n("a", 3).await;
    begin().await;
    // Of the deletions what was before is known; of the update that is deferred to one it is not.
    keep_images(&bench, "Patient").await;
    let both = doc! {"_id": {"$in": ["a", "gone"]}};
    bench.collection("Patient").delete_many(both).await.expect("deleted");
    begin().await;
    bench.insert("Patient", doc! {"_id": "a", "n": 4}).await;
    // The lookups are asked for as of events in between: all of them must be too old.
    let last = bench.snapshot().await;
    set.set_parameter(doc! {"minSnapshotHistoryWindowInSeconds": 1}).await;
    until_expired(&bench, &*last).await;
    let head = bench.head().await;
    let mut reader = bench.changes(start.position()).await;
    let (mut changes, _) = read_to(&mut *reader, head).await;
    // The second update is that of what is gone, and its deletion is what tells of it.
    let tells = changes.iter().position(|change| words(change).ends_with("no Patient/gone"));
    let tells = changes[tells.expect("its deletion")].position;
    assert!(deferred_to(&changes[1]).is_some_and(|until| until >= tells), "{changes:#?}");
    changes.retain(|change| deferred_to(change).is_none());
    let json = |id: &str, n: i32| format!(r#"{{"resourceType":"Patient","id":"{id}","n":{n}}}"#);
    let (a, b) = (format!("Unknown -> {}", json("a", 4)), format!("Unknown -> {}", json("b", 2)));
    let gone = "Unknown -> no Patient/gone".to_owned();
    let said = heard(&changes, start.position());
    assert_eq!(said, [a.clone(), b.clone(), gone.clone()]);
    assert_eq!(heard(&changes, begun[1]), [a.clone(), b.clone(), gone.clone()]);
    assert_eq!(heard(&changes, begun[2])[..2], [b, a]);
    let last = copy(&*bench.snapshot().await, &["Patient"]).await;
    for (origin, mut replica) in begun.into_iter().zip(replicas) {
        let is_news = |change: &&Change| change.position > origin && change.is_news_to(origin);
        changes.iter().filter(is_news).for_each(|change| apply(&mut replica, change));
        assert_eq!(Replica::from_iter(replica), last, "from {origin:?}: {changes:#?}");
    }
}

/// Its cursor is, so it is looked up again as of the same instant: read as of a later one, it would
/// bring what others bring too.
#[tokio::test]
async fn a_cursor_that_is_gone_is_no_instant_that_is_gone() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let bench = bench_on(Box::leak(Box::new(set))).await;
    bench.insert("Patient", doc! {"_id": "a", "n": 0}).await;
    let start = bench.snapshot().await.position();
    update(&bench, "Patient", doc! {"_id": "a"}, doc! {"$set": {"n": 1}}).await;
    // Beyond the reply.
    for n in 0..20 {
        bench.insert("other", doc! {"n": n}).await;
    }
    update(&bench, "Patient", doc! {"_id": "a"}, doc! {"$set": {"n": 2}}).await;
    for code in [43, 237, 175] {
        let once = doc! {"failCommands": ["find"], "errorCode": code, "appName": "fhirtail"};
        bench.set.fail_command(doc! {"times": 1}, once).await;
        let mut reader = bench.changes(start).await;
        let error = loop {
            match reader.next().await {
                Ok(batch) => assert!(batch.changes.is_empty(), "{code}: {:?}", batch.changes),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Unavailable(_)), "{code}: {error:?}");
        let changes = bench.changes_until_now(start).await;
        let json = |n: i32| format!(r#"Unknown -> {{"resourceType":"Patient","id":"a","n":{n}}}"#);
        assert_eq!(heard(&changes, start), [json(1), json(2)], "{code}");
    }
}

/// MongoDB reads a capped collection as of no instant: what is updated in one is looked up nowhere,
/// and keeps nobody from the rest of the log.
#[tokio::test]
async fn an_update_in_a_capped_collection_is_that_of_all_of_it() {
    let Some(bench) = bench().await else { return };
    bench.db.create_collection("Basic").capped(true).size(4096_u64).await.expect("capped");
    let start = bench.snapshot().await.position();
    bench.insert("Basic", doc! {"_id": "1", "n": 0}).await;
    update(&bench, "Basic", doc! {"_id": "1"}, doc! {"$set": {"n": 1}}).await;
    bench.insert("Patient", doc! {"_id": "a"}).await;
    let changes = bench.changes_until_now(start).await;
    let expected = [
        r#"Absent -> {"resourceType":"Basic","id":"1","n":0}"#,
        "replaced Basic",
        r#"Absent -> {"resourceType":"Patient","id":"a"}"#,
    ];
    assert_eq!(heard(&changes, start), expected);
}

/// A thousand events without their documents fit into one reply of the log, and their documents not
/// into memory. They come part by part.
#[tokio::test]
async fn documents_are_looked_up_some_at_a_time() {
    const COUNT: usize = 80;
    let Some(bench) = bench().await else { return };
    let long = "x".repeat(1 << 20);
    for n in 0..COUNT {
        bench.insert("Basic", doc! {"_id": format!("{n:02}"), "text": &long}).await;
    }
    let start = bench.snapshot().await.position();
    update(&bench, "Basic", doc! {}, doc! {"$set": {"n": 1}}).await;
    bench.insert("Basic", doc! {"_id": "after"}).await;
    let head = bench.head().await;
    let name = bench.db.name();
    let store = MongoStore::connect(&bench.set.uri(name), MongoOptions::default()).await;
    let mut reader = store.expect("a store").changes(start).await.expect("a reader");
    let (mut ids, mut sizes) = (Vec::new(), Vec::new());
    while ids.last().is_none_or(|id| id != "after") {
        let batch = reader.next().await.expect("a batch");
        let mut size = 0;
        for change in &batch.changes {
            let ChangeKind::Upsert { id, json, .. } = &change.kind else { panic!("{change:?}") };
            assert!(id.as_ref() == "after" || text(json).contains(r#""n":1"#), "{id}");
            assert!(change.as_of.is_none() && change.position <= batch.level, "{id}");
            size += json.len();
            ids.push(id.to_string());
        }
        assert!(!batch.quiet || ids.len() > COUNT, "quiet after {}", ids.len());
        sizes.push(size);
    }
    assert!(ids.is_sorted() && ids.len() == COUNT + 1, "{ids:?}");
    sizes.retain(|size| *size > 0);
    assert!(sizes[0] <= 33 << 20 && sizes[1..].iter().all(|size| *size <= 17 << 20), "{sizes:?}");
    let (_, level) = read_to(&mut *reader, head).await;
    assert!(level >= head);
}
