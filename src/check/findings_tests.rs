//! Facts in, sentences out.

use super::{
    super::collections::{self, Content, Found, Kind, Sample},
    *,
};

fn login() -> Login {
    Login { user: Some(("me".into(), "admin".into())), database: "fhir".into() }
}

fn denied<T>() -> Asked<T> {
    Err(Refusal { denied: true, why: "not authorized".into() })
}

fn broken<T>() -> Asked<T> {
    Err(Refusal { denied: false, why: "it burns".into() })
}

fn grants(finding: &Finding, role: &str) -> bool {
    let mend = finding.mend.as_deref().unwrap_or_default();
    mend.starts_with(r#"db.getSiblingDB("admin").grantRolesToUser("me", [{"#)
        && mend.contains(&format!("role: \"{role}\""))
}

#[test]
fn a_standalone_fails_with_the_way_out() {
    let found = topology(&Topology::Standalone);
    assert_eq!(found.level, Level::Fail);
    assert!(found.mend.expect("a way").contains("rs.initiate()"));
    for other in [Topology::ReplicaSet("rs0".into()), Topology::Sharded] {
        assert_eq!(topology(&other).level, Level::Ok);
    }
}

#[test]
fn versions() {
    let level = |has_snapshots, has_images| version("x", has_snapshots, has_images).level;
    assert_eq!(
        [level(false, false), level(true, false), level(true, true)],
        [Level::Fail, Level::Slow, Level::Ok]
    );
}

#[test]
fn what_may_not_be_asked_does_not_fail() {
    for found in [
        engine(&denied()).expect("a sentence"),
        oplog(&denied(), &login()),
        snapshot_window(&denied()),
    ] {
        assert_eq!(found.level, Level::Ok, "{}", found.text);
        assert!(found.text.contains("not authorized"), "{}", found.text);
    }
    assert_eq!(engine(&Ok(None)), None);
    assert_eq!(engine(&Ok(Some("inMemory".into()))).map(|found| found.level), Some(Level::Slow));
}

#[test]
fn a_missing_right_is_granted_by_its_role() {
    let denials = [
        listing(&denied(), &login()),
        majority(&denied(), None, &login()),
        snapshot(&denied(), &login()),
        changes(&denied(), &login()).remove(0),
    ];
    for found in denials {
        assert!(found.level == Level::Fail && grants(&found, "read"), "{found:?}");
    }
    let found = writing(&denied(), &login());
    assert!(found.level == Level::Slow && grants(&found, "readWrite"), "{found:?}");
}

#[test]
fn no_role_helps_what_is_broken() {
    let failures = [
        listing(&broken(), &login()),
        snapshot(&broken(), &login()),
        changes(&broken(), &login()).remove(0),
        writing(&broken(), &login()),
    ];
    for found in failures {
        assert_eq!((found.level, &found.mend), (Level::Fail, &None));
        assert!(found.text.ends_with("it burns"), "{}", found.text);
    }
}

#[test]
fn an_epoch_needs_a_name_for_the_log() {
    let of = |identity, sharded, may_write| epoch(identity, sharded, may_write, &login());
    for identity in [Identity::Set, Identity::Own] {
        assert_eq!(of(identity, false, false).level, Level::Ok);
    }
    assert_eq!(of(Identity::OwnToMake, false, true).level, Level::Ok);
    let nothing = of(Identity::OwnToMake, false, false);
    assert!(nothing.level == Level::Fail && grants(&nothing, "clusterMonitor"), "{nothing:?}");
    let sharded = of(Identity::OwnToMake, true, false);
    assert_eq!(sharded.mend.as_deref(), Some(r#"db.createCollection("fhirtail")"#));
}

#[test]
fn a_majority_that_lags_is_told() {
    let level = |behind| majority(&Ok(()), behind, &login()).level;
    assert_eq!(
        [level(None), level(Some(10)), level(Some(11))],
        [Level::Ok, Level::Ok, Level::Slow]
    );
}

#[test]
fn an_oplog_is_judged_by_what_it_will_hold() {
    let judged = |hours: f64, full| {
        let seconds = (hours * 3600.0) as u32;
        oplog(&Ok(Oplog { seconds, full }), &login())
    };
    let cases = [
        (23.9, Some(1.0), Level::Slow, "the oplog reaches back 23.9 h: a client"),
        (24.0, Some(0.95), Level::Ok, "the oplog reaches back 24.0 h: so long"),
        (240.0, None, Level::Ok, "reaches back 10 days"),
        (0.5, None, Level::Slow, "reaches back 30 min"),
        (0.5, Some(0.8), Level::Ok, "too young to judge"),
        (6.0, Some(0.2), Level::Ok, "6.0 h so far, 20 % full; full, as things go, 30.0 h"),
        (6.0, Some(0.5), Level::Slow, "6.0 h so far, 50 % full; full, as things go, 12.0 h"),
    ];
    for (hours, full, level, part) in cases {
        let found = judged(hours, full);
        assert_eq!(found.level, level, "{}", found.text);
        assert!(found.text.contains(part), "{}", found.text);
        let mended = found.mend.is_some_and(|mend| mend.contains("replSetResizeOplog"));
        assert_eq!(mended, level == Level::Slow);
    }
}

#[test]
fn a_short_snapshot_window_is_slow() {
    assert_eq!(snapshot_window(&Ok(300)).level, Level::Ok);
    let found = snapshot_window(&Ok(299));
    assert_eq!(found.level, Level::Slow);
    assert!(found.mend.expect("a way").contains("minSnapshotHistoryWindowInSeconds: 300"));
}

#[test]
fn tokens_that_show_no_time_are_slow() {
    let levels = |tokens| -> Vec<Level> {
        changes(&Ok(tokens), &login()).iter().map(|found| found.level).collect()
    };
    assert_eq!(levels(Tokens::SameAsEvents(3)), [Level::Ok, Level::Ok]);
    assert_eq!(levels(Tokens::InTheLog), [Level::Ok, Level::Ok]);
    assert_eq!(levels(Tokens::Unknown), [Level::Ok, Level::Slow]);
}

fn patients(content: Content) -> Found {
    Found {
        name: "Patient".into(),
        kind: Kind::Plain,
        images: true,
        collated: false,
        capped: false,
        content: Ok(content),
    }
}

fn sound() -> Content {
    let sample = Sample { documents: 9, ..Sample::default() };
    Content { documents: 1, bytes: 2_600, indexed: true, sample, ..Content::default() }
}

fn told(found: &Found) -> Vec<(&'static str, Level)> {
    let all = collections::findings(found, true);
    all.iter().map(|finding| (finding.check, finding.level)).collect()
}

#[test]
fn a_sound_collection_takes_one_line() {
    let all = collections::findings(&patients(sound()), true);
    assert_eq!(all, [Finding::ok("collection", "Patient: 1 document, 2.6 kB")]);
}

#[test]
fn what_is_missing_is_told_with_its_command() {
    let bare = Found { images: false, ..patients(Content { indexed: false, ..sound() }) };
    let all = collections::findings(&bare, true);
    let mends: Vec<_> = all.iter().filter_map(|finding| finding.mend.as_deref()).collect();
    assert_eq!(
        mends,
        [
            r#"db.Patient.createIndex({"meta.lastUpdated": 1, _id: 1})"#,
            r#"db.runCommand({collMod: "Patient", changeStreamPreAndPostImages: {enabled: true}})"#,
        ]
    );
    // A server that knows no images is told of once, not for every collection.
    assert_eq!(collections::findings(&bare, false).len(), 2);
}

#[test]
fn odd_documents_are_counted() {
    let sample = Sample {
        documents: 9,
        foreign_key: 1,
        twin_key: 5,
        other_id: 2,
        updated_text: 3,
        updated_missing: 4,
    };
    let expiring = vec![("recorded".into(), 60)];
    let unindexed = vec![("identifier", "identifier.value".to_owned())];
    let searched = |documents| Content { documents, unindexed: unindexed.clone(), ..sound() };
    assert_eq!(told(&patients(searched(10_000))), [("collection", Level::Ok)], "soon read");
    let large = collections::findings(&patients(searched(10_001)), true);
    assert_eq!((large[1].check, large[1].level), ("search", Level::Slow));
    let mend = r#"db.Patient.createIndex({"identifier.value": 1, _id: 1})"#;
    assert_eq!(large[1].mend.as_deref(), Some(mend));
    let found = patients(Content { expiring, sample, ..sound() });
    let expected = [
        ("collection", Level::Ok),
        ("expiry", Level::Ok),
        ("keys", Level::Fail),
        ("twins", Level::Fail),
        ("ids", Level::Slow),
        ("updated", Level::Slow),
        ("updated", Level::Slow),
    ];
    assert_eq!(told(&found), expected);
    let text = &collections::findings(&found, true)[4].text;
    assert!(text.starts_with("Patient: 2 of 9 sampled documents have an id"), "{text}");
}

#[test]
fn other_kinds_of_collections() {
    let of = |kind, collated, capped| Found { kind, collated, capped, ..patients(sound()) };
    let level = |found: &Found| match told(found).as_slice() {
        [("collection", level)] => *level,
        other => panic!("{other:?}"),
    };
    assert_eq!(level(&of(Kind::View, true, false)), Level::Ok);
    assert_eq!(level(&of(Kind::TimeSeries, false, false)), Level::Ok);
    assert_eq!(level(&of(Kind::Plain, true, false)), Level::Fail);
    assert_eq!(level(&of(Kind::Plain, false, true)), Level::Fail);
    assert_eq!(level(&Found { content: denied(), ..patients(sound()) }), Level::Fail);
}

#[test]
fn ignored_collections_take_one_line() {
    assert_eq!(collections::ignored(&[]), None);
    let names = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>();
    let ten = collections::ignored(&names(10)).expect("a line").text;
    assert!(ten.contains("(10)") && ten.ends_with("c9"), "{ten}");
    let more = collections::ignored(&names(11)).expect("a line").text;
    assert!(more.contains("(11)") && more.ends_with("c9, …"), "{more}");
}
