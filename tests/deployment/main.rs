//! `docker/` without an engine: what it says of fhirtail is so, and its own tools accept it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod alerts;
mod compose;
mod image;
mod kubernetes;
mod prometheus;
mod unit;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use support::{
    client,
    front::debian,
    process::Process,
    writes::{commit, patient, put},
};

fn docker(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker").join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(docker(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// How long a server may take to end beyond its drain: its connections, its tasks and its store have 3 s
/// each, and a collector of traces that hangs 5.
const LAST_WORDS: u64 = 3 * 3 + 5;

/// Runs a program; gives what it printed. It must be content.
fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let (is_content, out, err) = judged(program, arguments, folder);
    assert!(is_content, "{program} {arguments:?}:\n{out}\n{err}");
    out
}

/// Runs a program; gives whether it was content, and what it printed on either stream.
fn judged(program: &str, arguments: &[&str], folder: &Path) -> (bool, String, String) {
    let mut command = debian(program);
    // What tests/run fetched.
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let python = std::env::var_os("FHIRTAIL_PYTHON").map_or(fetched, PathBuf::from);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("PYTHONPATH", python);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (run tests/run once, which gets it)"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), said(&output.stdout), said(&output.stderr))
}

/// The documents of a YAML file.
fn yaml(file: &str) -> Vec<Value> {
    // A key that stands twice is a mistake that the parser would hide.
    const SCRIPT: &str = "
import json, sys, yaml
class Strict(yaml.SafeLoader): pass
def mapping(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != 'tag:yaml.org,2002:merge']
    assert len(keys) == len(set(keys)), f'a key stands twice: {keys}'
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}
Strict.add_constructor('tag:yaml.org,2002:map', mapping)
print(json.dumps(list(yaml.load_all(open(sys.argv[1]), Strict))))";
    let path = docker(file);
    let out = run("python3", &["-c", SCRIPT, &path.display().to_string()], &docker(""));
    serde_json::from_str(&out).expect("JSON")
}

fn one(file: &str) -> Value {
    let mut documents = yaml(file);
    assert_eq!(documents.len(), 1, "{file}");
    documents.remove(0)
}

/// The words of a text that begin so.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    text.split(|letter| !is_word(letter))
        .map(|word| word.trim_matches(':'))
        .filter(|word| word.starts_with(start))
        .map(str::to_owned)
        .collect()
}

/// A server on an embedded store that holds something.
async fn server() -> (Process, support::Bench) {
    let bench = support::embedded();
    commit(bench.store.as_ref(), vec![put(&patient(1, "x"))]).await;
    bench.store.close().await;
    (Process::serve(&bench.name, &[]), bench)
}

/// Every metric that a server has, once each is measured.
async fn metrics(server: &Process) -> BTreeSet<String> {
    loop {
        let answer = client().get(server.url("/metrics")).send().await.expect("an answer");
        let text = answer.text().await.expect("text");
        if text.contains("fhirtail_log_headroom_seconds ")
            && text.contains("fhirtail_tail_lag_seconds ")
        {
            let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            return types.map(|line| line.split(' ').next().expect("a name").to_owned()).collect();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// What rules, board and autoscaler look at is there; and what is there, the board shows.
#[tokio::test(flavor = "multi_thread")]
async fn each_metric_that_is_named_is_there() {
    let (server, _bench) = server().await;
    let there = metrics(&server).await;
    let of_histogram = |name: &str| name.strip_suffix("_bucket").unwrap_or(name).to_owned();
    let rules = text("prometheus/rules.yml");
    let recorded = recorded(&rules);
    let board = expressions(&board()).join("\n");
    let scaling = text("kubernetes/helm/adapter-values.yaml") + &text("kubernetes/fhirtail.yaml");
    for text in [&rules, &board, &scaling] {
        for name in words(text, "fhirtail_") {
            assert!(there.contains(&of_histogram(&name)), "{name} is not on /metrics: {there:?}");
        }
        let named = words(text, "").into_iter().filter(|word| word.contains(":fhirtail_"));
        named.for_each(|name| assert!(recorded.contains(&name), "{name} is not recorded"));
    }
    let shown: BTreeSet<_> =
        words(&board, "fhirtail_").iter().map(|name| of_histogram(name)).collect();
    assert_eq!(shown, there, "the board shows all");
}

fn board() -> Value {
    serde_json::from_str(&text("grafana/dashboards/fhirtail.json")).expect("JSON")
}

/// What rules record.
fn recorded(rules: &str) -> BTreeSet<String> {
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: "));
    let names: BTreeSet<_> = names.map(str::to_owned).collect();
    assert!(names.len() > 5, "{names:?}");
    names
}

/// The queries of a board.
fn expressions(board: &Value) -> Vec<String> {
    let panels = board["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.map(|target| target["expr"].as_str().expect("a query").to_owned());
    let variables = board["templating"]["list"].as_array().expect("variables").iter();
    queries
        .chain(variables.map(|one| one["query"]["query"].as_str().expect("a query").to_owned()))
        .collect()
}

/// A query of the board as Grafana asks it, of all replicas.
fn chosen(query: &str) -> String {
    let values =
        [("$__rate_interval", "1m"), ("$__range", "1h"), ("$instance", ".*"), ("$job", ".*")];
    values.into_iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value))
}

#[test]
fn the_rules_pass_promtool() {
    let folder = docker("prometheus");
    run("promtool", &["check", "rules", "rules.yml"], &folder);
    run("promtool", &["check", "config", "prometheus.yml"], &folder);
    run("promtool", &["test", "rules", "rules_test.yml"], &folder);
    // The board's queries are checked as rules would be.
    let rules =
        expressions(&board()).into_iter().filter(|query| !query.starts_with("label_values"));
    let rules: Vec<_> = rules
        .map(|query| chosen(&query))
        .enumerate()
        .map(|(at, expr)| serde_json::json!({"record": format!("board:{at}"), "expr": expr}))
        .collect();
    assert!(rules.len() > 20);
    let groups = serde_json::json!({"groups": [{"name": "board", "rules": rules}]});
    let scratch = tempfile::tempdir().expect("a folder");
    fs::write(scratch.path().join("board.json"), groups.to_string()).expect("written");
    run("promtool", &["check", "rules", "board.json"], scratch.path());
}

/// Each variable that is set is one that the server knows.
#[test]
fn each_variable_is_known() {
    let help = run(env!("CARGO_BIN_EXE_fhirtail"), &["help", "serve"], Path::new("/"));
    let known = words(&help, "FHIRTAIL_");
    let files =
        ["Dockerfile", "compose.yaml", "kubernetes/fhirtail.yaml", "systemd/fhirtail.service"];
    for file in files {
        let named = words(&text(file), "FHIRTAIL_");
        assert!(named.iter().any(|name| name == "FHIRTAIL_STORE"), "{file}");
        // In prose there is FHIRTAIL_… for all of them.
        let unknown: Vec<_> =
            named.difference(&known).filter(|name| *name != "FHIRTAIL_").collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}
