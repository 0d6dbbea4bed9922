//! The encoder against independent expectations, and against what the decoder wrote.

use mongodb::bson::{
    self, Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc,
    oid::ObjectId, spec::BinarySubtype,
};
use proptest::prelude::*;

use super::*;
use crate::{fhir::resource::Resource, store::mongo::decode};

fn basic() -> ResourceType {
    ResourceType::parse("Basic").expect("a type")
}

fn encode(bytes: &[u8]) -> Result<String, Malformed> {
    let head = Head::of(bytes)?;
    let mut out = b"before".to_vec();
    resource(bytes, &head, basic(), &Layout::native(), &mut out)?;
    Ok(String::from_utf8(out.split_off(6)).expect("UTF-8"))
}

fn json(document: &Document) -> String {
    encode(&document.to_vec().expect("BSON")).expect("well formed")
}

fn value(value: impl Into<Bson>) -> String {
    let json = json(&doc! {"resourceType": "Basic", "x": value.into()});
    let inner = json.strip_prefix(r#"{"resourceType":"Basic","x":"#).expect("prefix");
    inner.strip_suffix('}').expect("suffix").to_owned()
}

#[test]
fn every_bson_type_has_its_text() {
    let oid = ObjectId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 0xab, 0xcd, 0xff]);
    let bytes = |subtype| Binary { subtype, bytes: b"fhir!".to_vec() };
    let scope = JavaScriptCodeWithScope { code: "f()".into(), scope: doc! {"a": 1} };
    let regex = Regex {
        pattern: "a/b".to_owned().try_into().expect("no zero"),
        options: "i".to_owned().try_into().expect("no zero"),
    };
    let cases: Vec<(Bson, &str)> = vec![
        (Bson::Null, "null"),
        (Bson::Undefined, "null"),
        (true.into(), "true"),
        (false.into(), "false"),
        (i32::MIN.into(), "-2147483648"),
        (i64::MAX.into(), "9223372036854775807"),
        (0.1.into(), "0.1"),
        (5.0.into(), "5"),
        ((-0.0).into(), "-0"),
        (1e21.into(), "1e21"),
        (5e-324.into(), "5e-324"),
        (f64::MAX.into(), "1.7976931348623157e308"),
        (f64::NAN.into(), "null"),
        (f64::NEG_INFINITY.into(), "null"),
        (oid.into(), r#""000102030405060708abcdff""#),
        (DateTime::from_millis(1_709_208_000_500).into(), r#""2024-02-29T12:00:00.500Z""#),
        (DateTime::from_millis(-1).into(), r#""1969-12-31T23:59:59.999Z""#),
        (DateTime::MAX.into(), r#""9223372036854775807""#),
        (DateTime::from_millis(253_402_300_800_000).into(), r#""253402300800000""#),
        (DateTime::from_millis(-62_135_596_800_000).into(), r#""0001-01-01T00:00:00.000Z""#),
        (Timestamp { time: 1, increment: 9 }.into(), r#""1970-01-01T00:00:01.000Z""#),
        (bytes(BinarySubtype::Generic).into(), r#""ZmhpciE=""#),
        (bytes(BinarySubtype::BinaryOld).into(), r#""ZmhpciE=""#),
        (Bson::RegularExpression(regex), r#""/a/b/i""#),
        (Bson::JavaScriptCode("f()".into()), r#""f()""#),
        (Bson::JavaScriptCodeWithScope(scope), r#""f()""#),
        (Bson::Symbol("s".into()), r#""s""#),
        (Bson::MinKey, r#""MinKey""#),
        (Bson::MaxKey, r#""MaxKey""#),
        ("1.50".parse::<bson::Decimal128>().expect("decimal").into(), "1.50"),
        ("NaN".parse::<bson::Decimal128>().expect("decimal").into(), "null"),
        (bson::bson!([1, [], {}, [{"a": null}]]), r#"[1,[],{},[{"a":null}]]"#),
        (
            "\"\\/\u{8}\u{c}\n\r\t\u{1f}\u{7f}ü\u{2028}😀\0".into(),
            "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u001f\u{7f}ü\u{2028}😀\\u0000\"",
        ),
    ];
    for (given, expected) in cases {
        assert_eq!(value(given.clone()), expected, "{given:?}");
    }
    assert!(encode(&db_pointer()).expect("well formed").contains("000102030405060708090a0b"));
}

/// The driver offers no way to build one.
fn db_pointer() -> Vec<u8> {
    let mut body = vec![kind::DB_POINTER, b'p', 0, 2, 0, 0, 0, b'n', 0];
    body.extend(0..12);
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 5).expect("small");
    [&length.to_le_bytes()[..], body, &[0]].concat()
}

#[test]
fn broken_texts_and_broken_bytes() {
    let string = |bytes: &[u8]| {
        let mut body = vec![kind::STRING, b'x', 0];
        body.extend((bytes.len() as i32 + 1).to_le_bytes());
        body.extend(bytes);
        body.push(0);
        framed(&body)
    };
    let json = encode(&string(b"a\xff\"b")).expect("well formed");
    assert_eq!(json, "{\"resourceType\":\"Basic\",\"x\":\"a\u{fffd}\\\"b\"}");
    let whole = doc! {"_id": "1", "a": [{"b": "text"}, 1.5], "c": Binary { subtype: BinarySubtype::Uuid, bytes: vec![0; 16] }};
    let whole = whole.to_vec().expect("BSON");
    for at in 0..whole.len() {
        assert_eq!(encode(&whole[..at]), Err(Malformed));
        for wrong in [0, 1, 0x7f, 0xff, whole[at] ^ 1] {
            let mut bytes = whole.clone();
            bytes[at] = wrong;
            let _ = encode(&bytes);
        }
    }
    let mut deep = framed(&[]);
    for _ in 0..10_000 {
        deep = framed(&[&[kind::DOCUMENT, b'd', 0][..], &deep].concat());
    }
    assert_eq!(encode(&deep), Err(Malformed));
}

#[test]
fn type_and_id_stand_where_they_belong() {
    let cases = [
        (
            doc! {"_id": "7", "resourceType": "Basic", "a": 1},
            r#"{"resourceType":"Basic","id":"7","a":1}"#,
        ),
        (
            doc! {"_id": "7", "a": 1, "resourceType": "Basic", "b": 2},
            r#"{"a":1,"resourceType":"Basic","id":"7","b":2}"#,
        ),
        (doc! {"_id": "7", "a": 1}, r#"{"resourceType":"Basic","id":"7","a":1}"#),
        (doc! {"_id": "7", "a": 1, "id": "7"}, r#"{"resourceType":"Basic","a":1,"id":"7"}"#),
        (
            doc! {"_id": "7", "id": "other", "resourceType": "Basic"},
            r#"{"id":"7","resourceType":"Basic"}"#,
        ),
        (
            doc! {"a": {"_id": 1, "id": "x", "_lexical": 2}},
            r#"{"resourceType":"Basic","a":{"_id":1,"id":"x","_lexical":2}}"#,
        ),
        (
            doc! {"_id": ObjectId::from_bytes([0xab; 12])},
            r#"{"resourceType":"Basic","id":"abababababababababababab"}"#,
        ),
        (doc! {}, r#"{"resourceType":"Basic"}"#),
    ];
    for (document, expected) in cases {
        assert_eq!(json(&document), expected);
    }
}

#[test]
fn a_spelling_never_changes_a_value() {
    let decimal = |text: &str| text.parse::<bson::Decimal128>().expect("a decimal");
    let spelled = |value: &str, text: &str| {
        json(&doc! {"resourceType": "Basic", "x": decimal(value), "_lexical": [0, text]})
    };
    assert_eq!(spelled("1E+5", "1e5"), r#"{"resourceType":"Basic","x":1e5}"#);
    for other in ["2e5", "1.0e5", "1e5\"", " 1e5", "01e5", "", "x"] {
        assert_eq!(spelled("1E+5", other), r#"{"resourceType":"Basic","x":1E+5}"#, "{other}");
    }
}

fn round_trip(text: &str) -> Result<String, String> {
    let resource = Resource::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    let doc = DocId::Text(resource.id().unwrap_or("none").into());
    let document = decode::document(&resource, &doc, &Layout::native())?;
    Ok(encode(document.as_bytes()).expect("well formed"))
}

#[test]
fn a_resource_comes_back_as_it_went() {
    for text in [
        r#"{"resourceType":"Basic","id":"a","meta":{"versionId":"3","lastUpdated":"2024-02-29T12:00:00.500Z"}}"#,
        r#"{"resourceType":"Basic","id":"a","meta":{"lastUpdated":"2024-02-29T12:00:00+01:00"}}"#,
        r#"{"id":"a","resourceType":"Basic","_birthDate":{"id":"ü"},"contained":[{"id":"c","resourceType":"Basic","meta":{"lastUpdated":"2024-02-29T12:00:00.500Z"}}]}"#,
        r#"{"x":-0,"resourceType":"Basic","y":{"resourceType":1,"id":2},"id":"a"}"#,
        r#"{"resourceType":"Basic","id":"a","n":[0,-1,2147483648,-9223372036854775808,9223372036854775808,1.50,1E-22,1e+5,0.0000001,1E5,-0.0,0e3],"e":{},"l":[],"z":null,"t":true}"#,
    ] {
        assert_eq!(round_trip(text).as_deref(), Ok(text));
    }
}

#[test]
fn what_cannot_be_kept_is_named() {
    for (member, named) in [
        (format!(r#""a":[{{"value":0.{}}}]"#, "1".repeat(35)), "'a.value'"),
        (r#""value":1e7000"#.into(), "1e7000"),
        (r#""_id":{"extension":[]}"#.into(), "'_id'"),
        (r#""_lexical":1"#.into(), "'_lexical'"),
        (format!(r#""text":"{}""#, "x".repeat(17 << 20)), "bytes"),
    ] {
        let error = round_trip(&format!(r#"{{"resourceType":"Basic","id":"a",{member}}}"#));
        assert!(error.expect_err("unstorable").contains(named), "{named}");
    }
}

proptest! {
    #[test]
    fn numbers_keep_their_digits(
        numbers in prop::collection::vec("-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,13})?([eE][+-]?[0-9]{1,3})?", 0..20)
    ) {
        let text = format!(r#"{{"resourceType":"Basic","id":"a","x":[{}]}}"#, numbers.join(","));
        prop_assert_eq!(round_trip(&text), Ok(text));
    }

    #[test]
    fn strings_keep_their_characters(text in any::<String>()) {
        let expected = serde_json::to_string(&text).expect("JSON");
        prop_assert_eq!(value(text), expected);
    }

    #[test]
    fn doubles_read_back_as_themselves(bits in any::<u64>()) {
        let double = f64::from_bits(bits);
        let text = value(double);
        if double.is_finite() {
            prop_assert_eq!(text.parse::<f64>().expect("a number").to_bits(), double.to_bits());
        } else {
            prop_assert_eq!(text, "null");
        }
    }

    #[test]
    fn no_bytes_break_the_encoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = encode(&bytes);
        let _ = encode(&framed(&bytes));
    }
}
