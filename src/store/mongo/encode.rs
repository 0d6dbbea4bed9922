//! A stored document on its way out: BSON → JSON in one pass, appended to a buffer.
//!
//! The hottest code of the store. Total: every BSON value has a JSON text, and bytes that are no
//! BSON are an error, never a panic.

use std::io::Write as _;

use base64::{display::Base64Display, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;

use super::{
    decimal::Decimal,
    digits,
    head::Head,
    layout::Layout,
    plain::plain,
    walk::{Element, Elements, Malformed, kind, length_prefixed, split_cstring},
};
use crate::{
    fhir::{ResourceType, instant},
    store::{DocId, DocRef},
};

/// Deeper than the server stores anything.
const MAX_DEPTH: usize = 250;

/// Appends the resource that a document of this type's collection holds, as compact JSON.
///
/// Own members stay back. `id` is what `_id` says, where the document's own `id` stands or else
/// after `resourceType`; a document without `resourceType` gets it first.
pub(super) fn resource(
    document: &[u8],
    head: &Head<'_>,
    ty: ResourceType,
    layout: &Layout,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let start = out.len();
    let mut elements = Elements::of(document)?;
    let mut writer = Writer { out, spellings: Spellings::of(head.lexical), decimals: 0 };
    writer.out.push(b'{');
    if !head.has_type {
        writer.member(b"resourceType");
        string(ty.name().as_bytes(), writer.out);
        writer.derived_id(head);
    }
    let written = loop {
        match elements.next() {
            Err(malformed) => break Err(malformed),
            Ok(None) => break Ok(()),
            Ok(Some(element)) if layout.is_own(element.name) => {}
            Ok(Some(element)) => {
                if let Err(malformed) = writer.top_level(&element, head) {
                    break Err(malformed);
                }
            }
        }
    };
    match written {
        Ok(()) => out.push(b'}'),
        Err(_) => out.truncate(start),
    }
    written
}

/// One document's resource as JSON of its own.
pub(super) fn json(document: &[u8], ty: ResourceType, layout: &Layout) -> Result<Bytes, Malformed> {
    let head = Head::of(document)?;
    let mut json = Vec::with_capacity(document.len() + document.len() / 2);
    resource(document, &head, ty, layout, &mut json)?;
    // A copy has the exact size; the buffer had to guess.
    Ok(Bytes::copy_from_slice(&json))
}

/// The id that a key is.
pub(super) fn id_text(doc: &DocId) -> Box<str> {
    match doc {
        DocId::Text(id) => id.clone(),
        DocId::Oid(_) => doc.to_string().into(),
    }
}

struct Writer<'o, 'd> {
    out: &'o mut Vec<u8>,
    spellings: Spellings<'d>,
    decimals: i64,
}

impl Writer<'_, '_> {
    fn top_level(&mut self, element: &Element<'_>, head: &Head<'_>) -> Result<(), Malformed> {
        self.member(element.name);
        match (element.name, head.doc) {
            (b"id", Some(doc)) => id(doc, self.out),
            _ => self.value(element, 1)?,
        }
        if element.name == b"resourceType" {
            self.derived_id(head);
        }
        Ok(())
    }

    fn derived_id(&mut self, head: &Head<'_>) {
        if let (false, Some(doc)) = (head.has_id, head.doc) {
            self.member(b"id");
            id(doc, self.out);
        }
    }

    /// A comma unless this is the first member, the name, a colon.
    #[inline]
    fn member(&mut self, name: &[u8]) {
        if self.out.last() == Some(&b'{') {
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(b",\"");
        }
        text_of(name, self.out);
        self.out.extend_from_slice(b"\":");
    }

    fn value(&mut self, element: &Element<'_>, depth: usize) -> Result<(), Malformed> {
        let out = &mut *self.out;
        match element.kind {
            kind::DOCUMENT => return self.document(element.value, depth + 1),
            kind::ARRAY => return self.array(element.value, depth + 1),
            kind::DECIMAL128 => self.decimal(element.value.try_into().map_err(|_| Malformed)?),
            kind::STRING | kind::SYMBOL | kind::CODE => {
                string(length_prefixed(element.value).ok_or(Malformed)?, out);
            }
            kind::INT32 => integer(element.i32().ok_or(Malformed)?.into(), out),
            kind::INT64 => integer(element.i64().ok_or(Malformed)?, out),
            kind::DOUBLE => double(f64::from_bits(element.i64().ok_or(Malformed)? as u64), out),
            kind::BOOL if element.value == [0] => out.extend_from_slice(b"false"),
            kind::BOOL => out.extend_from_slice(b"true"),
            kind::DATE => date(element.i64().ok_or(Malformed)?, out),
            kind::OBJECT_ID => oid(element.value, out),
            kind::NULL | kind::UNDEFINED => out.extend_from_slice(b"null"),
            _ => rare(element, out)?,
        }
        Ok(())
    }

    fn document(&mut self, document: &[u8], depth: usize) -> Result<(), Malformed> {
        let mut elements = walk(document, depth)?;
        self.out.push(b'{');
        while let Some(element) = elements.next()? {
            self.member(element.name);
            self.value(&element, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn array(&mut self, array: &[u8], depth: usize) -> Result<(), Malformed> {
        let mut elements = walk(array, depth)?;
        self.out.push(b'[');
        let mut first = true;
        while let Some(element) = elements.next()? {
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            self.value(&element, depth)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// A decimal in its kept spelling, if that still says the same; JSON has no NaN or infinity.
    fn decimal(&mut self, bits: [u8; 16]) {
        let ordinal = self.decimals;
        self.decimals += 1;
        match (Decimal::from_bits(bits), self.spellings.take(ordinal)) {
            (None, _) => self.out.extend_from_slice(b"null"),
            (Some(value), Some(text)) if is_number(text) && Decimal::parse(text) == Some(value) => {
                self.out.extend_from_slice(text.as_bytes());
            }
            (Some(value), _) => value.write(self.out),
        }
    }
}

fn walk(bytes: &[u8], depth: usize) -> Result<Elements<'_>, Malformed> {
    if depth > MAX_DEPTH { Err(Malformed) } else { Elements::of(bytes) }
}

/// The kept spellings, read along with the decimals of the document.
struct Spellings<'d> {
    next: Option<(i64, &'d str)>,
    rest: Option<Elements<'d>>,
}

impl<'d> Spellings<'d> {
    fn of(lexical: Option<Elements<'d>>) -> Self {
        let mut spellings = Self { next: None, rest: lexical };
        spellings.advance();
        spellings
    }

    fn advance(&mut self) {
        self.next = self.rest.as_mut().and_then(|rest| {
            let ordinal = rest.next().ok()??.integer()?;
            let text = rest.next().ok()??.utf8()?;
            Some((ordinal, text))
        });
    }

    /// The spelling of the n-th decimal. Asked with rising numbers.
    fn take(&mut self, ordinal: i64) -> Option<&'d str> {
        let (_, text) = self.next.filter(|(at, _)| *at == ordinal)?;
        self.advance();
        Some(text)
    }
}

/// Whether a text that [`Decimal::parse`] takes is one that JSON takes too.
fn is_number(text: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

fn id(doc: DocRef<'_>, out: &mut Vec<u8>) {
    match doc {
        DocRef::Text(id) => string(id.as_bytes(), out),
        DocRef::Oid(bytes) => oid(&bytes, out),
    }
}

fn oid(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in bytes {
        out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    out.push(b'"');
}

/// A string in quotes, with no more escapes than JSON demands. What is no UTF-8 becomes U+FFFD.
fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    text_of(text, out);
    out.push(b'"');
}

/// What stands between the quotes.
#[inline]
fn text_of(text: &[u8], out: &mut Vec<u8>) {
    if !plain(text, out) {
        unlike_plain(text, out);
    }
}

#[cold]
fn unlike_plain(text: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(text) {
        Ok(_) => escaped(text, out),
        Err(_) => escaped(String::from_utf8_lossy(text).as_bytes(), out),
    }
}

fn escaped(mut text: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = text.iter().position(|byte| NEEDS_ESCAPE[usize::from(*byte)]) {
        out.extend_from_slice(&text[..at]);
        escape(text[at], out);
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

static NEEDS_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

fn escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let _ = write!(out, "\\u{byte:04x}");
            return;
        }
    };
    out.extend([b'\\', short]);
}

fn integer(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    digits::write(value.unsigned_abs(), out);
}

/// The shortest text that reads back as the same double; a whole number has no fraction, since
/// JavaScript writers store integers so. JSON has no NaN and no infinity: null, as in JavaScript.
fn double(value: f64, out: &mut Vec<u8>) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if value.fract() == 0.0 && value.abs() <= EXACT {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        digits::write(value.abs() as u64, out);
    } else {
        // Writing into a Vec can't fail, here and below.
        let _ = write!(out, "{value:?}");
    }
}

/// A FHIR instant. Beyond the years 1 to 9999, which an instant can't tell, the bare ms in a
/// string.
fn date(ms: i64, out: &mut Vec<u8>) {
    out.push(b'"');
    match instant::ascii(ms) {
        Some(text) => out.extend_from_slice(&text),
        None => integer(ms, out),
    }
    out.push(b'"');
}

/// What no FHIR writer stores, in the most telling text there is.
fn rare(element: &Element<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let value = element.value;
    match element.kind {
        kind::BINARY => binary(value, out)?,
        kind::TIMESTAMP => date((element.i64().ok_or(Malformed)? >> 32 & 0xffff_ffff) * 1000, out),
        kind::REGEX => {
            let (pattern, rest) = split_cstring(value)?;
            let (options, _) = split_cstring(rest)?;
            string(&[b"/", pattern, b"/", options].concat(), out);
        }
        kind::CODE_WITH_SCOPE => {
            let code = value.get(4..).ok_or(Malformed)?;
            let length = code.first_chunk().copied().map(i32::from_le_bytes).ok_or(Malformed)?;
            let end = usize::try_from(length).map_err(|_| Malformed)?.saturating_add(4);
            string(code.get(..end).and_then(length_prefixed).ok_or(Malformed)?, out);
        }
        kind::DB_POINTER => oid(value.last_chunk::<12>().ok_or(Malformed)?, out),
        kind::MIN_KEY => string(b"MinKey", out),
        kind::MAX_KEY => string(b"MaxKey", out),
        _ => return Err(Malformed),
    }
    Ok(())
}

/// Base64, as FHIR's `base64Binary`.
fn binary(value: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    const OLD_SUBTYPE: u8 = 2;
    let (subtype, bytes) = value.get(4..).and_then(<[u8]>::split_first).ok_or(Malformed)?;
    let bytes = match *subtype {
        OLD_SUBTYPE => bytes.get(4..).ok_or(Malformed)?,
        _ => bytes,
    };
    // A vector takes all.
    let _ = write!(out, "\"{}\"", Base64Display::new(bytes, &BASE64));
    Ok(())
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
