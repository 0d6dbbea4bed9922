//! Search: what is found is what a plain evaluation of its own (`tests/tools/search.py`) finds.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that meets the unexpected fails"
)]

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use fhirtail::{
    fhir::{ResourceType, resource::Resource},
    search::{Context, Search, places},
    store::{Clue, Sought},
};
use mongodb::bson::doc;
use serde::Deserialize;
use serde_json::Value;
use support::{App, Bench, client, writes};

/// A search, and the lines of the file that it is to find.
#[derive(Deserialize)]
struct Judged {
    #[serde(rename = "type")]
    ty: String,
    query: Vec<(String, String)>,
    found: Vec<usize>,
}

/// The folder of the HL7 examples, which `tests/run` fetches.
fn package() -> PathBuf {
    let named = std::env::var_os("FHIRTAIL_EXAMPLES").map(PathBuf::from);
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hl7-examples/package");
    let folder = named.unwrap_or_else(usual);
    assert!(folder.is_dir(), "no HL7 examples at {folder:?}: run tests/run once, which gets them");
    folder
}

/// A resource of some type, as one line.
type Line = (ResourceType, String);

/// The resources of a folder's files; a Bundle's entries if `open` says so.
fn resources(folder: &Path, open: bool) -> Vec<Line> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter(|path| path.file_name().is_some_and(|name| name != "package.json"))
        .collect();
    paths.sort();
    let texts = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a file");
        if !open {
            return vec![text];
        }
        let bundle: Value = serde_json::from_str(&text).expect("JSON");
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["resource"].to_string()).collect()
    };
    // Two of the examples have ids that are not FHIR's.
    let line = |text: String| {
        let resource = Resource::parse(text.as_bytes()).ok()?;
        let json = String::from_utf8(resource.to_json().to_vec()).expect("UTF-8");
        Some((resource.ty(), json))
    };
    paths.iter().flat_map(texts).filter_map(line).collect()
}

/// The searches that are judged, over these resources.
fn judged(resources: &[Line]) -> Vec<Judged> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    resources.iter().for_each(|(_, line)| writeln!(file, "{line}").expect("written"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/search.py");
    let mut judge = Command::new("python3");
    let output = judge.arg(script).arg(package()).arg(file.path()).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a judged search")).collect()
}

/// Whether a resource fulfils a clue.
fn is_fulfilled(clue: &Clue, resource: &Value) -> bool {
    clue.places.iter().any(|place| {
        let mut at = vec![resource];
        for name in &place.path {
            at = at.iter().flat_map(|value| items(value)).filter_map(|one| one.get(name)).collect();
        }
        let mut values = at.into_iter().flat_map(items);
        values.any(|value| place.values.iter().any(|sought| is_sought(sought, value)))
    })
}

fn items(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |items| items.iter().collect())
}

fn is_sought(sought: &Sought, value: &Value) -> bool {
    let text = value.as_str();
    match sought {
        Sought::Text(wanted) => text == Some(wanted),
        Sought::Begins(start) => text.is_some_and(|text| text.starts_with(start)),
        Sought::Bool(is) => value.as_bool() == Some(*is),
        Sought::Instant(from, to) => text.is_some_and(|text| {
            let Ok(at) = text.parse::<jiff::Timestamp>() else { return true };
            let ms = at.as_millisecond();
            from.is_none_or(|from| from <= ms) && to.is_none_or(|to| ms <= to)
        }),
    }
}

/// Every search finds what it is to find. Says how many there are.
fn agree(resources: &[Line]) -> usize {
    let searches = judged(resources);
    let mut differing = Vec::new();
    let mut fruitful = 0;
    for Judged { ty, query, found } in &searches {
        let of = ResourceType::parse(ty).expect("a type");
        let search = match Search::parse(of, query, Context::default()) {
            Ok(search) => search,
            Err(error) => {
                differing.push(format!("{ty}?{query:?}: {error}"));
                continue;
            }
        };
        let is_found = |(ty, line): &Line| {
            let is_found = *ty == of && search.matches(line.as_bytes());
            if is_found && !search.clues().is_empty() {
                let value = serde_json::from_str(line).expect("JSON");
                let missed = search.clues().iter().find(|clue| !is_fulfilled(clue, &value));
                assert_eq!(missed, None, "{ty}?{query:?} finds {line}");
            }
            is_found
        };
        let given: Vec<_> =
            (0..resources.len()).filter(|number| is_found(&resources[*number])).collect();
        fruitful += usize::from(!found.is_empty());
        if given != *found {
            let odd = |one: &[usize], other: &[usize]| {
                let odd = one.iter().find(|number| !other.contains(number))?;
                Some(resources[*odd].1.chars().take(2_000).collect::<String>())
            };
            differing.push(format!(
                "{ty}?{query:?}: {} are found, not {}\n  too many: {:?}\n  missed: {:?}",
                given.len(),
                found.len(),
                odd(&given, found),
                odd(found, &given)
            ));
        }
    }
    let shown = differing.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(differing.is_empty(), "{} of {}:\n{shown}", differing.len(), searches.len());
    assert!(fruitful * 3 > searches.len(), "{fruitful} of {} find anything", searches.len());
    println!("{} searches of {} resources agree", searches.len(), resources.len());
    searches.len()
}

/// Of each type at most so many.
fn some(resources: Vec<Line>, most: usize) -> Vec<Line> {
    let mut counts = HashMap::new();
    let is_one = |(ty, _): &Line| {
        let count = counts.entry(*ty).or_insert(0);
        *count += 1;
        *count <= most
    };
    resources.into_iter().filter(is_one).collect()
}

#[test]
fn of_the_hl7_examples_is_found_what_is_to_be_found() {
    assert!(agree(&some(resources(&package(), false), 60)) > 8_000);
}

/// A query, each byte that may mean something written as `%` and its number.
fn encoded(query: &[(String, String)]) -> String {
    let encode = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let pair = |(name, value): &(String, String)| format!("{}={}", encode(name), encode(value));
    query.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// Puts the resources into a store, and asks its server for some of what is judged: one in so
/// many. Returns its server and what it was asked.
async fn is_found_in(bench: &Bench, mut resources: Vec<Line>, step: usize) -> (App, Vec<Asked>) {
    // One is larger than a document of MongoDB may be.
    resources.retain(|(_, line)| line.len() < 8 << 20);
    for some in resources.chunks(50) {
        let values: Vec<Value> =
            some.iter().map(|(_, line)| serde_json::from_str(line).expect("JSON")).collect();
        writes::commit(&*bench.store, values.iter().map(writes::put).collect()).await;
    }
    let app = App::start(bench.store.clone()).await;
    let exported = client().get(app.url("/fhir/$export")).send().await.expect("an answer");
    let exported = exported.text().await.expect("lines");
    let stored: Vec<Line> = exported
        .lines()
        .map(|line| (Resource::parse(line.as_bytes()).expect("a resource").ty(), line.to_owned()))
        .collect();
    assert!(stored.len() > 900, "{} are stored", stored.len());
    let asked = judged(&stored).into_iter().step_by(step).map(|Judged { ty, query, found }| {
        let mut lines: Vec<_> = found.iter().map(|number| stored[*number].1.clone()).collect();
        lines.sort_unstable();
        Asked { path: format!("/fhir/{ty}?{}", encoded(&query)), lines }
    });
    let asked: Vec<_> = asked.collect();
    answers(&app, &asked).await;
    (app, asked)
}

/// A search, and the lines that it is to give.
struct Asked {
    path: String,
    lines: Vec<String>,
}

async fn answers(app: &App, asked: &[Asked]) {
    for Asked { path, lines: expected } in asked {
        let request = client().get(app.url(path)).header("Accept", "application/fhir+ndjson");
        let lines = request.send().await.expect("an answer").text().await.expect("lines");
        let mut given: Vec<_> = lines.lines().collect();
        given.sort_unstable();
        assert!(given == *expected, "{path}: {} not {}", given.len(), expected.len());
    }
}

/// Gives each collection indexes that searches can go along, as far as there is room for them.
async fn add_indexes(bench: &Bench, asked: &[Asked]) {
    const MOST: usize = 5;
    let client = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
    let database = client.default_database().expect("a database");
    let type_of = |asked: &Asked| asked.path.split(['/', '?']).nth(2).map(str::to_owned);
    let types: BTreeSet<_> = asked.iter().filter_map(type_of).collect();
    for name in types {
        let ty = ResourceType::parse(&name).expect("a type");
        let places: BTreeSet<_> = places(ty).map(|(_, place)| place.join(".")).collect();
        let places = places.iter().filter(|place| *place != "id").take(MOST);
        let index = |place: &String| {
            let key = doc! {place: 1, "_id": 1};
            doc! {"key": key, "name": place}
        };
        let indexes: Vec<_> = places.map(index).collect();
        let command = doc! {"createIndexes": name, "indexes": indexes};
        database.run_command(command).await.expect("indexes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_finds_what_is_to_be_found() {
    let bench = support::embedded();
    let (_app, asked) = is_found_in(&bench, some(resources(&package(), false), 40), 13).await;
    assert!(asked.len() > 500, "{} were asked", asked.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_finds_what_is_to_be_found() {
    let Some(bench) = support::mongo().await else { return };
    let (app, asked) = is_found_in(&bench, some(resources(&package(), false), 40), 13).await;
    assert!(asked.len() > 500, "{} were asked", asked.len());
    add_indexes(&bench, &asked).await;
    answers(&app, &asked).await;
}

/// `FHIRTAIL_SEARCH_DATA` may name a folder of Bundles.
#[tokio::test(flavor = "multi_thread")]
async fn of_other_data_too() {
    let Some(folder) = std::env::var_os("FHIRTAIL_SEARCH_DATA") else { return };
    let resources = resources(Path::new(&folder), true);
    let step = agree(&resources) / 300 + 1;
    let bench = support::embedded();
    let (_app, asked) = is_found_in(&bench, resources.clone(), step).await;
    println!("{} searches over HTTP agree", asked.len());
    let Some(bench) = support::mongo().await else { return };
    let (app, asked) = is_found_in(&bench, resources, step).await;
    add_indexes(&bench, &asked).await;
    answers(&app, &asked).await;
}
