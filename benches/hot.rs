//! The hot pure parts: BSON to JSON, frames, the filter's verdict, positions.
//!
//! `cargo bench --bench hot`; add `--profile profiling` for one that is built sooner.
#![allow(missing_docs, clippy::expect_used, reason = "a benchmark that meets the unexpected fails")]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fhirtail::{
    fhir::ResourceType,
    filter::Filter,
    frame::Format,
    live::Entry,
    plan::{Grant, Members, Plan, Scope},
    position::{Epoch, LogPosition, Position, ScanPosition, Stem, write_key},
    store::{Before, Change, ChangeKind, DocId, ScanKey, Window, mongo},
};
use mongodb::bson::{Bson, DateTime, Decimal128, Document, doc};

const ID: &str = "6d7b4a60-0c68-4a8f-9f0e-3d1c2f5b8a11";
const PATIENT: &str = "1f0e9c52-7d4b-4e3a-8a55-0b9d5e6f7a10";

fn observation() -> ResourceType {
    ResourceType::parse("Observation").expect("a type")
}

fn decimal(text: &str) -> Decimal128 {
    text.parse().expect("a decimal")
}

/// About a kilobyte, as laboratories write it.
fn typical() -> Document {
    let category = "http://terminology.hl7.org/CodeSystem/observation-category";
    let quantity = |value: &str| {
        doc! {
            "value": decimal(value), "unit": "kg",
            "system": "http://unitsofmeasure.org", "code": "kg",
        }
    };
    doc! {
        "_id": ID,
        "resourceType": "Observation",
        "meta": {"versionId": "1", "lastUpdated": DateTime::from_millis(1_700_000_000_123)},
        "identifier": [{"system": "https://example.org/observations", "value": PATIENT}],
        "status": "final",
        "category": [{"coding": [
            {"system": category, "code": "vital-signs", "display": "Vital Signs"},
        ]}],
        "code": {
            "coding": [
                {"system": "http://loinc.org", "code": "29463-7", "display": "Body Weight"},
            ],
            "text": "Body Weight",
        },
        "subject": {"reference": format!("Patient/{PATIENT}")},
        "encounter": {"reference": format!("Encounter/{ID}")},
        "effectiveDateTime": "2015-03-12T09:17:36+01:00",
        "issued": "2015-03-12T09:17:36.000Z",
        "valueQuantity": quantity("72.50"),
        "referenceRange": [{"low": quantity("50.0"), "high": quantity("90.0")}],
    }
}

/// Sampled data: many decimals, some that take more than 64 bits.
fn decimals() -> Document {
    let components = (0..60).map(|n| {
        let value = match n % 10 {
            0 => decimal("0.1234567890123456789012345678901"),
            _ => decimal(&format!("{n}.{n:03}")),
        };
        Bson::Document(doc! {"valueQuantity": {"value": value}})
    });
    doc! {"_id": ID, "resourceType": "Observation", "component": components.collect::<Vec<_>>()}
}

/// Narrative: nothing but quotes, line breaks and letters beyond ASCII.
fn escapes() -> Document {
    let line = "<p class=\"x\">\n\tGrößenänderung der \"Läsion\" – unverändert\r\n</p>";
    let div = Bson::String(line.repeat(40));
    doc! {"_id": ID, "resourceType": "Observation", "text": {"status": "generated", "div": div}}
}

fn json() -> Bytes {
    let mut out = Vec::new();
    assert!(mongo::encode(&typical().to_vec().expect("BSON"), observation(), &mut out));
    out.into()
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (name, document) in
        [("typical", typical()), ("decimals", decimals()), ("escapes", escapes())]
    {
        let bson = document.to_vec().expect("BSON");
        let mut out = Vec::new();
        assert!(mongo::encode(&bson, observation(), &mut out));
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                out.clear();
                mongo::encode(black_box(&bson), observation(), &mut out)
            });
        });
    }
}

fn frame(criterion: &mut Criterion) {
    let mut line = json().to_vec();
    line.push(b'\n');
    let key = key();
    let opening = Format::opening(observation(), &stem().to_string());
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(line.len() as u64));
    for (name, format) in [("sse", Format::Sse), ("ndjson", Format::Ndjson)] {
        let mut out = BytesMut::with_capacity(4096);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                out.clear();
                let id = |out: &mut BytesMut| write_key(out, black_box(&key).borrowed());
                format.scanned(&mut out, &opening, id, black_box(&line));
            });
        });
    }
}

fn verdict(criterion: &mut Criterion) {
    let kind = ChangeKind::Upsert {
        ty: observation(),
        id: ID.into(),
        doc: DocId::Text(ID.into()),
        updated_ms: Some(1_700_000_000_123),
        json: json(),
        before: Before::Absent,
    };
    let change = Change::new(LogPosition::before(7), jiff::Timestamp::UNIX_EPOCH, kind);
    let members = Members::new(vec![PATIENT.into()]);
    let scopes = [
        ("unrestricted", Scope::System),
        ("patients", Scope::Patients),
        ("group", Scope::Group("g".into())),
    ];
    let mut group = criterion.benchmark_group("verdict");
    for (name, scope) in scopes {
        let members = matches!(scope, Scope::Group(_)).then_some(&members);
        let plan = Plan::new(scope, None, Window::default(), true, Grant::Everything);
        let filter = Filter { plan: &plan, members };
        // A new entry each time: what the first stream pays for all.
        let entry = || Entry::new(change.clone());
        group.bench_function(name, |bench| {
            bench.iter_batched(entry, |entry| filter.verdict(&entry), BatchSize::SmallInput);
        });
    }
}

fn key() -> ScanKey {
    ScanKey::Updated(1_700_000_000_123, DocId::Text(ID.into()))
}

fn stem() -> Stem {
    let log = LogPosition { time: 1_700_000_000 << 32 | 7, consumed: 3 };
    Stem { epoch: Epoch(0x9f3a_1c77), log, members: None, query: 0x1234_5678, type_index: 3 }
}

fn position(criterion: &mut Criterion) {
    let Stem { epoch, log, members, query, type_index } = stem();
    let scan = Some(ScanPosition { query, type_index, key: key() });
    let mut group = criterion.benchmark_group("position");
    for (name, scan) in [("live", None), ("history", scan)] {
        let position = Position { epoch, log, members, scan };
        let text = position.to_string();
        group.bench_function(format!("{name} to text"), |bench| {
            bench.iter(|| black_box(&position).to_string());
        });
        group.bench_function(format!("{name} from text"), |bench| {
            bench.iter(|| black_box(&text).parse::<Position>());
        });
    }
}

criterion_group!(hot, encode, frame, verdict, position);
criterion_main!(hot);
