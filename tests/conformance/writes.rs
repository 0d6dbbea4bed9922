//! Writes: version numbers, conditions, all or nothing, to the letter.

use std::{sync::Arc, time::Instant};

use fhirtail::{
    fhir::resource::Resource,
    store::{Action, ChangeKind, Effect, Expect, Lookup, Store, WriteError, Written},
};

use crate::support::*;

async fn found(store: &Arc<dyn Store>, type_name: &str, id: &str) -> (u64, String) {
    match store.read(ty(type_name), id).await.expect("a read") {
        Lookup::Found { json, version } => (version, text(&json).to_owned()),
        other => panic!("{type_name}/{id} is {other:?}"),
    }
}

fn summary(written: &Written) -> (Effect, u64, bool) {
    (written.effect, written.version, written.json.is_some())
}

pub async fn versions_count_up_through_deletion(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let absent = store.read(ty("Patient"), "a").await.expect("a read");
    assert!(matches!(absent, Lookup::Absent), "{absent:?}");

    let created = commit(store, patient("a", 1)).await;
    assert_eq!(summary(&created), (Effect::Created, 1, true));
    assert_eq!(found(store, "Patient", "a").await.0, 1);
    let updated = commit(store, patient("a", 2)).await;
    assert_eq!(summary(&updated), (Effect::Updated, 2, true));
    assert!(updated.last_updated >= created.last_updated);

    let deleted = commit(store, delete("Patient", "a")).await;
    assert_eq!(summary(&deleted), (Effect::Deleted, 3, false));
    let gone = store.read(ty("Patient"), "a").await.expect("a read");
    assert!(matches!(gone, Lookup::Deleted { version: 3 }), "{gone:?}");

    let again = commit(store, patient("a", 1)).await;
    assert_eq!(summary(&again), (Effect::Created, 4, true));
    assert_eq!(found(store, "Patient", "a").await.0, 4);
    let gone = commit(store, delete("Patient", "a")).await;
    assert_eq!(summary(&gone), (Effect::Deleted, 5, false));
}

pub async fn a_deletion_of_nothing_is_no_change(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    let missing = commit(store, delete("Patient", "never")).await;
    assert_eq!((missing.effect, missing.json), (Effect::Missing, None));
    let still = store.read(ty("Patient"), "never").await.expect("a read");
    assert!(matches!(still, Lookup::Absent), "{still:?}");

    commit(store, patient("a", 1)).await;
    commit(store, delete("Patient", "a")).await;
    let missing = commit(store, delete("Patient", "a")).await;
    assert_eq!(summary(&missing), (Effect::Missing, 2, false));
    assert_eq!(changes_since(store, from).await.len(), 2);
}

pub async fn the_same_content_is_no_new_version(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let first = commit(store, put("Observation", "o", r#""valueDecimal":1.0"#)).await;
    let from = start(store).await;

    let same = commit(store, put("Observation", "o", r#""valueDecimal":1.0"#)).await;
    assert_eq!(summary(&same), (Effect::Unchanged, 1, true));
    assert_eq!((same.json, same.last_updated), (first.json.clone(), first.last_updated));
    let stamped = Resource::parse(&first.json.expect("JSON")).expect("a resource");
    let mut echo = put("Observation", "o", "");
    echo.action = Action::Put(stamped);
    assert_eq!(summary(&commit(store, echo).await), (Effect::Unchanged, 1, true));
    assert_eq!(outline(&changes_since(store, from).await), [""; 0]);

    let digits = commit(store, put("Observation", "o", r#""valueDecimal":1.00"#)).await;
    assert_eq!(summary(&digits), (Effect::Updated, 2, true));
    assert_eq!(changes_since(store, from).await.len(), 1);
}

pub async fn conflicts_tell_what_they_found(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let refused = async |expect, write| match store.commit(vec![expecting(expect, write)]).await {
        Err(WriteError::Conflict { index: 0, found }) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(Expect::Version(1), patient("a", 1)).await, None);
    let created = commit(store, expecting(Expect::Absent, patient("a", 1))).await;
    assert_eq!(created.effect, Effect::Created);
    assert_eq!(refused(Expect::Absent, patient("a", 2)).await, Some(1));
    assert_eq!(refused(Expect::Absent, delete("Patient", "a")).await, Some(1));
    assert_eq!(refused(Expect::Version(2), patient("a", 2)).await, Some(1));
    assert_eq!(refused(Expect::Version(0), delete("Patient", "a")).await, Some(1));

    let updated = commit(store, expecting(Expect::Version(1), patient("a", 2))).await;
    assert_eq!(summary(&updated), (Effect::Updated, 2, true));
    // Stale, though it would change nothing.
    assert_eq!(refused(Expect::Version(1), patient("a", 2)).await, Some(2));
    let deleted = commit(store, expecting(Expect::Version(2), delete("Patient", "a"))).await;
    assert_eq!(summary(&deleted), (Effect::Deleted, 3, false));
    assert_eq!(refused(Expect::Version(3), patient("a", 3)).await, None);
    let again = commit(store, expecting(Expect::Absent, patient("a", 3))).await;
    assert_eq!(summary(&again), (Effect::Created, 4, true));
}

pub async fn a_refused_commit_leaves_nothing(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    commit(store, patient("kept", 1)).await;
    commit(store, patient("doomed", 1)).await;
    let before = found(store, "Patient", "kept").await;
    let from = start(store).await;

    let writes = vec![
        patient("new", 1),
        patient("kept", 2),
        delete("Patient", "doomed"),
        expecting(Expect::Version(9), put("Group", "g", "")),
    ];
    let refused = store.commit(writes).await;
    assert!(matches!(refused, Err(WriteError::Conflict { index: 3, found: None })), "{refused:?}");
    let absent = store.read(ty("Patient"), "new").await.expect("a read");
    assert!(matches!(absent, Lookup::Absent), "{absent:?}");
    assert_eq!(found(store, "Patient", "kept").await, before);
    assert_eq!(found(store, "Patient", "doomed").await.0, 1);
    assert_eq!(outline(&changes_since(store, from).await), [""; 0]);
    // The numbers of the refused commit are free again.
    assert_eq!(commit(store, patient("new", 1)).await.version, 1);
    assert_eq!(commit(store, patient("kept", 2)).await.version, 2);
}

pub async fn outcomes_stand_in_the_order_of_the_writes(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    commit(store, patient("b", 1)).await;
    commit(store, patient("c", 1)).await;
    let from = start(store).await;
    let writes = vec![
        put("Observation", "z", ""),
        patient("c", 2),
        delete("Patient", "b"),
        delete("Patient", "x"),
        patient("a", 1),
    ];
    let written = store.commit(writes).await.expect("a commit");
    let effects: Vec<_> = written.iter().map(|w| (w.effect, w.version)).collect();
    let (created, updated, deleted) = (Effect::Created, Effect::Updated, Effect::Deleted);
    assert_eq!(effects[..3], [(created, 1), (updated, 2), (deleted, 2)]);
    assert_eq!((effects[3].0, effects[4]), (Effect::Missing, (created, 1)));
    for (written, id) in written.iter().zip(["z", "c"]) {
        assert_eq!(id_of(written.json.as_ref().expect("JSON")), id);
    }
    assert_eq!(changes_since(store, from).await.len(), 4);
    assert!(store.commit(Vec::new()).await.expect("no writes").is_empty());
}

const EVERYTHING: &str = concat!(
    r#""zulu":1,"status":"final","_birthDate":{"extension":[{"url":"u","valueCode":"x"}]},"#,
    r#""valueQuantity":{"value":1.50,"unit":"µg"},"exponent":[1E-22,-0.50,0.0,100,-7,12345678.90],"#,
    r#""given":["Zoë",null,"莎拉","😀"],"_given":[null,{"id":"g"}],"alpha":[[],{},"",true,false],"#,
    r#""long":"a\\b\"c\n\td\u0001/ 
","big":2147483648,"text":{"div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">é</div>"}"#
);

pub async fn what_was_sent_comes_back_to_the_letter(under_test: &StoreUnderTest) {
    let store = &under_test.store;
    let from = start(store).await;
    // A line break can stand in a text as an escape only.
    let members = EVERYTHING.replace('\n', "\u{2028}\u{fffd}\u{10ffff}");
    let sent = put("Observation", "o-1.A", &members);
    let Action::Put(resource) = sent.action.clone() else { panic!("a put") };
    assert!(text(&resource.to_json()).contains(r#""exponent":[1E-22,-0.50,0.0,100,-7,"#));

    let written = commit(store, sent).await;
    let expected = resource.stamped(1, written.last_updated).to_json();
    assert_eq!(text(&written.json.expect("JSON")), text(&expected));
    assert_eq!(found(store, "Observation", "o-1.A").await.1, text(&expected));
    let snapshot = store.snapshot().await.expect("a snapshot");
    assert_eq!(texts(&scan(&*snapshot, whole("Observation")).await), [text(&expected)]);
    let read = snapshot.read(ty("Observation"), "o-1.A").await.expect("a read");
    assert_eq!(read.as_deref().map(text), Some(text(&expected)));
    match &changes_since(store, from).await[..] {
        [change] => match &change.kind {
            ChangeKind::Upsert { json, updated_ms, .. } => {
                assert_eq!(text(json), text(&expected));
                assert_eq!(*updated_ms, Some(written.last_updated.as_millisecond()));
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

pub async fn no_update_is_lost_between_conditional_writers(under_test: &StoreUnderTest) {
    const WRITERS: usize = 6;
    const EACH: usize = 15;
    let store = &under_test.store;
    commit(store, patient("counter", 0)).await;
    let writers = (0..WRITERS).map(|_| tokio::spawn(count_up(store.clone(), EACH)));
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    let (version, json) = found(store, "Patient", "counter").await;
    assert_eq!(version, (WRITERS * EACH) as u64 + 1);
    assert!(json.contains(&format!(r#""multipleBirthInteger":{}}}"#, WRITERS * EACH)), "{json}");
}

async fn count_up(store: Arc<dyn Store>, mut times: usize) {
    let deadline = Instant::now() + PATIENCE;
    while times > 0 {
        assert!(Instant::now() < deadline, "someone always makes way");
        let (version, json) = found(&store, "Patient", "counter").await;
        let count: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let count = count["multipleBirthInteger"].as_u64().expect("a count") as usize;
        let write = expecting(Expect::Version(version), patient("counter", count + 1));
        match store.commit(vec![write]).await {
            Ok(_) => times -= 1,
            Err(WriteError::Conflict { found, .. }) => assert_ne!(found, Some(version)),
            Err(other) => panic!("{other}"),
        }
    }
}
