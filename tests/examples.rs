//! Fidelity: the HL7 examples go in by `load`, and come out of `$export` each exactly once,
//! member order and number text included.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use fhirtail::{
    client::load::{self, LoadArgs, Sink, Target},
    position::LogPosition,
};
use serde_json::Value;
use support::{App, Bench, client, replica::identity, stream::EventStream};

/// The folder of the package, which `tests/run` fetches.
fn folder() -> PathBuf {
    let named = std::env::var_os("FHIRTAIL_EXAMPLES").map(PathBuf::from);
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hl7-examples/package");
    let folder = named.unwrap_or_else(usual);
    assert!(folder.is_dir(), "no HL7 examples at {folder:?}: run tests/run once, which gets them");
    folder
}

/// The files that are resources, in the order of their paths: identity and text.
fn files() -> Vec<(String, String)> {
    let mut paths: Vec<_> = std::fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .filter(|path| path.file_name().is_some_and(|name| name != "package.json"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("UTF-8");
        (identity(&text).0, text)
    };
    paths.iter().map(read).collect()
}

fn has_legal_id(url: &str) -> bool {
    url.split_once('/').is_some_and(|(_, id)| id.len() <= 64)
}

/// What a resource holds but for the server's stamp: its members in order, as compact text,
/// and the text of each number.
fn essence(json: &str) -> (String, Vec<String>) {
    let mut value: Value = serde_json::from_str(json).expect("JSON");
    let members = value.as_object_mut().expect("an object");
    if let Some(Value::Object(meta)) = members.get_mut("meta") {
        meta.shift_remove("versionId");
        meta.shift_remove("lastUpdated");
        if meta.is_empty() {
            members.shift_remove("meta");
        }
    }
    (value.to_string(), numbers(json))
}

/// The numbers of a JSON text as written; a reading of its own, which knows strings and nothing
/// else.
fn numbers(json: &str) -> Vec<String> {
    let mut numbers = vec![String::new()];
    let mut characters = json.chars();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '"' => in_string = !in_string,
            '0'..='9' | '+' | '-' | '.' | 'e' | 'E' if !in_string => {
                numbers.last_mut().expect("one").push(character);
            }
            _ => numbers.push(String::new()),
        }
    }
    numbers.retain(|number| number.bytes().any(|b| b.is_ascii_digit()));
    numbers
}

async fn come_out_as_they_went_in(bench: Bench, too_large: &[&str]) {
    let files = files();
    assert_eq!(files.len(), 5_306, "files in the package");
    let args = LoadArgs {
        paths: vec![folder()],
        to: Target::Store(String::new()),
        keep_bundles: true,
        parallel: NonZeroUsize::new(4).expect("not zero"),
        retry_for: 10,
    };
    let status = load::run(args.clone(), Sink::Store(bench.store.clone())).await.expect("loaded");
    assert_eq!(status, ExitCode::FAILURE, "one id is not FHIR's, and the status says so");
    let legal = files.into_iter().filter(|(url, _)| has_legal_id(url));
    let mut expected: BTreeMap<_, _> = legal.map(|(url, text)| (url, essence(&text))).collect();
    assert_eq!(expected.len(), 5_304, "two files hold ImplementationGuide/fhir");
    let trailing = expected.values().filter(|(_, numbers)| numbers.iter().any(|n| has_zero(n)));
    assert_eq!(trailing.count(), 41, "resources with a decimal that ends in zero");

    for url in too_large {
        assert!(expected.remove(*url).is_some(), "{url}");
    }

    let app = App::start(bench.store.clone()).await;
    let lines = client().get(app.url("/fhir/$export")).send().await.expect("an answer");
    let lines = lines.text().await.expect("lines");
    assert_all_once(&expected, lines.lines().map(str::to_owned));

    let mut stream = EventStream::open(&app.url("/fhir/$export"), None).await;
    let mut events = stream.until("caught-up").await;
    events.pop();
    assert_all_once(&expected, events.into_iter().map(|event| event.data));

    // A second time: the same state, and nothing written.
    let end = LogPosition::past(bench.store.head().await.expect("a head").time);
    load::run(args, Sink::Store(bench.store.clone())).await.expect("loaded");
    let mut changes = bench.store.changes(end).await.expect("a log");
    let written = changes.next().await.expect("a batch").changes;
    assert!(written.is_empty(), "{} were written again", written.len());
}

fn has_zero(number: &str) -> bool {
    number.contains('.') && number.split(['e', 'E']).next().is_some_and(|n| n.ends_with('0'))
}

fn assert_all_once(
    expected: &BTreeMap<String, (String, Vec<String>)>,
    given: impl Iterator<Item = String>,
) {
    let mut seen = BTreeMap::new();
    for json in given {
        let (url, _) = identity(&json);
        let essence = essence(&json);
        let same = expected.get(&url) == Some(&essence);
        assert!(same, "{url}: {essence:.2000?} is not {:.2000?}", expected.get(&url));
        *seen.entry(url).or_insert(0) += 1;
    }
    assert!(seen.values().all(|times| *times == 1));
    let missing: Vec<_> = expected.keys().filter(|url| !seen.contains_key(*url)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    come_out_as_they_went_in(support::embedded(), &[]).await;
}

/// MongoDB holds no document over 16 MB, as one of the examples would be: `load` names it.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    let Some(bench) = support::mongo().await else { return };
    come_out_as_they_went_in(bench, &["Bundle/resources"]).await;
}
