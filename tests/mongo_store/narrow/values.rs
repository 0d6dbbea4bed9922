//! Documents that hold values of all types of BSON, in all shapes.

use std::collections::BTreeSet;

use mongodb::bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc,
    oid::ObjectId, spec::BinarySubtype,
};

/// A value of each type of BSON, and some texts that look like those of others.
fn values() -> Vec<Bson> {
    let binary = |bytes: &[u8]| Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() };
    let regex = Regex {
        pattern: "Patient\\/1".to_owned().try_into().expect("no zero"),
        options: String::new().try_into().expect("no zero"),
    };
    let scope = JavaScriptCodeWithScope { code: "f()".into(), scope: doc! {} };
    let texts = [
        "Patient/1",
        "Patient/1/_history/2",
        "Patient/12",
        "http://here/fhir/Patient/1",
        "http://here/fhir/Patient/1/_history/3",
        "http://there/fhir/Patient/1",
        "Group/1",
        "1",
        "http://x/P",
        "http://x/P|2",
        "http://x/Pa",
        "male",
        "Male",
        "true",
        "",
        "ü",
        "0123456789abcdef01234567",
        "2024-01-02T03:04:05.678Z",
        "2024-01-02",
        "2023",
        "2024-01-02T03:04:05.6789+01:00",
        "MinKey",
        "TUFMRQ==",
    ];
    let mut all: Vec<Bson> = texts.into_iter().map(Bson::from).collect();
    all.extend([
        Bson::Symbol("Patient/1".into()),
        Bson::JavaScriptCode("Patient/1".into()),
        Bson::JavaScriptCodeWithScope(scope),
        Bson::RegularExpression(regex),
        ObjectId::parse_str("0123456789abcdef01234567").expect("an id").into(),
        DateTime::from_millis(1_704_164_645_678).into(),
        DateTime::from_millis(1_700_000_000_000).into(),
        Timestamp { time: 1_704_164_645, increment: 7 }.into(),
        binary(b"MALE").into(),
        // Its base64 is `male`.
        binary(&[0x99, 0xa9, 0x5e]).into(),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        Bson::Undefined,
        1.into(),
        1_i64.into(),
        1.0.into(),
        true.into(),
        false.into(),
        "1".parse::<Decimal128>().expect("a number").into(),
        doc! {}.into(),
        doc! {"reference": "Patient/1"}.into(),
    ]);
    all
}

/// Ways to put a value at the end of a path: bare, in arrays, in arrays of arrays.
fn shapes(path: &[&str], value: &Bson) -> Vec<Bson> {
    let array = |value: Bson| Bson::Array(vec![value]);
    let ways = |value: Bson| {
        let beside = Bson::Array(vec![7.into(), Bson::Null, value.clone(), "other".into()]);
        [value.clone(), array(value.clone()), array(array(value)), beside]
    };
    let Some((name, rest)) = path.split_first() else { return ways(value.clone()).to_vec() };
    let below = shapes(rest, value);
    let below = below.into_iter().map(|value| Bson::Document(doc! {*name: value}));
    if path.len() > 2 {
        return below.collect();
    }
    below.flat_map(|value| ways(value).into_iter().take(3)).collect()
}

pub(super) fn documents(path: &[&str]) -> Vec<Document> {
    let whole = |value: &Bson| {
        let (first, rest) = path.split_first().expect("a path");
        shapes(rest, value).into_iter().map(|value| doc! {*first: value}).collect::<Vec<_>>()
    };
    let mut all: Vec<Document> = values().iter().flat_map(whole).collect();
    all.extend([doc! {path.join("."): "Patient/1"}, doc! {}, doc! {path[0]: []}]);
    let oid = |n: usize| ObjectId::from_bytes([n as u8; 12]);
    for (n, document) in all.iter_mut().enumerate() {
        let id = if n % 7 == 3 { Bson::ObjectId(oid(n)) } else { format!("d{n:05}").into() };
        document.insert("_id", id);
    }
    all.extend([doc! {"_id": 7, path[0]: "male"}]);
    // Keys that are there twice were for ObjectIds of one byte.
    let mut seen = BTreeSet::new();
    all.retain(|document| seen.insert(document.get("_id").map(Bson::to_string)));
    all
}
