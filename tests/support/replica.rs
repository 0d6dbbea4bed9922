//! What a client makes of a stream: a copy of the database, built from its events alone.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use fhirtail::{
    client::sse::Event,
    fhir::ResourceType,
    store::{Scan, Store, StoreError},
};

use super::stream::PATIENCE;

/// A copy: `Type/id` → JSON text.
pub type Copy = BTreeMap<String, String>;

/// A client's copy, and a watch over what it is sent.
#[derive(Debug, Default)]
pub struct Replica {
    pub copy: Copy,
    pub caught_up: bool,
    pub resets: usize,
    /// What was before a change may not be known.
    is_unsure: bool,
    versions: HashSet<String>,
}

impl Replica {
    /// One that may hear that goes what it never had.
    pub fn unsure() -> Self {
        Self { is_unsure: true, ..Self::default() }
    }

    /// Takes an event as a client would.
    ///
    /// # Panics
    /// A version of a resource comes twice between two resets, a deletion of what
    /// it does not hold comes, or an event is not of this protocol.
    pub fn take(&mut self, event: &Event) {
        match event.event.as_str() {
            "caught-up" => self.caught_up = true,
            "fell-behind" => self.caught_up = false,
            "reset" => {
                let (resets, is_unsure) = (self.resets + 1, self.is_unsure);
                *self = Self { resets, is_unsure, ..Self::default() };
            }
            "deleted" => {
                let bundle: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                let url = bundle["entry"][0]["request"]["url"].as_str().expect("a url");
                let had = self.copy.remove(url).is_some();
                assert!(had || self.is_unsure, "{url} goes, and was not there");
            }
            name => {
                assert!(ResourceType::parse(name).is_some(), "no event of ours: {event:?}");
                let (url, _) = identity(&event.data);
                assert!(url.starts_with(name), "{event:?}");
                // Not every writer counts versions; each write of a test has a text of its own.
                let first = self.versions.insert(event.data.clone());
                assert!(first, "{url} came twice as {}", event.data);
                self.copy.insert(url, event.data.clone());
            }
        }
    }
}

/// `Type/id` and `meta.versionId` of a resource's text.
pub fn identity(json: &str) -> (String, Option<String>) {
    let resource: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let ty = text(&resource["resourceType"]).expect("a type");
    let id = text(&resource["id"]).expect("an id");
    (format!("{ty}/{id}"), text(&resource["meta"]["versionId"]))
}

/// All that a store holds of some types, by snapshots of its own: of a store at rest, where one expires.
pub async fn contents(store: &dyn Store, types: &[&str]) -> Copy {
    let mut copy = Copy::new();
    for name in types {
        let mut scan = Scan::of(ResourceType::parse(name).expect("a type"));
        let began = Instant::now();
        while !read_on(store, &mut scan, &mut copy).await {
            assert!(began.elapsed() < PATIENCE, "snapshots expire, one after the other");
        }
    }
    copy
}

/// Reads on in a snapshot. `false`: it expires, and the scan stands where another is to go on.
async fn read_on(store: &dyn Store, scan: &mut Scan, copy: &mut Copy) -> bool {
    let snapshot = store.snapshot().await.expect("a snapshot");
    let mut batches = snapshot.scan(scan.clone());
    while let Some(batch) = batches.recv().await {
        if matches!(batch, Err(StoreError::SnapshotExpired)) {
            return false;
        }
        for scanned in batch.expect("a batch").resources() {
            let json = String::from_utf8(scanned.json.to_vec()).expect("UTF-8");
            let twice = copy.insert(identity(&json).0, json);
            assert_eq!(twice, None, "a scan gave one resource twice");
            scan.after = Some(scanned.key);
        }
    }
    true
}

/// What the lines of an NDJSON export make, in their order: a resource replaces, the Bundle of a
/// deletion removes. Blank lines say nothing.
///
/// # Errors
/// A line is neither.
pub fn folded(lines: &str) -> Result<Copy, String> {
    let mut copy = Copy::new();
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let said: serde_json::Value =
            serde_json::from_str(line).map_err(|error| format!("{error}: {line:.200}"))?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        match (text(&said["resourceType"]), text(&said["id"])) {
            (Some(ty), Some(id)) => drop(copy.insert(format!("{ty}/{id}"), line.to_owned())),
            (Some(ty), None) if ty == "Bundle" => {
                let url = text(&said["entry"][0]["request"]["url"]);
                copy.remove(&url.ok_or_else(|| format!("a Bundle of no deletion: {line:.200}"))?);
            }
            _ => return Err(format!("no resource: {line:.200}")),
        }
    }
    Ok(copy)
}
