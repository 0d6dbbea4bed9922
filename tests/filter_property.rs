//! Random queries over random changes: what a client of a filtered stream holds in the end is what
//! the same search finds then. `FHIRTAIL_FILTER_SEED` runs one seed again.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

use std::{fmt::Write, sync::Arc, time::Duration};

use fhirtail::{
    client::sse::Event,
    store::{Store, embedded::EmbeddedOptions},
};
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use support::{
    App, Bench,
    chaos::{Dice, stamp},
    client,
    replica::{Copy, Replica, identity},
    stream::{EventStream, PATIENCE},
    writes::{commit, delete, put},
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

const PATIENTS: usize = 6;
const OBSERVATIONS: usize = 40;
const STATUS: [&str; 3] = ["final", "preliminary", "amended"];
const CODES: [&str; 3] = ["a", "b", "c"];
const GENDERS: [&str; 2] = ["female", "male"];

fn pick<'a>(dice: &mut Dice, of: &[&'a str]) -> &'a str {
    of[dice.below(of.len())]
}

fn patient(dice: &mut Dice, id: &str) -> Value {
    let mut patient = json!({
        "resourceType": "Patient", "id": id, "name": [{"family": stamp()}],
        "gender": pick(dice, &GENDERS),
    });
    if dice.roll(3) > 0 {
        patient["birthDate"] = json!(format!("{}-01-01", 1960 + dice.roll(40)));
    }
    if dice.roll(2) > 0 {
        patient["active"] = json!(dice.roll(2) > 0);
    }
    patient
}

fn observation(dice: &mut Dice, id: &str) -> Value {
    let mut observation = json!({
        "resourceType": "Observation", "id": id, "status": pick(dice, &STATUS),
        "code": {"coding": [{"system": "urn:s", "code": pick(dice, &CODES)}]},
        "note": [{"text": stamp()}],
        "valueQuantity": {"value": dice.roll(10), "unit": "kg"},
    });
    if dice.roll(5) > 0 {
        let subject = format!("Patient/p{}", dice.below(PATIENTS));
        observation["subject"] = json!({"reference": subject});
    }
    if dice.roll(3) > 0 {
        observation["effectiveDateTime"] = json!(format!("202{}-06", dice.roll(5)));
    }
    observation
}

/// Writes through the store, singly and in transactions; every sixth write is a deletion.
async fn write(store: Arc<dyn Store>, seed: u64, commits: usize) {
    let mut dice = Dice(seed);
    for _ in 0..commits {
        let mut writes = Vec::new();
        for _ in 0..[1, 1, 4][dice.below(3)] {
            let is_patient = dice.roll(5) == 0;
            let (name, id) = match is_patient {
                true => ("Patient", format!("p{}", dice.below(PATIENTS))),
                false => ("Observation", format!("o{}", dice.below(OBSERVATIONS))),
            };
            let next = match (dice.roll(6), is_patient) {
                (0, _) => delete(name, &id),
                (_, true) => put(&patient(&mut dice, &id)),
                (_, false) => put(&observation(&mut dice, &id)),
            };
            if writes.iter().all(|other: &fhirtail::store::Write| other.id != next.id) {
                writes.push(next);
            }
        }
        commit(&*store, writes).await;
    }
}

/// Writes in place, as a program does that knows nothing of this server.
async fn write_in_place(uri: String, seed: u64, count: usize) {
    let client = mongodb::Client::with_uri_str(&uri).await.expect("a client");
    let database = client.default_database().expect("a database");
    let observations = database.collection::<Document>("Observation");
    let mut dice = Dice(seed);
    for _ in 0..count {
        let this = doc! {"_id": format!("o{}", dice.below(OBSERVATIONS))};
        if dice.roll(5) == 0 {
            // A conflict with a transaction is no matter here: there are other writes.
            drop(observations.delete_one(this).await);
        } else {
            let set = doc! {"status": pick(&mut dice, &STATUS), "note": [{"text": stamp()}]};
            drop(observations.update_one(this, doc! {"$set": set}).await);
        }
    }
}

/// One condition on Observations.
fn of_observations(dice: &mut Dice) -> String {
    match dice.roll(10) {
        0 => format!("status={}", pick(dice, &STATUS)),
        1 => format!("status={},{}", pick(dice, &STATUS), pick(dice, &STATUS)),
        2 => format!("status:not={}", pick(dice, &STATUS)),
        3 => format!("code=urn:s|{}", pick(dice, &CODES)),
        4 => format!("value-quantity={}{}", pick(dice, &["gt", "lt", "ne"]), dice.roll(10)),
        5 => format!("subject=Patient/p{}", dice.below(PATIENTS)),
        6 => format!("patient=p{},p{}", dice.below(PATIENTS), dice.below(PATIENTS)),
        7 => format!("date={}202{}", pick(dice, &["ge", "lt", ""]), dice.roll(5)),
        8 => format!("subject:missing={}", dice.roll(2) > 0),
        _ => format!("_id=o{},o{}", dice.below(OBSERVATIONS), dice.below(OBSERVATIONS)),
    }
}

fn of_patients(dice: &mut Dice) -> String {
    match dice.roll(4) {
        0 => format!("gender={}", pick(dice, &GENDERS)),
        1 => format!("active={}", dice.roll(2) > 0),
        2 => format!("birthdate={}19{}", pick(dice, &["ge", "lt"]), 60 + dice.roll(40)),
        _ => "birthdate:missing=true".into(),
    }
}

/// What a stream is asked for.
#[derive(Debug, Clone)]
struct Query {
    /// For each type the searches of which one is to find; none: all are found.
    searches: [(&'static str, Vec<String>); 2],
    /// Only what lies in compartments: of these patients, or of any if there are none.
    patients: Option<Vec<String>>,
    elements: Option<&'static str>,
}

impl Query {
    fn drawn(dice: &mut Dice, with_compartments: bool) -> Self {
        let mut search = |name, of: fn(&mut Dice) -> String| {
            let count = dice.below(3);
            let mut one = || (0..=dice.below(2)).map(|_| of(dice)).collect::<Vec<_>>().join("&");
            (name, (0..count).map(|_| one()).collect())
        };
        let searches = [search("Observation", of_observations), search("Patient", of_patients)];
        let patients = (with_compartments && dice.roll(2) > 0)
            .then(|| (0..dice.below(4)).map(|_| format!("p{}", dice.below(PATIENTS))).collect());
        let elements = [None, None, Some("subject,note"), Some("Patient.gender,Observation.note")];
        Self { searches, patients, elements: elements[dice.below(4)] }
    }

    /// As the URL of an export.
    fn path(&self) -> String {
        let level = if self.patients.is_some() { "/Patient" } else { "" };
        let mut path = format!("/fhir{level}/$export?_type=Observation,Patient");
        for (name, searches) in &self.searches {
            for search in searches {
                write!(path, "&_typeFilter={name}{}", encoded(&format!("?{search}")))
                    .expect("text");
            }
        }
        for id in self.patients.iter().flatten() {
            write!(path, "&patient=Patient/{id}").expect("text");
        }
        if let Some(elements) = self.elements {
            write!(path, "&_elements={elements}").expect("text");
        }
        path
    }

    /// What plain searches find of it now.
    async fn found(&self, app: &App) -> Copy {
        let mut copy = Copy::new();
        for (name, searches) in &self.searches {
            let own = |list: &str| {
                let names = list.split(',').filter_map(|n| match n.split_once('.') {
                    None => Some(n.to_owned()),
                    Some((ty, n)) => (ty == *name).then(|| n.to_owned()),
                });
                format!("&_elements={}", names.collect::<Vec<_>>().join(","))
            };
            let elements = self.elements.map(own).unwrap_or_default();
            let all = [String::new()];
            for search in if searches.is_empty() { &all[..] } else { searches } {
                // Whose a resource is, is judged by all of it.
                let mut whole = self.lines(app, &format!("/fhir/{name}?{search}")).await;
                whole.retain(|line| self.is_theirs(line));
                let given = self.lines(app, &format!("/fhir/{name}?{search}{elements}")).await;
                let theirs = |line: &String| {
                    let url = identity(line).0;
                    whole.iter().any(|whole| identity(whole).0 == url)
                };
                copy.extend(given.into_iter().filter(theirs).map(|line| (identity(&line).0, line)));
            }
        }
        copy
    }

    async fn lines(&self, app: &App, path: &str) -> Vec<String> {
        let request = client().get(app.url(path)).header("accept", "application/fhir+ndjson");
        let request = request.header("prefer", "handling=lenient");
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        response.text().await.expect("lines").lines().map(str::to_owned).collect()
    }

    fn is_theirs(&self, line: &str) -> bool {
        let Some(patients) = &self.patients else { return true };
        let resource: Value = serde_json::from_str(line).expect("JSON");
        let whose = match resource["resourceType"].as_str() {
            Some("Patient") => resource["id"].as_str(),
            _ => resource["subject"]["reference"].as_str().and_then(|r| r.strip_prefix("Patient/")),
        };
        whose.is_some_and(|id| patients.is_empty() || patients.iter().any(|named| named == id))
    }
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A client: its copy, and how far it has come.
struct Reader {
    url: String,
    stream: EventStream,
    replica: Replica,
    id: Option<String>,
}

impl Reader {
    async fn open(url: String, replica: Replica) -> Self {
        let stream = lenient(&url, None).await;
        Self { url, stream, replica, id: None }
    }

    fn take(&mut self, event: &Event) {
        self.replica.take(event);
        self.id = Some(event.id.clone()).filter(|id| !id.is_empty());
    }

    /// What is still on its way is lost with the connection.
    async fn cut(&mut self) {
        self.stream = lenient(&self.url, self.id.as_deref()).await;
        self.replica.caught_up = false;
    }

    /// Reads until all is written, and is cut after each so many events.
    async fn until_written(&mut self, every: usize, written: &CancellationToken) {
        for count in 1.. {
            let event = tokio::select! {
                event = self.stream.event() => event.expect("the stream goes on"),
                () = written.cancelled() => return,
            };
            self.take(&event);
            if count % every == 0 {
                self.cut().await;
            }
        }
    }
}

/// A client that is cut now and then: it is level once it hears so on a connection of after the
/// last write.
async fn restless(url: String, replica: Replica, every: usize, written: CancellationToken) -> Copy {
    let mut reader = Reader::open(url, replica).await;
    reader.until_written(every, &written).await;
    reader.cut().await;
    while !reader.replica.caught_up {
        let event = reader.stream.event().await.expect("the stream goes on");
        reader.take(&event);
    }
    reader.replica.copy
}

/// A client that is never cut: its copy comes to be what is found.
async fn steady(
    url: String,
    replica: Replica,
    written: CancellationToken,
    expected: Expected,
) -> Copy {
    let mut reader = Reader::open(url, replica).await;
    reader.until_written(usize::MAX, &written).await;
    let expected = expected.await.expect("what is found");
    let arrives = async {
        while reader.replica.copy != expected {
            let event = reader.stream.event().await.expect("the stream goes on");
            reader.take(&event);
        }
    };
    drop(timeout(PATIENCE / 4, arrives).await);
    reader.replica.copy
}

type Expected = tokio::sync::oneshot::Receiver<Copy>;

/// Patients may be asked for who are not there yet.
async fn lenient(url: &str, id: Option<&str>) -> EventStream {
    let request = client().get(url).header("accept", "text/event-stream");
    let request = request.header("prefer", "handling=lenient");
    let request = request.header("last-event-id", id.unwrap_or_default());
    let response = timeout(PATIENCE, request.send()).await.expect("in time").expect("an answer");
    assert_eq!(response.status(), 200, "{url}: {:?}", response.text().await);
    EventStream::of(response)
}

/// Writers, and clients of random queries: each holds in the end what is found.
async fn holds(
    bench: &Bench,
    seed: u64,
    arguments: &[&str],
    with_compartments: bool,
    foreign: Option<String>,
) {
    const STREAMS: usize = 8;
    let mut dice = Dice(seed);
    write(bench.store.clone(), seed, 40).await;
    let app = App::with(bench.store.clone(), arguments).await;
    let written = CancellationToken::new();
    let mut clients = Vec::new();
    for number in 0..STREAMS {
        let query = Query::drawn(&mut dice, with_compartments);
        let (tell, expected) = tokio::sync::oneshot::channel();
        let (url, written) = (app.url(&query.path()), written.clone());
        // What compartments can be followed by tells what was in a filter too.
        let replica = if with_compartments { Replica::default() } else { Replica::unsure() };
        let client: JoinHandle<Copy> = match number % 2 {
            0 => tokio::spawn(steady(url, replica, written, expected)),
            _ => tokio::spawn(restless(url, replica, 1 + dice.below(25), written)),
        };
        clients.push((query, tell, client));
    }
    let mut writers: Vec<_> =
        (1..3).map(|n| tokio::spawn(write(bench.store.clone(), seed + n * 1_000, 60))).collect();
    if let Some(uri) = foreign {
        writers.push(tokio::spawn(write_in_place(uri, seed + 9_000, 120)));
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    let mut expectations = Vec::new();
    for (query, tell, client) in clients {
        let expected = query.found(&app).await;
        // The restless do not wait for it.
        drop(tell.send(expected.clone()));
        expectations.push((query, expected, client));
    }
    written.cancel();
    for (query, expected, client) in expectations {
        let copy = timeout(2 * PATIENCE, client).await.expect("it comes to rest");
        let copy = copy.unwrap_or_else(|broken| panic!("seed {seed}: {query:?}: {broken}"));
        let urls = |copy: &Copy| copy.keys().cloned().collect::<Vec<_>>();
        assert_eq!(urls(&copy), urls(&expected), "seed {seed}: {}", query.path());
        assert!(copy == expected, "seed {seed}: {}: {copy:?} {expected:?}", query.path());
        let lines = query.lines(&app, &query.path()).await;
        let lines: Copy = lines.into_iter().map(|line| (identity(&line).0, line)).collect();
        assert!(lines == expected, "seed {seed}: as lines, {}", query.path());
    }
}

fn seeds(first: u64, count: u64) -> Vec<u64> {
    match std::env::var("FHIRTAIL_FILTER_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (first..first + count).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    for seed in seeds(1, 8) {
        holds(&support::embedded(), seed, &[], true, None).await;
    }
}

/// Nobody finds anything in the ring, and histories go on in newer snapshots.
#[tokio::test(flavor = "multi_thread")]
async fn embedded_behind_the_ring() {
    for seed in seeds(101, 6) {
        let life = Duration::from_millis(20);
        let options = EmbeddedOptions { snapshot_life: life, ..EmbeddedOptions::default() };
        let bench = support::embedded_with(options);
        holds(&bench, seed, &["--ring-bytes", "4000"], true, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb() {
    for seed in seeds(201, 4) {
        let Some(bench) = support::mongo().await else { return };
        let foreign = Some(bench.name.clone());
        holds(&bench, seed, &[], true, foreign).await;
    }
}

/// Without pre-images compartments can't be followed, and what leaves a search's result is told
/// whether or not it was in it.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb_without_images() {
    for seed in seeds(301, 4) {
        let Some(bench) = support::mongo().await else { return };
        let client = mongodb::Client::with_uri_str(&bench.name).await.expect("a client");
        let database = client.default_database().expect("a database");
        for name in ["Observation", "Patient"] {
            database.create_collection(name).await.expect("a collection");
        }
        let foreign = Some(bench.name.clone());
        holds(&bench, seed, &["--ring-bytes", "20000"], false, foreign).await;
    }
}
