//! What a stored document says of itself before it is encoded: key, time, version.

use super::{
    layout::LEXICAL,
    walk::{Element, Elements, Malformed, kind},
};
use crate::{fhir::instant, store::DocRef};

/// The facts of one document, from one pass over its top level.
#[derive(Debug, Clone)]
pub(super) struct Head<'a> {
    /// `_id`; `None` where it is neither a string nor an ObjectId.
    pub(super) doc: Option<DocRef<'a>>,
    /// `meta.lastUpdated` in ms since 1970, from a date or from an instant's text.
    pub(super) updated_ms: Option<i64>,
    /// `meta.versionId`, 0 where it is no number.
    pub(super) version: u64,
    /// Whether there is a member `resourceType`.
    pub(super) has_type: bool,
    /// Whether there is a member `id`.
    pub(super) has_id: bool,
    /// The kept spellings of decimals.
    pub(super) lexical: Option<Elements<'a>>,
}

impl<'a> Head<'a> {
    /// Reads the head of a document.
    pub(super) fn of(document: &'a [u8]) -> Result<Self, Malformed> {
        let mut head = Self {
            doc: None,
            updated_ms: None,
            version: 0,
            has_type: false,
            has_id: false,
            lexical: None,
        };
        let mut elements = Elements::of(document)?;
        while let Some(element) = elements.next()? {
            match element.name {
                b"_id" => head.doc = doc_id(&element),
                b"resourceType" => head.has_type = true,
                b"id" => head.has_id = true,
                b"meta" => head.read_meta(&element),
                name if name == LEXICAL.as_bytes() => head.lexical = element.array(),
                _ => {}
            }
        }
        Ok(head)
    }

    fn read_meta(&mut self, meta: &Element<'a>) {
        let Some(mut members) = meta.document() else { return };
        while let Ok(Some(member)) = members.next() {
            match member.name {
                b"lastUpdated" => self.updated_ms = updated_ms(&member),
                b"versionId" => self.version = version(&member),
                _ => {}
            }
        }
    }
}

/// The key that a string or an ObjectId is.
pub(super) fn doc_id<'a>(element: &Element<'a>) -> Option<DocRef<'a>> {
    match element.kind {
        kind::STRING => element.utf8().map(DocRef::Text),
        kind::OBJECT_ID => element.value.try_into().ok().map(DocRef::Oid),
        _ => None,
    }
}

fn updated_ms(element: &Element<'_>) -> Option<i64> {
    let from_text = || element.utf8().and_then(instant::parse);
    element.date().or_else(|| from_text().map(|at| at.as_nanosecond().div_euclid(1_000_000) as i64))
}

fn version(element: &Element<'_>) -> u64 {
    let from_text = element.utf8().and_then(|text| text.parse().ok());
    let from_integer = || element.integer()?.try_into().ok();
    from_text.or_else(from_integer).or_else(|| whole(element.double()?)).unwrap_or(0)
}

/// The whole number that a double is, up to where doubles leave some out: so JavaScript stores its
/// numbers.
fn whole(double: f64) -> Option<u64> {
    const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    ((0.0..=EXACT).contains(&double) && double.fract() == 0.0).then_some(double as u64)
}
