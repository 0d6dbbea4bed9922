//! Snapshots and scans: complete, in order, resumable, as of one instant.

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc, time::Instant};

use fhirtail::store::{
    Along, Clue, DocId, Place, Scan, ScanKey, Scanned, Snapshot, Sought, Store, StoreError, Window,
};

use crate::support::*;

async fn snapshot(store: &Arc<dyn Store>) -> Arc<dyn Snapshot> {
    store.snapshot().await.expect("a snapshot")
}

/// Commits many writes, some hundred at a time.
async fn commit_all(store: &Arc<dyn Store>, writes: Vec<fhirtail::store::Write>) {
    for part in writes.chunks(400) {
        store.commit(part.to_vec()).await.expect("a commit");
    }
}

pub async fn an_empty_type_ends_at_once(under_test: &StoreUnderTest) {
    let snapshot = snapshot(&under_test.store).await;
    assert!(scan(&*snapshot, whole("Patient")).await.is_empty());
    let window = Window { after_ms: Some(0), before_ms: None };
    assert!(scan(&*snapshot, Scan { window, ..whole("Patient") }).await.is_empty());
    assert_eq!(snapshot.read(ty("Patient"), "a").await.expect("a read"), None);
}

pub async fn every_key_once_and_in_order(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let mut ids: BTreeSet<String> = (0..2_500).map(|n| format!("{}-{n}", n % 7)).collect();
    let longest = "z".repeat(64);
    ids.extend(["A", "B", "a", "a-", "a.", "a0", "aA", "aa", &longest].map(str::to_owned));
    let writes = ids.iter().rev().map(|id| patient(id, 1)).collect();
    commit_all(store, writes).await;

    let snapshot = snapshot(store).await;
    let scanned = scan(&*snapshot, whole("Patient")).await;
    assert!(matches!(scanned[0].key, ScanKey::Id(_)), "an open window goes by id");
    let found: Vec<String> = scanned.iter().map(|resource| id_of(&resource.json)).collect();
    assert_eq!(found.len(), ids.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids);
    for resource in &scanned {
        if let ScanKey::Id(DocId::Text(id)) = &resource.key {
            assert_eq!(**id, id_of(&resource.json));
        }
    }
}

/// Either way, from any key on; all, or those that a clue names.
pub async fn every_order_goes_on_at_any_key(under_test: &StoreUnderTest) {
    const ALL: usize = 2_600;
    let store = &under_test.store;
    commit_all(store, (0..ALL).map(|n| patient(&format!("p{n:04}"), 1)).collect()).await;
    let snapshot = snapshot(store).await;
    let named = |n: &usize| Sought::Text(format!("p{n:04}"));
    let values: Vec<_> = (0..ALL).step_by(2).collect::<Vec<_>>().iter().map(named).collect();
    let ids = Clue { places: vec![Place { path: vec!["id"], values }] };
    let is_even = |one: &Scanned| one.key.doc().to_string().ends_with(['0', '2', '4', '6', '8']);
    for (clues, wanted) in [(vec![], ALL), (vec![ids], ALL / 2)] {
        let clues: Arc<[Clue]> = clues.into();
        let keys = async |along, after| {
            let scan_of = Scan { along, after, clues: clues.clone(), ..whole("Patient") };
            let mut all = scan(&*snapshot, scan_of).await;
            // A store need not know what a clue means.
            all.retain(|one| wanted == ALL || is_even(one));
            all.into_iter().map(|one| one.key).collect::<Vec<_>>()
        };
        let up = keys(Along::Keys, None).await;
        assert_eq!(up.len(), wanted);
        for n in [0, 1, wanted / 2, 999, 1_000, wanted - 1] {
            let after = Some(up[n].clone());
            assert_eq!(keys(Along::Keys, after.clone()).await, up[n + 1..], "from {n}");
            let mut down = keys(Along::IdDown, after).await;
            down.reverse();
            assert_eq!(down, up[..n], "back from {n}");
        }
        let by_time = keys(Along::Updated, None).await;
        let mut back = keys(Along::UpdatedDown, None).await;
        back.reverse();
        assert_eq!((by_time.len(), &back), (wanted, &by_time));
    }
}

pub async fn large_resources_come_whole(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let data = "0123456789".repeat(30_000);
    for n in 0..12 {
        let members = format!(r#""contentType":"a/b","data":"{}""#, &data[..n * 25_000]);
        commit(store, put("Binary", &format!("b{n:02}"), &members)).await;
    }
    let scanned = scan(&*snapshot(store).await, whole("Binary")).await;
    let lengths: Vec<usize> = scanned
        .iter()
        .map(|binary| serde_json::from_slice::<serde_json::Value>(&binary.json).expect("JSON"))
        .map(|binary| binary["data"].as_str().expect("data").len())
        .collect();
    assert_eq!(lengths, (0..12).map(|n| n * 25_000).collect::<Vec<_>>());
}

pub async fn types_do_not_bleed_into_each_other(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let names = ["Medication", "MedicationRequest", "MedicationStatement", "Media", "Measure"];
    for name in names {
        let writes = ["a", "b"].map(|id| put(name, id, "")).to_vec();
        store.commit(writes).await.expect("a commit");
    }
    commit(store, delete("Media", "a")).await;
    let snapshot = snapshot(store).await;
    for name in names {
        let ids: Vec<String> =
            scan(&*snapshot, whole(name)).await.iter().map(|found| id_of(&found.json)).collect();
        assert_eq!(ids, if name == "Media" { &["b"][..] } else { &["a", "b"] }, "{name}");
        let window = Window { after_ms: Some(0), before_ms: None };
        let timed = scan(&*snapshot, Scan { window, ..whole(name) }).await;
        assert!(timed.iter().all(|found| text(&found.json).contains(&format!("\"{name}\""))));
        assert_eq!(timed.len(), ids.len());
    }
    let other = snapshot.read(ty("Media"), "a").await.expect("a read");
    assert_eq!(other, None);
}

pub async fn a_scan_goes_on_after_any_key(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let mut written = vec![commit(store, patient("30", 98)).await];
    for round in 0..6 {
        // Some share a commit, and so most likely their time.
        let ids = [5, 3, 1].map(|n| format!("{n}{round}"));
        let writes = ids.iter().map(|id| patient(id, round)).collect();
        written.extend(store.commit(writes).await.expect("a commit"));
    }
    // The oldest becomes the newest: no place in the order of time is kept from before.
    written.remove(0);
    written.push(commit(store, patient("30", 99)).await);
    let snapshot = snapshot(store).await;
    let times = written.iter().map(|w| w.last_updated.as_millisecond());
    let (first, last) = (times.clone().min().expect("one"), times.max().expect("one"));
    for window in [
        Window::default(),
        Window { after_ms: Some(0), before_ms: None },
        Window { after_ms: Some(first - 1), before_ms: Some(last + 1) },
        Window { after_ms: Some(first - 2), before_ms: None },
    ] {
        let all = scan(&*snapshot, Scan { window, ..whole("Patient") }).await;
        assert_eq!(all.len(), 18);
        for (at, resource) in all.iter().enumerate() {
            let after = Some(resource.key.clone());
            let rest = scan(&*snapshot, Scan { after, window, ..whole("Patient") }).await;
            assert_eq!(texts(&rest), texts(&all[at + 1..]), "after {:?}", resource.key);
            assert!(rest.iter().all(|r| r.key.partial_cmp(&resource.key).is_some()), "one order");
        }
    }
}

pub async fn windows_leave_out_both_ends(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let mut times = Vec::new();
    for n in 0..12 {
        // The ids run against the times.
        let id = format!("p{:02}", 50 - n);
        let written = commit(store, patient(&id, n)).await;
        times.push((written.last_updated.as_millisecond(), id));
    }
    let snapshot = snapshot(store).await;
    let ends = times.iter().flat_map(|(ms, _)| [ms - 1, *ms, ms + 1]);
    let mut windows = vec![Window { after_ms: Some(i64::MAX), before_ms: None }];
    for ms in ends.collect::<BTreeSet<_>>() {
        windows.push(Window { after_ms: Some(ms), before_ms: None });
        windows.push(Window { after_ms: None, before_ms: Some(ms) });
        windows.push(Window { after_ms: Some(times[3].0), before_ms: Some(ms) });
    }
    for window in windows {
        let within = times.iter().filter(|(ms, _)| window.contains(Some(*ms)));
        let within: BTreeSet<&str> = within.map(|(_, id)| &**id).collect();
        for after in [None, Some(ScanKey::Id(DocId::Text("p41".into())))] {
            let from_id = |id: &str| after.is_none() || id > "p41";
            let expected: BTreeSet<&str> =
                within.iter().copied().filter(|id| from_id(id)).collect();
            let scan_of = Scan { after: after.clone(), window, ..whole("Patient") };
            let scanned = scan(&*snapshot, scan_of).await;
            let ids: Vec<String> = scanned.iter().map(|found| id_of(&found.json)).collect();
            assert_eq!(ids.len(), expected.len(), "{window:?}");
            assert_eq!(ids.iter().map(|id| &**id).collect::<BTreeSet<_>>(), expected);
        }
    }
}

pub async fn a_scan_in_vain_tells_how_far_it_came(under_test: &StoreUnderTest) {
    const RESOURCES: usize = 20_100;
    let store = &under_test.store;
    let ids = (0..RESOURCES).map(|n| format!("{n:05}"));
    let writes: Vec<_> = ids.map(|id| put("Basic", &id, "")).collect();
    for part in writes.chunks(1_000) {
        store.commit(part.to_vec()).await.expect("a commit");
    }
    let snapshot = snapshot(store).await;
    let window = Window { after_ms: Some(i64::MAX - 1), before_ms: None };
    let after = Some(ScanKey::Id(DocId::Text("00000".into())));
    let mut batches = snapshot.scan(Scan { after, window, ..whole("Basic") });
    let mut reached = None;
    while let Some(batch) = batches.recv().await {
        let batch = batch.expect("a batch");
        assert!(batch.is_empty());
        reached = batch.reached.or(reached);
    }
    let after = reached.expect("twenty thousand resources without a word");
    let Some(ScanKey::Id(DocId::Text(id))) = Some(&after) else { panic!("{after:?}") };
    let read: usize = id.parse().expect("one of the ids");
    // Whoever goes on from there misses nothing.
    let rest = scan(&*snapshot, Scan { after: Some(after), ..whole("Basic") }).await;
    assert_eq!(rest.len(), RESOURCES - 1 - read);
}

pub async fn writes_after_a_snapshot_are_not_in_it(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let writes = ["a", "b", "c"].map(|id| patient(id, 1)).to_vec();
    let written = store.commit(writes).await.expect("a commit");
    let then: Vec<_> = written.iter().map(|w| w.json.clone().expect("JSON")).collect();
    let snapshot = snapshot(store).await;
    let distance = snapshot.instant().duration_since(written[0].last_updated);
    assert!(distance.as_secs().abs() < 300, "{distance}");

    commit(store, patient("a", 2)).await;
    commit(store, delete("Patient", "b")).await;
    commit(store, patient("d", 1)).await;
    let seen = scan(&*snapshot, whole("Patient")).await;
    assert_eq!(texts(&seen), then.iter().map(|json| text(json)).collect::<Vec<_>>());
    let window = Window { after_ms: Some(0), before_ms: None };
    let timed = scan(&*snapshot, Scan { window, ..whole("Patient") }).await;
    assert_eq!(timed.len(), 3);
    for (id, then) in [("a", Some(&then[0])), ("b", Some(&then[1])), ("d", None)] {
        let read = snapshot.read(ty("Patient"), id).await.expect("a read");
        assert_eq!(read.as_ref(), then, "{id}");
    }
    // The log goes on exactly where the snapshot ends.
    let changes = changes_since(store, snapshot.position()).await;
    assert_eq!(changes.len(), 3);
    let mut replica = Replica::of(&*snapshot, &["Patient"]).await;
    changes.iter().for_each(|change| replica.apply(change));
    assert_eq!(replica, Replica::of(&*store.snapshot().await.expect("one"), &["Patient"]).await);
}

pub async fn an_expired_snapshot_says_so(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    commit_all(store, (0..4_000).map(|n| patient(&format!("{n:04}"), 1)).collect()).await;
    let snapshot = snapshot(store).await;
    let mut stalled = snapshot.scan(whole("Patient"));
    let first = stalled.recv().await.expect("a batch").expect("in time");
    let mut taken: Vec<_> = first.resources().collect();

    let deadline = Instant::now() + PATIENCE;
    for number in 2.. {
        // A store may need to move on before it lets go.
        commit(store, patient("0000", number)).await;
        match snapshot.read(ty("Patient"), "0000").await {
            Ok(json) => assert_eq!(version_of(&json.expect("it was there")), 1),
            Err(StoreError::SnapshotExpired) => break,
            Err(other) => panic!("{other}"),
        }
        assert!(Instant::now() < deadline, "it never expires");
    }
    let (late, error) = scan_until_end(&*snapshot, whole("Patient")).await;
    assert!(matches!(error, Some(StoreError::SnapshotExpired)), "{error:?}");
    assert!(late.is_empty());

    let mut whole_type = true;
    while let Some(batch) = stalled.recv().await {
        match batch {
            Ok(batch) => taken.extend(batch.resources()),
            Err(StoreError::SnapshotExpired) => whole_type = false,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(taken.iter().all(|resource| version_of(&resource.json) == 1), "as of its instant");
    let rises = taken.windows(2).all(|w| w[0].key.partial_cmp(&w[1].key) == Some(Ordering::Less));
    assert!(rises, "in order, none twice");
    assert!(taken.len() == 4_000 || !whole_type, "a part without a word: {}", taken.len());
    // What an expired reader does next.
    let after = taken.last().map(|resource| resource.key.clone());
    let anew = store.snapshot().await.expect("a snapshot");
    let rest = scan(&*anew, Scan { after, ..whole("Patient") }).await;
    assert_eq!(taken.len() + rest.len(), 4_000);
}
