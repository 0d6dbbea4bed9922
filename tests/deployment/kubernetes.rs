//! The manifests: Kubernetes' own schemas, and that they fit each other and the server.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::{LAST_WORDS, docker, one, run, yaml};

const MAIN: &str = "kubernetes/fhirtail.yaml";
const INGRESS: &str = "kubernetes/ingress/ingress.yaml";

/// The files of a folder below `docker/`, and whether to look below it too.
fn manifests(folder: &str, below: bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(docker(folder)).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        let name = format!("{folder}/{}", path.file_name().expect("a name").display());
        match path.is_dir() {
            // Values of a chart are no manifest.
            true if below && !name.ends_with("/helm") => found.extend(manifests(&name, below)),
            true => {}
            false => found.push(name),
        }
    }
    found
}

fn of_kind(kind: &str) -> Value {
    let found = yaml(MAIN).into_iter().find(|one| one["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

fn container() -> Value {
    of_kind("Deployment")["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn the_manifests_fit_their_schemas_and_each_other() {
    const SCRIPT: &str = "
import sys, yaml, kubernetes_validate as check
for path in sys.argv[1:]:
    for document in yaml.safe_load_all(open(path)):
        check.validate(document, '1.31', strict=True)";
    let files = manifests("kubernetes", true);
    assert!([MAIN, INGRESS].iter().all(|one| files.iter().any(|file| file == one)), "{files:?}");
    let paths: Vec<_> = files.iter().map(|file| docker(file).display().to_string()).collect();
    let arguments: Vec<_> = ["-c", SCRIPT].into_iter().chain(paths.iter().map(|p| &**p)).collect();
    run("python3", &arguments, &docker(""));

    let deployment = of_kind("Deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&of_kind("Service")["spec"]["selector"], labels);
    assert_eq!(&of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], labels);
    let scaled = &of_kind("HorizontalPodAutoscaler")["spec"];
    assert_eq!(scaled["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
    let adapter = one("kubernetes/helm/adapter-values.yaml");
    let metric = &scaled["metrics"][0]["pods"]["metric"]["name"];
    assert_eq!(metric, &adapter["rules"]["custom"][0]["name"]["as"]);
}

/// Whoever is asked to go has the time that it takes: the pause, the drain, and the end.
#[test]
fn a_pod_has_time_to_end() {
    let container = container();
    let pause = &container["lifecycle"]["preStop"]["exec"]["command"][1];
    let environment = container["env"].as_array().expect("variables");
    let drain = environment.iter().find(|one| one["name"] == "FHIRTAIL_DRAIN").expect("a drain");
    let seconds = |value: &Value| value.as_str().expect("text").parse::<u64>().expect("a number");
    let pod = &of_kind("Deployment")["spec"]["template"]["spec"];
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
    assert!(grace >= seconds(pause) + seconds(&drain["value"]) + LAST_WORDS);
}

/// Clients are sent to every replica that lives, whatever its store does: where none is ready, what
/// stands in front answers by itself, and ends their `EventSource`s. A new one has read the log first.
#[test]
fn ready_does_not_depend_on_the_store() {
    let container = container();
    let path = |probe: &str| container[probe]["httpGet"]["path"].clone();
    assert_eq!(path("readinessProbe"), "/livez");
    assert_eq!(path("livenessProbe"), "/livez");
    assert_eq!(path("startupProbe"), "/readyz");
}

/// Nothing is open to everybody: not by what the README says to apply, and not by what lies below it.
#[test]
fn no_ingress_asks_nobody() {
    const ASK: [&str; 2] = ["auth-url", "whitelist-source-range"];
    let ingresses = |files: Vec<String>| -> Vec<Value> {
        let all = files.iter().flat_map(|file| yaml(file));
        all.filter(|one| one["kind"] == "Ingress").collect()
    };
    assert_eq!(ingresses(manifests("kubernetes", false)), [Value::Null; 0], "to be decided first");
    let all = ingresses(manifests("kubernetes", true));
    assert!(!all.is_empty());
    for ingress in all {
        let notes = &ingress["metadata"]["annotations"];
        let note = |name: &str| &notes[format!("nginx.ingress.kubernetes.io/{name}")];
        let asks = ASK.iter().any(|name| note(name).as_str().is_some_and(|told| !told.is_empty()));
        assert!(asks, "who comes is asked nothing: {notes}");
        // Its log has whole paths and queries.
        assert_eq!(note("enable-access-log"), &json!("false"));
    }
    let service = of_kind("Service");
    assert!([&Value::Null, &json!("ClusterIP")].contains(&&service["spec"]["type"]), "{service}");
}

#[test]
fn operators_keep_theirs() {
    let ingress = one(INGRESS);
    let paths = ingress["spec"]["rules"][0]["http"]["paths"].as_array().expect("paths").clone();
    for path in paths {
        assert_eq!(path["backend"]["service"]["name"], of_kind("Service")["metadata"]["name"]);
        let path = path["path"].as_str().expect("text");
        assert!(!["/metrics", "/streams", "/readyz"].contains(&path), "{path} is for operators");
    }
}
