//! Search: what is found is what a plain evaluation of its own (`tests/tools/search.py`) finds.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{
    collections::HashMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use fhirtail::{
    fhir::{ResourceType, resource::Resource},
    search::{Context, Search},
};
use serde::Deserialize;
use serde_json::Value;

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
        let is_found = |(ty, line): &Line| *ty == of && search.matches(line.as_bytes());
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

/// `FHIRTAIL_SEARCH_DATA` may name a folder of Bundles.
#[test]
fn of_other_data_too() {
    if let Some(folder) = std::env::var_os("FHIRTAIL_SEARCH_DATA") {
        agree(&resources(Path::new(&folder), true));
    }
}
