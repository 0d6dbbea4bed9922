//! Transactions: versions, expectations, all or nothing.

use fhirtail::store::{Effect, Expect, Lookup, Store, WriteError};
use mongodb::bson::{Bson, doc, oid::ObjectId};

use crate::tools::{Bench, bench, delete, patient, put, text, ty};

async fn lookup(bench: &Bench, id: &str) -> Lookup {
    bench.store.read(ty("Patient"), id).await.expect("a lookup")
}

#[tokio::test]
async fn versions_count_on_across_a_deletion() {
    let Some(bench) = bench().await else { return };
    assert!(matches!(lookup(&bench, "1").await, Lookup::Absent));
    for (write, effect, version) in [
        (delete("Patient", "1"), Effect::Missing, 0),
        (patient("1", 1), Effect::Created, 1),
        (patient("1", 1), Effect::Unchanged, 1),
        (patient("1", 2), Effect::Updated, 2),
        (delete("Patient", "1"), Effect::Deleted, 3),
        (delete("Patient", "1"), Effect::Missing, 3),
        (patient("1", 2), Effect::Created, 4),
        (delete("Patient", "1"), Effect::Deleted, 5),
    ] {
        let written = bench.write(write).await;
        assert_eq!((written.effect, written.version), (effect, version));
        let now = lookup(&bench, "1").await;
        match (&written.json, now) {
            (Some(json), Lookup::Found { json: read, version: v }) => {
                assert_eq!((text(json), version), (text(&read), v));
                let stamp = format!(r#""lastUpdated":"{:.3}""#, written.last_updated);
                assert!(text(json).contains(&stamp), "{} in {}", stamp, text(json));
            }
            (None, Lookup::Deleted { version: v }) => assert_eq!(version, v),
            (None, Lookup::Absent) => assert_eq!(version, 0),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_written_comes_back_letter_by_letter() {
    let Some(bench) = bench().await else { return };
    let json = r#"{"resourceType":"Observation","id":"a.b-C","meta":{"profile":["p"]},"valueQuantity":{"value":1.50,"x":[1E-22,0.0000001,1e5,-0,7,12345678901234567890]},"_note":{"id":"ü\u2028😀"}}"#;
    let written = bench.write(put(json)).await;
    let stored = text(&written.json.expect("json"));
    let stamp = format!(r#""versionId":"1","lastUpdated":"{:.3}","profile""#, written.last_updated);
    let expected = json.replace(r#""profile""#, &stamp).replace(r"\u2028", "\u{2028}");
    assert_eq!(stored, expected);
    let read = bench.snapshot().await.read(ty("Observation"), "a.b-C").await;
    assert_eq!(text(&read.expect("read").expect("there")), expected);
    // A date and a real index are what history goes by.
    let typed = bench.collection("Observation");
    let dated = typed.find_one(doc! {"meta.lastUpdated": {"$type": "date"}}).await;
    assert!(dated.expect("found").is_some());
    let indexes = typed.list_index_names().await.expect("indexes");
    assert_eq!(indexes.len(), 2, "{indexes:?}");
}

#[tokio::test]
async fn expectations_hold_or_nothing_happens() {
    let Some(bench) = bench().await else { return };
    bench.write(patient("1", 1)).await;
    let expecting = |mut write: fhirtail::store::Write, expect| {
        write.expect = expect;
        write
    };
    for (write, found) in [
        (expecting(patient("1", 2), Expect::Absent), Some(1)),
        (expecting(patient("1", 2), Expect::Version(7)), Some(1)),
        (expecting(patient("2", 2), Expect::Version(1)), None),
        (expecting(delete("Patient", "1"), Expect::Version(2)), Some(1)),
    ] {
        let writes = vec![patient("new", 1), delete("Patient", "gone"), write];
        match bench.commit(writes).await {
            Err(WriteError::Conflict { index: 2, found: f }) => assert_eq!(f, found),
            other => panic!("{other:?}"),
        }
        assert!(matches!(lookup(&bench, "new").await, Lookup::Absent));
    }
    let unstorable = put(r#"{"resourceType":"Basic","id":"b","x":{"y":1e9999}}"#);
    match bench.commit(vec![patient("new", 1), unstorable]).await {
        Err(WriteError::Unstorable { index: 1, why }) => assert!(why.contains("'x.y'"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(lookup(&bench, "new").await, Lookup::Absent));
    let good = expecting(patient("1", 2), Expect::Version(1));
    assert_eq!(bench.write(good).await.version, 2);
}

#[tokio::test]
async fn a_large_transaction_is_one() {
    let Some(bench) = bench().await else { return };
    let all = |n| (0..1500).map(|id| patient(&id.to_string(), n)).collect::<Vec<_>>();
    let created = bench.commit(all(1)).await.expect("created");
    assert!(created.iter().all(|written| written.effect == Effect::Created));
    let mut mixed = all(2);
    mixed[3] = patient("3", 1);
    mixed[5] = delete("Patient", "5");
    mixed.push(put(r#"{"resourceType":"Group","id":"g"}"#));
    let mixed = bench.commit(mixed).await.expect("updated");
    let effects = [3, 4, 5, 1500].map(|at: usize| mixed[at].effect);
    let expected = [Effect::Unchanged, Effect::Updated, Effect::Deleted, Effect::Created];
    assert_eq!(effects, expected);
    let count = bench.collection("Patient").count_documents(doc! {"meta.versionId": "2"}).await;
    assert_eq!(count.expect("a count"), 1498);
}

#[tokio::test]
async fn writers_at_once_lose_no_version() {
    let Some(bench) = bench().await else { return };
    bench.write(patient("1", -1)).await;
    let writes = (0..20).map(|n| {
        let store = bench.store.clone();
        tokio::spawn(async move { store.commit(vec![patient("1", n)]).await })
    });
    let mut versions = Vec::new();
    for write in writes.collect::<Vec<_>>() {
        versions.push(write.await.expect("joined").expect("committed")[0].version);
    }
    versions.sort_unstable();
    assert_eq!(versions, (2..22).collect::<Vec<_>>());
}

#[tokio::test]
async fn writers_at_once_make_a_collection_once() {
    let Some(bench) = bench().await else { return };
    let writes = (0..8).map(|n: i32| {
        let store = bench.store.clone();
        tokio::spawn(async move { store.commit(vec![patient(&n.to_string(), n)]).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.expect("joined").expect("committed");
    }
    assert_eq!(bench.store.before_images(ty("Patient")), Ok(()));
}

#[tokio::test]
async fn an_object_id_stands_for_its_digits() {
    let Some(bench) = bench().await else { return };
    let id = ObjectId::new();
    bench.insert("Patient", doc! {"_id": id, "resourceType": "Patient", "active": true}).await;
    let hex = id.to_hex();
    let Lookup::Found { json, version } = lookup(&bench, &hex).await else { panic!("absent") };
    let expected = format!(r#"{{"resourceType":"Patient","id":"{hex}","active":true}}"#);
    assert_eq!((text(&json), version), (expected, 0));
    assert_eq!(bench.write(patient(&hex, 3)).await.effect, Effect::Updated);
    let count = bench.collection("Patient").count_documents(doc! {"_id": id}).await;
    assert_eq!(count.expect("a count"), 1);
    assert_eq!(bench.write(delete("Patient", &hex)).await.effect, Effect::Deleted);
    assert!(matches!(lookup(&bench, &hex).await, Lookup::Deleted { version: 2 }));
}

#[tokio::test]
async fn versions_of_others_count_on_whatever_number_they_are() {
    const EXACT: u64 = 1 << 53;
    let Some(bench) = bench().await else { return };
    let cases: [(Bson, u64); 10] = [
        (1_700_000_000_000.0.into(), 1_700_000_000_000),
        ((EXACT as f64).into(), EXACT),
        ((EXACT as f64 * 2.0).into(), 0),
        (0.5.into(), 0),
        ((-1.0).into(), 0),
        (f64::NAN.into(), 0),
        (41.into(), 41),
        (i64::MIN.into(), 0),
        ("42".into(), 42),
        ("x".into(), 0),
    ];
    for (index, (stored, version)) in cases.into_iter().enumerate() {
        let id = index.to_string();
        bench.insert("Patient", doc! {"_id": &id, "meta": {"versionId": stored}}).await;
        let Lookup::Found { version: found, .. } = lookup(&bench, &id).await else { panic!() };
        assert_eq!(found, version, "{id}");
        let mut update = patient(&id, 1);
        update.expect = Expect::Version(version);
        assert_eq!(bench.write(update).await.version, version + 1, "{id}");
    }
}

#[tokio::test]
async fn no_version_follows_the_last() {
    let Some(bench) = bench().await else { return };
    for (id, last) in [("a", u64::MAX), ("b", i64::MAX as u64)] {
        let meta = doc! {"versionId": last.to_string()};
        bench.insert("Patient", doc! {"_id": id, "meta": meta}).await;
        for write in [patient(id, 1), delete("Patient", id)] {
            match bench.commit(vec![patient("new", 1), write]).await {
                Err(WriteError::Unstorable { index: 1, why }) => {
                    assert!(why.contains(&last.to_string()), "{why}");
                }
                other => panic!("{other:?}"),
            }
        }
        let now = lookup(&bench, id).await;
        assert!(matches!(now, Lookup::Found { version, .. } if version == last), "{now:?}");
        assert!(matches!(lookup(&bench, "new").await, Lookup::Absent));
    }
}

#[tokio::test]
async fn a_document_beyond_mongodbs_limit_is_named() {
    let Some(bench) = bench().await else { return };
    let large = |bytes| {
        put(&format!(r#"{{"resourceType":"Binary","id":"b","data":"{}"}}"#, "A".repeat(bytes)))
    };
    let refused = bench.commit(vec![large(16 << 20)]).await;
    assert!(matches!(refused, Err(WriteError::Unstorable { index: 0, .. })), "{refused:?}");
    for bytes in [(16 << 20) - 300, (16 << 20) - 301] {
        bench.write(large(bytes)).await;
    }
}
