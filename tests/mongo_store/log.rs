//! The log: what it tells, from where it goes on, and when it says that it can't.

use std::time::{Duration, Instant};

use fhirtail::{
    live::{Hub, HubOptions},
    position::LogPosition,
    store::{Before, Change, ChangeKind, Store, StoreError},
};
use mongodb::bson::doc;
use support::{mongod::ReplicaSet, stream::PATIENCE};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::tools::{bench, bench_on, delete, patient, put, read_to, text, update, words};

fn positions(changes: &[Change]) -> Vec<LogPosition> {
    changes.iter().map(|change| change.position).collect()
}

fn all_words(changes: &[Change]) -> Vec<String> {
    changes.iter().map(words).collect()
}

#[tokio::test]
async fn an_idle_log_is_level_and_quiet() {
    let Some(bench) = bench().await else { return };
    bench.write(patient("1", 1)).await;
    let snapshot = bench.snapshot().await;
    let mut reader = bench.changes(snapshot.position()).await;
    let head = bench.head().await;
    let read = timeout(PATIENCE, read_to(&mut *reader, head)).await;
    let (changes, level) = read.expect("in time");
    assert_eq!(all_words(&changes), [""; 0]);
    assert!(level >= snapshot.position());
    // The mark of an idle database moves with writes elsewhere.
    let elsewhere = bench.client.database("elsewhere");
    elsewhere.collection("x").insert_one(doc! {"a": 1}).await.expect("inserted");
    let head = bench.head().await;
    let (changes, moved) = read_to(&mut *reader, head).await;
    assert!(changes.is_empty() && moved > level && moved.time >= head.time);
    timeout(PATIENCE, reader.next()).await.expect("in time").expect("nothing");
}

/// A reader that stands right behind the end, after a handoff or a database's end, has not looked
/// at what lies there: the next write will.
#[tokio::test]
async fn nothing_is_quiet_that_was_not_looked_at() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let set: &'static ReplicaSet = Box::leak(Box::new(set));
    let bench = bench_on(set).await;
    bench.write(patient("1", 1)).await;
    let behind = LogPosition::past(bench.head().await.time);
    let mut handed_off = bench.changes(behind).await;
    let mut invalidated = bench.changes(behind).await;
    for _ in 0..3 {
        let batch = handed_off.next().await.expect("a batch");
        let head = bench.head().await;
        assert!(!batch.quiet || batch.level.time <= head.time, "{batch:?}, the end is {head:?}");
    }
    bench.db.drop().await.expect("dropped");
    let (mut gone, mut idle) = (false, 0);
    while idle < 3 {
        let batch = invalidated.next().await.expect("a batch");
        let head = bench.head().await;
        assert!(!batch.quiet || batch.level.time <= head.time, "{batch:?}, the end is {head:?}");
        gone |= batch.level.time > head.time;
        idle += usize::from(gone);
    }
    // Once something is written there, it is.
    bench.client.database("elsewhere").collection("x").insert_one(doc! {"a": 1}).await.expect("ok");
    let head = bench.head().await;
    for reader in [&mut handed_off, &mut invalidated] {
        read_to(&mut **reader, head).await;
    }
}

#[tokio::test]
async fn our_writes_come_exactly_with_what_was_before() {
    let Some(bench) = bench().await else { return };
    let start = bench.snapshot().await.position();
    let first = bench.write(patient("1", 1)).await;
    let second = bench.write(patient("1", 2)).await;
    bench.write(patient("1", 2)).await;
    bench.write(delete("Patient", "1")).await;
    let changes = bench.changes_until_now(start).await;
    let json = |written: &fhirtail::store::Written| text(written.json.as_ref().expect("json"));
    let expected = [
        format!("Absent -> {}", json(&first)),
        format!("Known -> {}", json(&second)),
        "Known -> no Patient/1".to_owned(),
    ];
    assert_eq!(all_words(&changes), expected);
    let before = |at: usize| match &changes[at].kind {
        ChangeKind::Upsert { before: Before::Known(image), .. }
        | ChangeKind::Delete { before: Before::Known(image), .. } => {
            text(&(image.encode)().expect("json"))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((before(1), before(2)), (json(&first), json(&second)));
    let ChangeKind::Upsert { updated_ms, .. } = changes[1].kind else { panic!("an upsert") };
    assert_eq!(updated_ms, Some(second.last_updated.as_millisecond()));
    let age = changes[1].committed.duration_since(second.last_updated).abs();
    assert!(age < jiff::SignedDuration::from_secs(5), "{age}");
}

#[tokio::test]
async fn updates_with_images_are_exact() {
    let Some(bench) = bench().await else { return };
    bench.write(patient("1", 0)).await;
    let start = bench.snapshot().await.position();
    for n in 1..=5 {
        update(&bench, "Patient", doc! {}, doc! {"$set": {"multipleBirthInteger": n}}).await;
    }
    let said = all_words(&bench.changes_until_now(start).await);
    assert_eq!(said.len(), 5, "{said:#?}");
    for (n, said) in (1..).zip(&said) {
        assert!(
            said.starts_with("Known -> ") && said.contains(&format!("Integer\":{n}")),
            "{said}"
        );
    }
}

/// In the middle of transactions too, and where foreign collections take part in them.
#[tokio::test]
async fn every_position_is_followed_by_exactly_the_rest() {
    let Some(bench) = bench().await else { return };
    let start = bench.snapshot().await.position();
    for round in 0..6 {
        let mut writes: Vec<_> = (0..9).map(|id| patient(&format!("{id}"), round)).collect();
        writes.push(put(&format!(r#"{{"resourceType":"Group","id":"g","n":{round}}}"#)));
        if round > 0 {
            writes.remove(0);
            writes.push(delete("Patient", "0"));
        }
        bench.commit(writes).await.expect("committed");
        bench.insert("other", doc! {"a": round}).await;
        bench.write(patient("0", round)).await;
    }
    let all = bench.changes_until_now(start).await;
    // In the first round the single write changes nothing.
    assert_eq!(all.len(), 6 * 11 - 1, "{:#?}", all_words(&all));
    assert!(positions(&all).is_sorted());
    assert!(positions(&all).iter().any(|position| position.consumed > 8));
    for (at, change) in all.iter().enumerate() {
        let rest = bench.changes_until_now(change.position).await;
        assert_eq!(positions(&rest), positions(&all[at + 1..]), "after {:?}", change.position);
        assert_eq!(all_words(&rest), all_words(&all[at + 1..]));
    }
}

#[tokio::test]
async fn what_has_no_readable_key_is_left_out() {
    let Some(bench) = bench().await else { return };
    let start = bench.snapshot().await.position();
    bench.insert("Patient", doc! {"_id": 7}).await;
    bench.insert("Patient", doc! {"_id": "1"}).await;
    bench.collection("Patient").delete_many(doc! {}).await.expect("deleted");
    let said = all_words(&bench.changes_until_now(start).await);
    let json = r#"{"resourceType":"Patient","id":"1"}"#;
    assert_eq!(said, [format!("Absent -> {json}"), "Unknown -> no Patient/1".into()]);
}

#[tokio::test]
async fn drops_and_renames_replace_types_and_the_log_goes_on() {
    let Some(bench) = bench().await else { return };
    for name in ["Patient", "Group", "Basic", "other"] {
        bench.insert(name, doc! {"_id": "1"}).await;
    }
    let start = bench.snapshot().await.position();
    let rename = |from: &str, to: &str| {
        let name = bench.db.name();
        doc! {"renameCollection": format!("{name}.{from}"), "to": format!("{name}.{to}")}
    };
    bench.collection("Patient").drop().await.expect("dropped");
    bench.set.admin(rename("Group", "Flag")).await;
    bench.set.admin(rename("Flag", "elsewhere")).await;
    bench.set.admin(rename("other", "Goal")).await;
    let said = all_words(&bench.changes_until_now(start).await);
    let expected = ["Patient", "Group", "Flag", "Flag", "Goal"];
    assert_eq!(said, expected.map(|name| format!("replaced {name}")));

    bench.db.drop().await.expect("dropped");
    bench.insert("Basic", doc! {"_id": "2"}).await;
    let all = bench.changes_until_now(start).await;
    let json = r#"{"resourceType":"Basic","id":"2"}"#;
    assert_eq!(words(all.last().expect("changes")), format!("Absent -> {json}"));
    for ty in fhirtail::fhir::ResourceType::all() {
        assert!(all_words(&all).contains(&format!("replaced {ty}")), "{ty}");
    }
    // Each of those positions is honoured, those of the dead stream's last events too.
    let mut places = positions(&all);
    places.dedup();
    for position in places {
        let rest = bench.changes_until_now(position).await;
        let expected: Vec<_> = all.iter().filter(|change| change.position > position).collect();
        assert_eq!(rest.len(), expected.len(), "after {position:?}");
    }
}

#[tokio::test]
async fn a_position_in_the_future_is_lost() {
    let Some(bench) = bench().await else { return };
    bench.write(patient("1", 1)).await;
    let head = bench.head().await;
    assert!(bench.store.changes(LogPosition::past(head.time)).await.is_ok());
    let future = LogPosition::before(head.time + (1 << 32));
    let lost = bench.store.changes(future).await.err();
    assert!(matches!(lost, Some(StoreError::PositionLost(_))), "{lost:?}");
}

#[tokio::test]
async fn a_trimmed_log_loses_positions_loudly() {
    let Some(set) = ReplicaSet::start(1, &["--oplogSize", "1", "--syncdelay", "1"]).await else {
        return;
    };
    let set: &'static ReplicaSet = Box::leak(Box::new(set));
    let bench = bench_on(set).await;
    let start = bench.snapshot().await.position();
    bench.write(patient("1", 1)).await;
    let day = Duration::from_secs(24 * 3600);
    let deadline = Instant::now() + Duration::from_secs(120);
    let lost = loop {
        bench.insert("other", doc! {"a": "x".repeat(400_000)}).await;
        match bench.store.changes(start).await {
            Ok(_) => assert!(Instant::now() < deadline, "the oplog is never trimmed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(lost, StoreError::PositionLost(_)), "{lost:?}");
    // The oldest place may go while it is asked for.
    while Instant::now() < deadline {
        let recent = bench.store.recent(day).await.expect("the oldest there is");
        assert!(recent > start && recent <= bench.head().await);
        if bench.store.changes(recent).await.is_ok() {
            return;
        }
    }
    panic!("the oldest place is never honoured");
}

#[tokio::test]
async fn recent_is_about_as_far_back_as_asked() {
    let Some(bench) = bench().await else { return };
    bench.write(patient("1", 1)).await;
    let head = bench.head().await;
    let recent = bench.store.recent(Duration::from_secs(1)).await.expect("a position");
    assert!(recent.time <= head.time && recent.time >> 32 >= (head.time >> 32) - 2);
    bench.store.changes(recent).await.expect("honoured");
}

/// Whatever the server answers to a `getMore` or an `aggregate`, the reader tells, and another
/// one at the same place misses and repeats nothing.
#[tokio::test]
async fn errors_of_the_server_lose_and_repeat_nothing() {
    const FAILURES: u32 = 10;
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let set: &'static ReplicaSet = Box::leak(Box::new(set));
    let bench = bench_on(set).await;
    let start = bench.snapshot().await.position();
    let (store, enough) = (bench.store.clone(), CancellationToken::new());
    let done = enough.clone();
    let writer = tokio::spawn(async move {
        let mut written = 0;
        while !done.is_cancelled() {
            let writes = (0..4).map(|id| patient(&format!("{written}-{id}"), written)).collect();
            store.commit(writes).await.expect("committed");
            written += 1;
            assert!(written < 10_000, "the reader meets no failure");
        }
        written
    });
    let mut failures = [
        doc! {"failCommands": ["getMore"], "errorCode": 43},
        doc! {"failCommands": ["getMore"], "closeConnection": true},
        doc! {"failCommands": ["aggregate"], "errorCode": 11602},
        doc! {"failCommands": ["getMore"], "errorCode": 10107},
        doc! {"failCommands": ["aggregate", "getMore"], "closeConnection": true},
    ]
    .into_iter()
    .cycle();
    let (mut seen, mut level, mut failed) = (Vec::new(), start, 0);
    // Once the writer is done: what it has written lies before this.
    let mut end = None;
    'open: loop {
        if writer.is_finished() && end.is_none() {
            set.admin(doc! {"configureFailPoint": "failCommand", "mode": "off"}).await;
            end = Some(bench.head().await);
        } else if end.is_none() {
            let mut data = failures.next().expect("endless");
            data.insert("appName", "fhirtail");
            set.fail_command(doc! {"times": 1}, data).await;
        }
        let mut reader = match bench.store.changes(level).await {
            Ok(reader) => reader,
            Err(StoreError::Unavailable(_)) => continue,
            Err(error) => panic!("{error:?}"),
        };
        while end.is_some() || !writer.is_finished() {
            match reader.next().await {
                Ok(batch) => {
                    seen.extend(batch.changes);
                    assert!(batch.level >= level);
                    level = batch.level;
                    let is_level = |head: LogPosition| {
                        level.time > head.time || batch.quiet && level.time >= head.time
                    };
                    if end.is_some_and(is_level) {
                        break 'open;
                    }
                }
                Err(StoreError::Unavailable(_)) => {
                    failed += 1;
                    if failed == FAILURES {
                        enough.cancel();
                    }
                    break;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    let written = writer.await.expect("the writer");
    let ids: Vec<_> = positions(&seen);
    assert_eq!(seen.len(), 4 * written as usize);
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
}

/// An event of two images of 9 MB would be larger than the server can send.
#[tokio::test]
async fn large_documents_pass() {
    let Some(bench) = bench().await else { return };
    let start = bench.snapshot().await.position();
    let large = |letter: &str, bytes| {
        let data = letter.repeat(bytes);
        put(&format!(r#"{{"resourceType":"Binary","id":"b","data":"{data}"}}"#))
    };
    bench.write(large("A", 9_000_000)).await;
    bench.write(large("B", 9_000_000)).await;
    update(&bench, "Binary", doc! {}, doc! {"$set": {"data": "C".repeat(9_000_000)}}).await;
    bench.write(large("D", (16 << 20) - 300)).await;
    bench.write(large("E", (16 << 20) - 300)).await;
    bench.write(delete("Binary", "b")).await;
    let changes = bench.changes_until_now(start).await;
    let short: Vec<String> = all_words(&changes)
        .iter()
        .map(|words| words.chars().filter(|letter| !"ABCDE".contains(*letter)).collect())
        .collect();
    assert_eq!(short.len(), 6, "{short:#?}");
    assert!(short[5].ends_with("no inary/b"), "{}", short[5]);
}

/// A server that holds its connections and answers nothing: the tail must not take that for a
/// quiet log.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_silent() {
    let Some(set) = ReplicaSet::start(1, &[]).await else { return };
    let store = support::mongo_in(&set).await.store;
    let status = set.admin(doc! {"serverStatus": 1}).await;
    let process = status.get_i64("pid").expect("a pid").to_string();
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &process]).status();
        assert!(sent.expect("kill").success());
    };
    let stop = CancellationToken::new();
    let tasks = tokio_util::task::TaskTracker::new();
    let hub = Hub::start(store, HubOptions::default(), tasks, stop.clone()).await.expect("a hub");
    until(|| hub.silence().is_some_and(|silence| silence < Duration::from_secs(1))).await;
    signal("-STOP");
    // Far longer than between two answers.
    until(|| hub.silence().is_some_and(|silence| silence > Duration::from_secs(4))).await;
    signal("-CONT");
    until(|| hub.silence().is_some_and(|silence| silence < Duration::from_secs(1))).await;
    stop.cancel();
}

async fn until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "it does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
