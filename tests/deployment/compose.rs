//! The compose file: the Compose Specification's schema, and that what it names is there.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{LAST_WORDS, board, docker, one, run, text};

const FILE: &str = "compose.yaml";

/// What the Compose Specification's schema finds wrong with each of these files.
fn complaints(files: &[&Path]) -> Vec<Vec<String>> {
    const SCRIPT: &str = "
import json, sys, yaml
from jsonschema import Draft7Validator
schema = Draft7Validator(json.load(open(sys.argv[1])))
told = lambda error: f'{error.json_path}: {error.message}'
print(json.dumps([[told(e) for e in schema.iter_errors(yaml.safe_load(open(path)))] for path in sys.argv[2:]]))";
    // What tests/run fetched.
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/compose-spec/package/schemas/compose.schema.json");
    let schema = std::env::var_os("FHIRTAIL_COMPOSE_SCHEMA").map_or(fetched, PathBuf::from);
    let paths: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let mut arguments = vec!["-c", SCRIPT, schema.to_str().expect("a path")];
    arguments.extend(paths.iter().map(String::as_str));
    let out = run("python3", &arguments, &docker(""));
    serde_json::from_str(&out).expect("JSON")
}

#[test]
fn compose_fits_its_schema() {
    let file = docker(FILE);
    assert_eq!(complaints(&[&file]), [[""; 0]]);
    // It would see what people misspell.
    let (scratch, right) = (tempfile::tempdir().expect("a folder"), text(FILE));
    let planted = [
        ("service_completed_successfully", "service_completed_sucessfully"),
        ("    retries: 12", "    retrys: 12"),
        ("    interval: 5s", "    interval: 5"),
        ("    nofile: {soft: 65536, hard: 65536}\n  restart", "    nofile: [65536]\n  restart"),
        ("cap_drop: [ALL]", "cap_drop: ALL"),
        ("stop_grace_period: 30s", "stop_grace_periode: 30s"),
        ("ipv4_address: 172.31.208.11", "ip4_address: 172.31.208.11"),
        ("volumes:\n  mongo1:", "volume:\n  mongo1:"),
    ];
    let files: Vec<_> = planted
        .iter()
        .enumerate()
        .map(|(at, (old, new))| {
            assert_eq!(right.matches(old).count(), 1, "{old}");
            let file = scratch.path().join(format!("{at}.yaml"));
            fs::write(&file, right.replace(old, new)).expect("written");
            file
        })
        .collect();
    let found = complaints(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    for ((_, planted), found) in planted.iter().zip(found) {
        assert!(!found.is_empty(), "{planted}");
    }
}

#[test]
fn what_compose_names_is_there() {
    let compose = one(FILE);
    let services = compose["services"].as_object().expect("services");
    let mut ports = BTreeSet::new();
    for (name, service) in services {
        assert!(service["image"].is_string(), "{name}");
        const RESTARTS: [&str; 4] = ["no", "always", "on-failure", "unless-stopped"];
        assert!(RESTARTS.iter().any(|known| service["restart"] == *known), "{name}");
        // To the schema a duration is any text.
        let health = &service["healthcheck"];
        let durations = [&health["interval"], &health["timeout"], &service["stop_grace_period"]];
        durations.into_iter().filter(|told| !told.is_null()).for_each(|told| {
            seconds(told);
        });
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
    assert_eq!(targets, &json!(replicas));
    let source = one("grafana/provisioning/datasources/prometheus.yml")["datasources"][0].clone();
    assert_eq!(source["uid"], board()["panels"][1]["datasource"]["uid"]);
    let home = one("grafana/provisioning/dashboards/fhirtail.yml");
    let path = home["providers"][0]["options"]["path"].as_str().expect("a path");
    let mounted = services["grafana"]["volumes"][1].as_str().expect("text");
    assert!(mounted.contains(&format!(":{path}:")), "{mounted}");
}

/// A duration, as ours are said.
fn seconds(told: &Value) -> u64 {
    let number = told.as_str().and_then(|told| told.strip_suffix('s'));
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("seconds? {told}"))
}

/// A replica that is made anew is where it was: nginx looks names up once. And it has time to end.
#[test]
fn a_replica_stays_where_it_is_and_may_end() {
    let compose = one(FILE);
    let subnet = &compose["networks"]["default"]["ipam"]["config"][0];
    let range = |key: &str| {
        let told = subnet[key].as_str().unwrap_or_else(|| panic!("no {key}"));
        let (address, bits) = told.split_once('/').expect("a range");
        let address: Ipv4Addr = address.parse().expect("an address");
        (address.to_bits(), 32 - bits.parse::<u32>().expect("bits"))
    };
    let within = |address: u32, (start, free): (u32, u32)| address >> free == start >> free;
    let gateway: Ipv4Addr = subnet["gateway"].as_str().expect("text").parse().expect("one");
    let mut taken = BTreeSet::from([gateway.to_bits()]);
    for name in ["fhirtail-a", "fhirtail-b"] {
        let service = &compose["services"][name];
        let told = service["networks"]["default"]["ipv4_address"].as_str();
        let address: Ipv4Addr = told.expect("a fixed address").parse().expect("an address");
        let address = address.to_bits();
        assert!(within(address, range("subnet")), "{told:?}");
        assert!(!within(address, range("ip_range")), "{told:?} may be given to another");
        assert!(taken.insert(address), "{told:?} twice");
        let drain = service["environment"]["FHIRTAIL_DRAIN"].as_str().expect("text");
        let drain: u64 = drain.parse().expect("seconds");
        assert!(seconds(&service["stop_grace_period"]) > drain + LAST_WORDS, "{name}");
    }
}
