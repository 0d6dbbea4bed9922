//! The change log: each change once and in order, from any position, or a clear no.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fhirtail::{
    position::LogPosition,
    store::{Change, ChangeKind, DocId, Effect, Lookup, Store, StoreError},
};

use jiff::Timestamp;

use crate::support::*;

/// Commits of one and of several writes, every kind of change.
async fn some_history(store: &Arc<dyn Store>) -> usize {
    let commits = vec![
        vec![patient("a", 1)],
        vec![patient("a", 2)],
        (0..7).map(|n| patient(&format!("m{n}"), n)).collect(),
        vec![delete("Patient", "a")],
        vec![put("Observation", "o", ""), delete("Patient", "m3"), patient("m4", 44)],
        vec![patient("a", 5)],
        vec![patient("b", 1)],
    ];
    let count = commits.iter().map(Vec::len).sum();
    for writes in commits {
        store.commit(writes).await.expect("a commit");
    }
    count
}

pub async fn each_write_is_one_change(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    let created = commit(store, patient("a", 1)).await;
    let updated = commit(store, patient("a", 2)).await;
    commit(store, delete("Patient", "a")).await;
    commit(store, put("Group", "g", "")).await;
    let changes = changes_since(store, from).await;
    let [first, second, third, fourth] = &changes[..] else { panic!("{:?}", outline(&changes)) };

    let images = store.before_images(ty("Patient")).is_ok();
    let expected = [(first, &created, None), (second, &updated, created.json.clone())];
    for (change, written, before_then) in expected {
        let ChangeKind::Upsert { ty: of, id, doc, updated_ms, json, before } = &change.kind else {
            panic!("{change:?}");
        };
        assert_eq!((*of, &**id), (ty("Patient"), "a"));
        assert!(!matches!(doc, DocId::Text(text) if **text != **id));
        assert_eq!(Some(json), written.json.as_ref());
        assert_eq!(*updated_ms, Some(written.last_updated.as_millisecond()));
        let known = known_before(before);
        assert!(known.is_some() || !images, "{before:?}");
        assert!(known.is_none_or(|known| known == before_then), "{before:?}");
        let distance = change.committed.duration_since(written.last_updated);
        assert!(distance.as_secs().abs() < 300, "{distance}");
    }
    let ChangeKind::Delete { ty: of, id, before, .. } = &third.kind else { panic!("{third:?}") };
    assert_eq!((*of, &**id), (ty("Patient"), "a"));
    let known = known_before(before);
    assert!(known.is_some() || !images, "{before:?}");
    assert!(known.is_none_or(|known| known == updated.json));
    assert!(matches!(&fourth.kind, ChangeKind::Upsert { ty: of, .. } if *of == ty("Group")));
}

pub async fn any_position_gives_exactly_the_rest(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    let count = some_history(store).await;
    let all = changes_since(store, from).await;
    assert_eq!(all.len(), count);
    let snapshot = store.snapshot().await.expect("a snapshot");
    for (at, change) in all.iter().enumerate() {
        let rest = changes_since(store, change.position).await;
        assert_eq!(outline(&rest), outline(&all[at + 1..]), "after {:?}", change.position);
        let again = changes_since(store, LogPosition::before(change.position.time)).await;
        let before = all.iter().filter(|c| c.position.time < change.position.time).count();
        assert_eq!(outline(&again), outline(&all[before..]));
    }
    assert!(changes_since(store, snapshot.position()).await.is_empty());
}

pub async fn level_with_the_head_is_all_that_was_committed(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    let mut reader = Reader::after(store, from).await.expect("a reader");
    // Level with the head of a store in which nothing happens, too.
    assert!(reader.until(store.head().await.expect("a head")).await.is_empty());
    let mut seen = Vec::new();
    for round in 0..20 {
        let writes = (0..=round % 3).map(|n| patient(&format!("{round}-{n}"), n)).collect();
        store.commit(writes).await.expect("a commit");
        let head = store.head().await.expect("a head");
        seen.extend(reader.until(head).await);
        assert!(seen.last().is_some_and(|change| change.position.time <= head.time), "{head:?}");
        let last = seen.last().map(|change: &Change| change.kind.clone());
        let Some(ChangeKind::Upsert { id, .. }) = last else { panic!("{last:?}") };
        assert_eq!(*id, *format!("{round}-{}", round % 3));
    }
    assert_eq!(outline(&seen), outline(&changes_since(store, from).await));
}

pub async fn quiet_is_the_end_and_nothing_else(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    let padding = format!(r#""language":"{}""#, "x".repeat(100_000));
    for n in 0..60 {
        commit(store, put("Patient", &n.to_string(), &padding)).await;
    }
    let head = store.head().await.expect("a head");
    let mut reader = Reader::after(store, from).await.expect("a reader");
    let (mut seen, mut quiet) = (0, false);
    let deadline = Instant::now() + PATIENCE;
    while !quiet {
        let batch = reader.next().await.expect("a batch");
        seen += batch.changes.len();
        assert!(batch.level.time <= head.time || seen == 60, "{:?} of {head:?}", batch.level);
        quiet = batch.quiet;
        assert!(Instant::now() < deadline, "it is never quiet");
    }
    assert_eq!(seen, 60);
}

pub async fn an_idle_reader_returns_and_wakes(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    commit(store, patient("a", 1)).await;
    let mut reader = Reader::after(store, start(store).await).await.expect("a reader");
    for _ in 0..3 {
        let asked = Instant::now();
        assert!(reader.next().await.expect("a batch").changes.is_empty());
        assert!(asked.elapsed() < Duration::from_secs(10), "it says when there is nothing");
    }
    let waiting = tokio::spawn(async move {
        loop {
            let batch = reader.next().await.expect("a batch");
            if !batch.changes.is_empty() {
                return batch.changes;
            }
        }
    });
    let written = commit(store, patient("b", 1)).await;
    let woken = tokio::time::timeout(PATIENCE, waiting).await.expect("it wakes").expect("a reader");
    let [Change { kind: ChangeKind::Upsert { json, .. }, .. }] = &woken[..] else {
        panic!("{woken:?}")
    };
    assert_eq!(Some(json), written.json.as_ref());
}

pub async fn two_readers_see_one_log(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..25 {
                let writes = (0..=n % 3).map(|k| patient(&format!("{writer}-{k}"), n)).collect();
                store.commit(writes).await.expect("a commit");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut early = Reader::after(store, from).await.expect("a reader");
    let first = early.next().await.expect("a batch").changes;
    for writer in writers {
        writer.await.expect("a writer");
    }
    let head = store.head().await.expect("a head");
    let seen: Vec<Change> = first.into_iter().chain(early.until(head).await).collect();
    assert_eq!(outline(&seen), outline(&changes_since(store, from).await));
}

pub async fn a_position_in_the_future_is_lost(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    some_history(store).await;
    let head = store.head().await.expect("a head");
    // Days ahead, where time is seconds in the upper half.
    let future = LogPosition::before(head.time + (1_000_000 << 32));
    assert!(first_after(store, future).await.is_none());
    assert!(first_after(store, LogPosition { consumed: 1, ..future }).await.is_none());
}

/// The first change after a position, or `None` if the store says that it is lost.
async fn first_after(store: &Arc<dyn Store>, position: LogPosition) -> Option<Change> {
    let first = async {
        let mut reader = Reader::after(store, position).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(change) = reader.next().await?.changes.into_iter().next() {
                return Ok(change);
            }
            assert!(Instant::now() < deadline, "{position:?} gives neither a change nor an error");
        }
    };
    match first.await {
        Ok(change) => Some(change),
        Err(StoreError::PositionLost(why)) => {
            assert!(!why.is_empty());
            None
        }
        Err(other) => panic!("{other}"),
    }
}

pub async fn a_trimmed_position_is_lost(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    let padding = format!(r#""name":[{{"text":"{}"}}]"#, "x".repeat(20_000));
    let mut slow = Reader::after(store, from).await.expect("a reader");
    let deadline = Instant::now() + PATIENCE;
    for number in 0.. {
        let members = format!(r#""multipleBirthInteger":{number},{padding}"#);
        commit(store, put("Patient", "a", &members)).await;
        match first_after(store, from).await.map(|change| change.kind) {
            None => break,
            // While it is honoured, nothing is skipped.
            Some(ChangeKind::Upsert { json, .. }) => assert_eq!(version_of(&json), 1),
            Some(other) => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline, "the log never forgets");
    }
    // Whoever fell behind gets the whole of it or is told as well.
    let head = store.head().await.expect("a head");
    let latest = match store.read(ty("Patient"), "a").await.expect("a read") {
        Lookup::Found { version, .. } => version,
        other => panic!("{other:?}"),
    };
    let mut seen = 0;
    loop {
        match slow.next().await {
            Ok(batch) => {
                for change in &batch.changes {
                    let ChangeKind::Upsert { json, .. } = &change.kind else { panic!() };
                    assert_eq!(version_of(json), seen + 1);
                    seen += 1;
                }
                if batch.level >= head && batch.quiet {
                    assert_eq!(seen, latest);
                    break;
                }
            }
            Err(StoreError::PositionLost(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    // The end is always there.
    let end = start(store).await;
    commit(store, patient("b", 1)).await;
    assert_eq!(changes_since(store, end).await.len(), 1);
}

pub async fn recent_is_honoured_and_reaches_back(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    for back in [0, 3_600] {
        let position = store.recent(Duration::from_secs(back)).await.expect("a position");
        let first = changes_since(store, position).await;
        assert!(first.is_empty(), "{:?}", outline(&first));
    }
    let count = some_history(store).await;
    let hour = store.recent(Duration::from_secs(3_600)).await.expect("a position");
    assert_eq!(changes_since(store, hour).await.len(), count);
    let now = store.recent(Duration::ZERO).await.expect("a position");
    commit(store, patient("later", 1)).await;
    let since_now = changes_since(store, now).await;
    let last = since_now.last().map(|change| change.kind.clone());
    assert!(matches!(last, Some(ChangeKind::Upsert { id, .. }) if &*id == "later"));
    assert!(hour <= now);
}

/// However long nobody has written.
pub async fn recent_is_never_past_the_end(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let none = store.recent(Duration::ZERO).await.expect("a position");
    assert!(none <= store.head().await.expect("a head"), "{none:?}");
    some_history(store).await;
    let head = store.head().await.expect("a head");
    // Until what was written last is older than nothing at all.
    let written = Timestamp::now();
    while Timestamp::now() < written + Duration::from_millis(2) {
        tokio::task::yield_now().await;
    }
    let now = store.recent(Duration::ZERO).await.expect("a position");
    assert!(now <= head, "{now:?} lies past {head:?}");
}

pub async fn a_restart_keeps_epoch_positions_and_versions(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    some_history(store).await;
    commit(store, delete("Patient", "b")).await;
    let (epoch, before) = (store.epoch(), changes_since(store, from).await);
    let middle = before[before.len() / 2].position;
    let state = Replica::of(&*store.snapshot().await.expect("one"), &["Patient"]).await;

    let again = under_test.backend.restart(store).await;
    assert_eq!(again.epoch(), epoch);
    assert_eq!(outline(&changes_since(&again, from).await), outline(&before));
    let rest = changes_since(&again, middle).await;
    assert_eq!(outline(&rest), outline(&before[before.len() / 2 + 1..]));
    assert_eq!(Replica::of(&*again.snapshot().await.expect("one"), &["Patient"]).await, state);
    let gone = again.read(ty("Patient"), "b").await.expect("a read");
    assert!(matches!(gone, Lookup::Deleted { version: 2 }), "{gone:?}");
    let anew = commit(&again, patient("b", 1)).await;
    assert_eq!((anew.effect, anew.version), (Effect::Created, 3));
    let last = before.last().expect("changes").position;
    assert_eq!(changes_since(&again, last).await.len(), 1);
    again.close().await;
}

pub async fn the_oldest_is_no_younger_than_a_change_that_is_held(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    some_history(store).await;
    let oldest = store.oldest().await.expect("an answer").expect("something is held");
    let first = changes_since(store, from).await.remove(0).committed;
    assert!(oldest <= first, "{oldest} {first}");
    assert!(first.duration_since(oldest).as_hours() < 24, "{oldest} {first}");
}
