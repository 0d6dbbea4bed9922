//! A resource on its way in: members in order → BSON, every number kept digit by digit.

use mongodb::bson::{
    Bson, DateTime, Decimal128, RawArrayBuf, RawBson, RawDocumentBuf, oid::ObjectId, raw::CString,
};
use serde_json::{Map, Number, Value};

use super::{
    decimal::Decimal,
    layout::{LEXICAL, Layout},
};
use crate::{
    fhir::{instant, resource::Resource},
    store::DocId,
};

/// The largest document that MongoDB stores, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The document for a resource under this key, or a sentence that names what can't be stored.
///
/// `meta.lastUpdated` becomes a date. Decimals that BSON would print with other letters keep
/// their spelling in [`LEXICAL`].
pub(super) fn document(
    resource: &Resource,
    doc: &DocId,
    layout: &Layout,
) -> Result<RawDocumentBuf, String> {
    let mut decoder = Decoder { path: Vec::new(), decimals: 0, spellings: Vec::new() };
    let mut document = RawDocumentBuf::new();
    append(&mut document, "_id", raw_key(doc))?;
    let mut before = "";
    for (name, value) in resource.members() {
        if layout.is_own(name.as_bytes()) {
            return Err(format!("this store can't keep the member '{name}'"));
        }
        let told_by_key = name == "id" && before == "resourceType";
        before = name;
        if !told_by_key {
            append(&mut document, name, decoder.member(name, value)?)?;
        }
    }
    if !decoder.spellings.is_empty() {
        append(&mut document, LEXICAL, decoder.lexical())?;
    }
    match document.as_bytes().len() {
        0..=MAX_BYTES => Ok(document),
        bytes => Err(format!("the resource takes {bytes} bytes, MongoDB stores {MAX_BYTES}")),
    }
}

/// A key as BSON.
pub(super) fn key(doc: &DocId) -> Bson {
    match doc {
        DocId::Text(text) => Bson::String(text.to_string()),
        DocId::Oid(bytes) => Bson::ObjectId(ObjectId::from_bytes(*bytes)),
    }
}

/// The same as raw BSON.
pub(super) fn raw_key(doc: &DocId) -> RawBson {
    match doc {
        DocId::Text(text) => RawBson::String(text.to_string()),
        DocId::Oid(bytes) => RawBson::ObjectId(ObjectId::from_bytes(*bytes)),
    }
}

/// The keys under which a resource of this id may lie: its text, or the ObjectId that its text
/// is.
pub(super) fn keys_of(id: &str) -> Vec<Bson> {
    let oid = ObjectId::parse_str(id).ok().filter(|oid| oid.to_hex() == id);
    std::iter::once(Bson::String(id.to_owned())).chain(oid.map(Bson::ObjectId)).collect()
}

fn append(document: &mut RawDocumentBuf, name: &str, value: RawBson) -> Result<(), String> {
    let name = CString::try_from(name).map_err(|_| format!("{name:?} is no member name"))?;
    document.append(name, value);
    Ok(())
}

/// Walks a resource in the order in which the encoder will walk its document.
struct Decoder<'r> {
    path: Vec<&'r str>,
    decimals: i64,
    spellings: Vec<(i64, &'r str)>,
}

impl<'r> Decoder<'r> {
    fn member(&mut self, name: &'r str, value: &'r Value) -> Result<RawBson, String> {
        self.path.push(name);
        let converted = self.value(value);
        self.path.pop();
        converted
    }

    fn value(&mut self, value: &'r Value) -> Result<RawBson, String> {
        match value {
            Value::Null => Ok(RawBson::Null),
            Value::Bool(value) => Ok(RawBson::Boolean(*value)),
            Value::Number(number) => self.number(number),
            Value::String(text) => Ok(self.string(text)),
            Value::Array(items) => self.array(items),
            Value::Object(members) => self.object(members),
        }
    }

    fn object(&mut self, members: &'r Map<String, Value>) -> Result<RawBson, String> {
        let mut document = RawDocumentBuf::new();
        for (name, value) in members {
            append(&mut document, name, self.member(name, value)?)?;
        }
        Ok(RawBson::Document(document))
    }

    fn array(&mut self, items: &'r [Value]) -> Result<RawBson, String> {
        let mut array = RawArrayBuf::new();
        for item in items {
            array.push(self.value(item)?);
        }
        Ok(RawBson::Array(array))
    }

    fn string(&self, text: &str) -> RawBson {
        let date = || instant::parse(text).filter(|at| instant::text(*at) == text);
        match self.path[..] {
            ["meta", "lastUpdated"] => date().map_or_else(
                || RawBson::String(text.to_owned()),
                |at| RawBson::DateTime(DateTime::from_millis(at.as_millisecond())),
            ),
            _ => RawBson::String(text.to_owned()),
        }
    }

    fn number(&mut self, number: &'r Number) -> Result<RawBson, String> {
        let text = number.as_str();
        if let Some(integer) = integer(text) {
            return Ok(integer);
        }
        let decimal = Decimal::parse(text).ok_or_else(|| {
            format!(
                "'{}': {text} has more digits or a larger exponent than MongoDB keeps (34 digits, \
                 exponents from -6176 to 6111)",
                self.path.join(".")
            )
        })?;
        let mut printed = Vec::new();
        decimal.write(&mut printed);
        if printed != text.as_bytes() {
            self.spellings.push((self.decimals, text));
        }
        self.decimals += 1;
        Ok(RawBson::Decimal128(Decimal128::from_bytes(decimal.to_bits())))
    }

    fn lexical(&self) -> RawBson {
        let mut array = RawArrayBuf::new();
        for (ordinal, text) in &self.spellings {
            array.push(i32::try_from(*ordinal).unwrap_or(i32::MAX));
            array.push(*text);
        }
        RawBson::Array(array)
    }
}

/// A number that is written as a whole one and fits in 64 bits. `-0` is none: its sign would go.
fn integer(text: &str) -> Option<RawBson> {
    let value = text.parse::<i64>().ok().filter(|_| text != "-0")?;
    Some(i32::try_from(value).map_or(RawBson::Int64(value), RawBson::Int32))
}
