//! BSON → JSON, against the driver's own reading of the same bytes and an independent reader of
//! the JSON: every value by the rule that `encode.rs` documents for its type.
#![no_main]

use std::collections::HashSet;

use arbitrary::Arbitrary;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, RawBsonRef, RawDocument,
    Regex, Timestamp, oid::ObjectId, spec::BinarySubtype,
};
use fhirtail::{fhir::ResourceType, store::mongo::encode};
use fhirtail_fuzz::json::Json;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Bytes(&'a [u8]),
    Document(Vec<(Name<'a>, Value<'a>)>),
}

#[derive(Debug, Arbitrary)]
enum Name<'a> {
    Known(u8),
    Any(&'a str),
}

#[derive(Debug, Arbitrary)]
enum Value<'a> {
    Null,
    Undefined,
    Bool(bool),
    Int32(i32),
    Int64(i64),
    Double(f64),
    Whole(i16),
    Text(&'a str),
    Symbol(&'a str),
    Code(&'a str),
    CodeWithScope(&'a str, Vec<(Name<'a>, Value<'a>)>),
    Date(i64),
    /// Of the years that an instant can tell.
    Instant(u32, u16),
    Oid([u8; 12]),
    Decimal([u8; 16]),
    /// As most are: few digits.
    Plain(u32, i8),
    Timestamp(u32, u32),
    Bytes(u8, &'a [u8]),
    Regex(&'a str, &'a str),
    Ends(bool),
    Array(Vec<Value<'a>>),
    Document(Vec<(Name<'a>, Value<'a>)>),
}

impl Name<'_> {
    fn text(&self) -> String {
        const KNOWN: [&str; 8] =
            ["_id", "resourceType", "id", "meta", "_lexical", "lastUpdated", "versionId", "value"];
        match self {
            Self::Known(at) => KNOWN[usize::from(*at) % KNOWN.len()].to_owned(),
            Self::Any(text) => (*text).to_owned(),
        }
    }
}

fn document(members: &[(Name<'_>, Value<'_>)]) -> Document {
    members.iter().map(|(name, value)| (name.text(), value.bson())).collect()
}

impl Value<'_> {
    fn bson(&self) -> Bson {
        match self {
            Self::Null => Bson::Null,
            Self::Undefined => Bson::Undefined,
            Self::Bool(value) => Bson::Boolean(*value),
            Self::Int32(value) => Bson::Int32(*value),
            Self::Int64(value) => Bson::Int64(*value),
            Self::Double(value) => Bson::Double(*value),
            Self::Whole(value) => Bson::Double(f64::from(*value)),
            Self::Text(text) => Bson::String((*text).into()),
            Self::Symbol(text) => Bson::Symbol((*text).into()),
            Self::Code(text) => Bson::JavaScriptCode((*text).into()),
            Self::CodeWithScope(text, scope) => {
                let (code, scope) = ((*text).into(), document(scope));
                Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code, scope })
            }
            Self::Date(ms) => Bson::DateTime(DateTime::from_millis(*ms)),
            Self::Instant(s, ms) => {
                let (s, ms) = (i64::from(*s), i64::from(*ms) % 1000);
                Bson::DateTime(DateTime::from_millis(s * 1000 + ms))
            }
            Self::Oid(bytes) => Bson::ObjectId(ObjectId::from_bytes(*bytes)),
            Self::Decimal(bytes) => Bson::Decimal128(Decimal128::from_bytes(*bytes)),
            Self::Plain(digits, exponent) => {
                let text = format!("{digits}E{}", exponent / 8);
                Bson::Decimal128(text.parse().expect("a decimal"))
            }
            Self::Timestamp(time, increment) => {
                Bson::Timestamp(Timestamp { time: *time, increment: *increment })
            }
            Self::Bytes(subtype, bytes) => Bson::Binary(Binary {
                subtype: BinarySubtype::from(*subtype),
                bytes: bytes.to_vec(),
            }),
            Self::Regex(pattern, options) => {
                let text = |text: &str| text.replace('\0', "").try_into().expect("no zero");
                let (pattern, options) = (text(pattern), text(options));
                Bson::RegularExpression(Regex { pattern, options })
            }
            Self::Ends(true) => Bson::MinKey,
            Self::Ends(false) => Bson::MaxKey,
            Self::Array(items) => Bson::Array(items.iter().map(Value::bson).collect()),
            Self::Document(members) => Bson::Document(document(members)),
        }
    }
}

/// The members as the driver reads them, all the way down; `None`: it can't, or a name stands
/// twice, or it nests deeper than the server stores.
fn members(document: &RawDocument, depth: usize) -> Option<Vec<(&str, RawBsonRef<'_>)>> {
    let read: Result<Vec<_>, _> = document.iter().collect();
    let members: Vec<_> = read.ok()?.into_iter().map(|(name, v)| (name.as_str(), v)).collect();
    let names: HashSet<_> = members.iter().map(|(name, _)| name).collect();
    let all_read = members.iter().all(|(_, value)| can_read(value, depth + 1));
    (depth < 200 && names.len() == members.len() && all_read).then_some(members)
}

fn can_read(value: &RawBsonRef<'_>, depth: usize) -> bool {
    match value {
        RawBsonRef::Document(document) => members(document, depth).is_some(),
        RawBsonRef::Array(array) => {
            depth < 200 && array.into_iter().all(|item| item.is_ok_and(|v| can_read(&v, depth + 1)))
        }
        _ => true,
    }
}

/// Top level: own members stay back, the key is the id, a missing type is told.
fn check(document: &[(&str, RawBsonRef<'_>)], json: &Json) {
    let key = document.iter().find(|(name, _)| *name == "_id").and_then(|(_, key)| match key {
        RawBsonRef::String(text) => Some((*text).to_owned()),
        RawBsonRef::ObjectId(oid) => Some(oid.to_hex()),
        _ => None,
    });
    let has = |wanted: &str| document.iter().any(|(name, _)| *name == wanted);
    let spelled = has("_lexical");
    let derived = (!has("id")).then_some(key.as_deref()).flatten();
    let mut given = json.members().expect("an object").iter();
    let mut next = |name: &str| {
        let (found, value) = given.next().unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(found, name);
        value
    };
    if !has("resourceType") {
        assert_eq!(next("resourceType").text(), Some("Basic"));
        derived.iter().for_each(|id| assert_eq!(next("id").text(), Some(*id)));
    }
    for (name, value) in document.iter().filter(|(name, _)| !["_id", "_lexical"].contains(name)) {
        match (*name, &key) {
            ("id", Some(key)) => assert_eq!(next("id").text(), Some(&**key)),
            _ => same(value, next(name), spelled),
        }
        if *name == "resourceType" {
            derived.iter().for_each(|id| assert_eq!(next("id").text(), Some(*id)));
        }
    }
    assert!(given.next().is_none(), "a member too many");
}

fn same(bson: &RawBsonRef<'_>, json: &Json, spelled: bool) {
    let text = || json.text().unwrap_or_else(|| panic!("{json:?} is no text: {bson:?}"));
    let number = || match json {
        Json::Number(text) => &**text,
        _ => panic!("{json:?} is no number: {bson:?}"),
    };
    match bson {
        RawBsonRef::Null | RawBsonRef::Undefined => assert_eq!(*json, Json::Null),
        RawBsonRef::Boolean(value) => assert_eq!(*json, Json::Bool(*value)),
        RawBsonRef::Int32(value) => assert_eq!(number(), value.to_string()),
        RawBsonRef::Int64(value) => assert_eq!(number(), value.to_string()),
        RawBsonRef::Double(value) if value.is_finite() => {
            let read: f64 = number().parse().expect("a number");
            assert_eq!(read.to_bits(), value.to_bits());
            let is_whole = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
            assert_eq!(number().contains(['.', 'e', 'E']), !is_whole, "{json:?}");
        }
        RawBsonRef::Double(_) => assert_eq!(*json, Json::Null),
        RawBsonRef::String(value) | RawBsonRef::Symbol(value) => assert_eq!(text(), *value),
        RawBsonRef::JavaScriptCode(code) => assert_eq!(text(), *code),
        RawBsonRef::JavaScriptCodeWithScope(code) => assert_eq!(text(), code.code),
        RawBsonRef::DateTime(at) => same_instant(at.timestamp_millis(), text()),
        RawBsonRef::Timestamp(at) => same_instant(i64::from(at.time) * 1000, text()),
        RawBsonRef::ObjectId(oid) => assert_eq!(text(), oid.to_hex()),
        RawBsonRef::Decimal128(value) => match value.to_string() {
            special if special.ends_with(['N', 'y']) => assert_eq!(*json, Json::Null),
            value if spelled => assert_eq!(parts(number()), parts(&value)),
            value => assert_eq!(number(), value),
        },
        RawBsonRef::Binary(binary) => {
            assert_eq!(BASE64.decode(text()).expect("base64"), binary.bytes);
        }
        RawBsonRef::RegularExpression(regex) => {
            let (pattern, options) = (regex.pattern.as_str(), regex.options.as_str());
            assert_eq!(text(), format!("/{pattern}/{options}"));
        }
        RawBsonRef::DbPointer(_) => assert_eq!(text().len(), 24),
        RawBsonRef::MinKey => assert_eq!(text(), "MinKey"),
        RawBsonRef::MaxKey => assert_eq!(text(), "MaxKey"),
        RawBsonRef::Array(array) => {
            let Json::Array(items) = json else { panic!("{json:?} is no array") };
            let elements: Vec<_> = array.into_iter().map(|item| item.expect("read")).collect();
            assert_eq!(items.len(), elements.len());
            elements.iter().zip(items).for_each(|(bson, json)| same(bson, json, spelled));
        }
        RawBsonRef::Document(document) => {
            let elements = members(document, 0).expect("read");
            let members = json.members().unwrap_or_else(|| panic!("{json:?} is no object"));
            assert!(elements.iter().map(|e| e.0).eq(members.iter().map(|m| &*m.0)));
            elements.iter().zip(members).for_each(|(e, m)| same(&e.1, &m.1, spelled));
        }
    }
}

/// An instant of the years 1 to 9999 in UTC with milliseconds; else the bare milliseconds.
fn same_instant(ms: i64, text: &str) {
    if (-62_135_596_800_000..253_402_300_800_000).contains(&ms) {
        assert_eq!(text.len(), 24);
        // The library's last instant lies a day before the calendar's.
        if ms < 253_402_207_200_000 {
            let read: jiff::Timestamp = text.parse().expect("an instant");
            assert_eq!(read.as_millisecond(), ms);
        }
    } else {
        assert_eq!(text, ms.to_string());
    }
}

/// Sign, digits without zeros around them, exponent: what a number says, however spelled.
fn parts(number: &str) -> (bool, String, i64) {
    let (negative, number) = (number.starts_with('-'), number.trim_start_matches('-'));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let exponent: i64 = exponent.trim_start_matches('+').parse().expect("an exponent");
    let moved = (digits.len() - significant.len()) as i64 - fraction.len() as i64;
    let significant = significant.trim_start_matches('0').to_owned();
    let exponent = if significant.is_empty() { 0 } else { exponent + moved };
    (negative, significant, exponent)
}

fuzz_target!(|input: Input<'_>| {
    let built;
    let bytes = match input {
        Input::Bytes(bytes) => bytes,
        Input::Document(members) => {
            // A name with a zero has no BSON.
            let Ok(bytes) = document(&members).to_vec() else { return };
            built = bytes;
            &built
        }
    };
    let ty = ResourceType::parse("Basic").expect("a type");
    let mut out = b"before".to_vec();
    let written = encode(bytes, ty, &mut out);
    assert!(out.starts_with(b"before") && (written || out.len() == 6));
    let json = written.then(|| {
        let text = str::from_utf8(&out[6..]).expect("UTF-8");
        Json::read(text).unwrap_or_else(|| panic!("no JSON: {text}"))
    });
    if let Some(document) = RawDocument::from_bytes(bytes).ok().and_then(|d| members(d, 0)) {
        check(&document, &json.expect("what the driver reads has a text"));
    }
});
