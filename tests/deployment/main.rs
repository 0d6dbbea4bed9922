//! `docker/` without an engine: what it says of fhirtail is so, and its own tools accept it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod image;
mod prometheus;
#[path = "../support/mod.rs"]
mod support;

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

/// Runs a program; gives what it printed. It must be content.
fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let mut command = debian(program);
    // What tests/run fetched.
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let python = std::env::var_os("FHIRTAIL_PYTHON").map_or(fetched, PathBuf::from);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("PYTHONPATH", python);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (run tests/run once, which gets it)"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}:\n{out}\n{err}");
    out
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

/// What there may be at the top of a compose file, and of a service in it, as far as ours has any of
/// it (the Compose Specification, 05-services).
const COMPOSE: &str = "name services networks volumes configs secrets";
const SERVICE: &str = "build cap_add cap_drop command configs depends_on deploy entrypoint environment \
    expose healthcheck image init networks ports read_only restart secrets security_opt stop_grace_period \
    stop_signal sysctls tmpfs ulimits user volumes";

#[test]
fn what_compose_names_is_there() {
    let compose = one("compose.yaml");
    let services = compose["services"].as_object().expect("services");
    let mut ports = BTreeSet::new();
    let keys = |of: &Value| -> BTreeSet<String> {
        of.as_object().expect("a mapping").keys().cloned().collect()
    };
    let known = |words: &str| words.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let told = keys(&compose).into_iter().filter(|key| !key.starts_with("x-")).collect();
    assert!(known(COMPOSE).is_superset(&told), "{told:?}");
    for (name, service) in services {
        let told = keys(service);
        assert!(known(SERVICE).is_superset(&told), "{name}: {told:?}");
        assert!(service["image"].is_string(), "{name}");
        let list = |key: &str| service[key].as_array().cloned().unwrap_or_default();
        let waits = match &service["depends_on"] {
            Value::Object(on) => on.keys().cloned().collect(),
            Value::Array(on) => on.iter().map(|on| on.as_str().expect("text").into()).collect(),
            _ => Vec::new(),
        };
        for on in waits {
            let other = services.get(&on).unwrap_or_else(|| panic!("{name} waits for {on}"));
            let wants_health = service["depends_on"][&on]["condition"] == "service_healthy";
            assert!(!wants_health || other["healthcheck"].is_object(), "{on} has no healthcheck");
        }
        for volume in list("volumes") {
            let source = volume.as_str().expect("text").split(':').next().expect("a source");
            match source.strip_prefix("./") {
                Some(file) => assert!(docker(file).exists(), "{name}: {file}"),
                None => assert!(compose["volumes"].get(source).is_some(), "{name}: {source}"),
            }
        }
        for port in list("ports") {
            let port = port.as_str().expect("text").to_owned();
            assert!(port.starts_with("127.0.0.1:"), "{name} is open to others: {port}");
            assert!(ports.insert(port.rsplit_once(':').expect("two").0.to_owned()), "{port} twice");
        }
    }
    // nginx and Prometheus look for the replicas where they are.
    let replicas = ["fhirtail-a:8080", "fhirtail-b:8080"];
    let nginx = text("nginx.conf");
    for replica in replicas {
        assert!(services.contains_key(replica.split(':').next().expect("a name")));
        assert!(nginx.contains(&format!("server {replica} ")), "{replica}");
    }
    let prometheus = one("prometheus/prometheus.yml");
    let targets = &prometheus["scrape_configs"][0]["static_configs"][0]["targets"];
    assert_eq!(targets, &serde_json::json!(replicas));
    let source = one("grafana/provisioning/datasources/prometheus.yml")["datasources"][0].clone();
    assert_eq!(source["uid"], board()["panels"][1]["datasource"]["uid"]);
    let home = one("grafana/provisioning/dashboards/fhirtail.yml");
    let path = home["providers"][0]["options"]["path"].as_str().expect("a path");
    let mounted = services["grafana"]["volumes"][1].as_str().expect("text");
    assert!(mounted.contains(&format!(":{path}:")), "{mounted}");
}

#[test]
fn the_manifests_fit_their_schemas_and_each_other() {
    const SCRIPT: &str = "
import sys, yaml, kubernetes_validate as check
for path in sys.argv[1:]:
    for document in yaml.safe_load_all(open(path)):
        check.validate(document, '1.31', strict=True)";
    let files = ["kubernetes/fhirtail.yaml", "kubernetes/ingress.yaml"];
    let paths = files.map(|file| docker(file).display().to_string());
    run("python3", &["-c", SCRIPT, &paths[0], &paths[1]], &docker(""));

    let all = yaml(files[0]);
    let of = |kind: &str| all.iter().find(|one| one["kind"] == kind).expect(kind);
    let deployment = of("Deployment");
    let pod = &deployment["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&of("Service")["spec"]["selector"], labels);
    assert_eq!(&of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], labels);
    let scaled = &of("HorizontalPodAutoscaler")["spec"];
    assert_eq!(scaled["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
    let adapter = one("kubernetes/helm/adapter-values.yaml");
    let metric = &scaled["metrics"][0]["pods"]["metric"]["name"];
    assert_eq!(metric, &adapter["rules"]["custom"][0]["name"]["as"]);

    // Whoever is asked to go has the time that it takes: the pause, the drain, and some for the last.
    let container = &pod["spec"]["containers"][0];
    let pause = &container["lifecycle"]["preStop"]["exec"]["command"][1];
    let environment = container["env"].as_array().expect("variables");
    let drain = environment.iter().find(|one| one["name"] == "FHIRTAIL_DRAIN").expect("a drain");
    let seconds = |value: &Value| value.as_str().expect("text").parse::<u64>().expect("a number");
    let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().expect("a number");
    assert!(grace >= seconds(pause) + seconds(&drain["value"]) + 10);
    let ingress = one(files[1]);
    let paths = ingress["spec"]["rules"][0]["http"]["paths"].as_array().expect("paths");
    for path in paths {
        assert_eq!(path["backend"]["service"]["name"], of("Service")["metadata"]["name"]);
        let path = path["path"].as_str().expect("text");
        assert!(!["/metrics", "/streams", "/readyz"].contains(&path), "{path} is for operators");
    }
}

/// How much a service could do that it need not: systemd's own judgement, of 100 at worst.
#[test]
fn the_unit_is_hardened() {
    let unit = docker("systemd/fhirtail.service").display().to_string();
    let arguments = ["security", "--offline=true", "--threshold=20", "--no-pager", &unit];
    run("systemd-analyze", &arguments, &docker(""));
}
