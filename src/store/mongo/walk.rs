//! BSON read element by element, from bytes, without copies.
//!
//! Total: whatever the bytes are, a walk ends, and never reaches outside them.

/// The bytes are no BSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// BSON element types (<https://bsonspec.org/spec.html>).
pub(super) mod kind {
    pub(in super::super) const DOUBLE: u8 = 0x01;
    pub(in super::super) const STRING: u8 = 0x02;
    pub(in super::super) const DOCUMENT: u8 = 0x03;
    pub(in super::super) const ARRAY: u8 = 0x04;
    pub(in super::super) const BINARY: u8 = 0x05;
    pub(in super::super) const UNDEFINED: u8 = 0x06;
    pub(in super::super) const OBJECT_ID: u8 = 0x07;
    pub(in super::super) const BOOL: u8 = 0x08;
    pub(in super::super) const DATE: u8 = 0x09;
    pub(in super::super) const NULL: u8 = 0x0a;
    pub(in super::super) const REGEX: u8 = 0x0b;
    pub(in super::super) const DB_POINTER: u8 = 0x0c;
    pub(in super::super) const CODE: u8 = 0x0d;
    pub(in super::super) const SYMBOL: u8 = 0x0e;
    pub(in super::super) const CODE_WITH_SCOPE: u8 = 0x0f;
    pub(in super::super) const INT32: u8 = 0x10;
    pub(in super::super) const TIMESTAMP: u8 = 0x11;
    pub(in super::super) const INT64: u8 = 0x12;
    pub(in super::super) const DECIMAL128: u8 = 0x13;
    pub(in super::super) const MAX_KEY: u8 = 0x7f;
    pub(in super::super) const MIN_KEY: u8 = 0xff;
}

/// One element: its type, its name, and the bytes of its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) kind: u8,
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The elements of a document or an array.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Over a whole document: its length, its elements, a zero.
    pub(super) fn of(document: &'a [u8]) -> Result<Self, Malformed> {
        match document {
            [a, b, c, d, rest @ .., 0]
                if usize::try_from(i32::from_le_bytes([*a, *b, *c, *d]))
                    .is_ok_and(|length| length == document.len()) =>
            {
                Ok(Self { rest })
            }
            _ => Err(Malformed),
        }
    }

    /// The next element.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Option<Element<'a>>, Malformed> {
        let Some((kind, rest)) = self.rest.split_first() else { return Ok(None) };
        let (name, rest) = split_cstring(rest)?;
        let (value, rest) = rest.split_at_checked(size(*kind, rest)?).ok_or(Malformed)?;
        self.rest = rest;
        Ok(Some(Element { kind: *kind, name, value }))
    }

    /// The first element of this name.
    pub(super) fn find(mut self, name: &str) -> Option<Element<'a>> {
        while let Ok(Some(element)) = self.next() {
            if element.name == name.as_bytes() {
                return Some(element);
            }
        }
        None
    }
}

impl<'a> Element<'a> {
    /// The text of a string, symbol or code, without its length and its zero.
    pub(super) fn text(&self) -> Option<&'a [u8]> {
        let texts = [kind::STRING, kind::SYMBOL, kind::CODE];
        texts.contains(&self.kind).then(|| length_prefixed(self.value)).flatten()
    }

    /// A string that is UTF-8.
    pub(super) fn utf8(&self) -> Option<&'a str> {
        self.text().and_then(|text| std::str::from_utf8(text).ok())
    }

    /// The elements of a document.
    pub(super) fn document(&self) -> Option<Elements<'a>> {
        (self.kind == kind::DOCUMENT).then(|| Elements::of(self.value).ok()).flatten()
    }

    /// The elements of an array.
    pub(super) fn array(&self) -> Option<Elements<'a>> {
        (self.kind == kind::ARRAY).then(|| Elements::of(self.value).ok()).flatten()
    }

    /// The eight bytes of a date, in ms since 1970.
    pub(super) fn date(&self) -> Option<i64> {
        (self.kind == kind::DATE).then(|| self.i64()).flatten()
    }

    /// A whole number of 32 or 64 bits.
    pub(super) fn integer(&self) -> Option<i64> {
        match self.kind {
            kind::INT32 => self.i32().map(i64::from),
            kind::INT64 => self.i64(),
            _ => None,
        }
    }

    /// A double.
    pub(super) fn double(&self) -> Option<f64> {
        (self.kind == kind::DOUBLE)
            .then(|| self.i64())
            .flatten()
            .map(|bits| f64::from_bits(bits.cast_unsigned()))
    }

    /// A cluster time: seconds in the upper half, increment in the lower.
    pub(super) fn timestamp(&self) -> Option<u64> {
        (self.kind == kind::TIMESTAMP).then(|| self.i64()).flatten().map(i64::cast_unsigned)
    }

    /// The value's bytes as a number of 32 bits.
    pub(super) fn i32(&self) -> Option<i32> {
        self.value.try_into().ok().map(i32::from_le_bytes)
    }

    /// The value's bytes as a number of 64 bits.
    pub(super) fn i64(&self) -> Option<i64> {
        self.value.try_into().ok().map(i64::from_le_bytes)
    }
}

/// The text after a length of four bytes which counts a closing zero.
pub(super) fn length_prefixed(value: &[u8]) -> Option<&[u8]> {
    match value.get(4..)? {
        [text @ .., 0] => Some(text),
        _ => None,
    }
}

/// Splits after the zero that ends a name.
#[inline]
pub(super) fn split_cstring(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let end = zero_in_front(bytes)
        .or_else(|| bytes.iter().position(|byte| *byte == 0))
        .ok_or(Malformed)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

/// Where the first zero is, if within the first 24 bytes and eight at a time can be looked at.
#[inline]
fn zero_in_front(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().take(3).enumerate().find_map(|(nth, word)| {
        let word = u64::from_le_bytes(*word);
        let zeros = word.wrapping_sub(ONES) & !word & ONES << 7;
        (zeros != 0).then(|| nth * 8 + (zeros.trailing_zeros() / 8) as usize)
    })
}

/// How many bytes a value of this type takes at the front of `bytes`.
#[inline(always)]
fn size(kind: u8, bytes: &[u8]) -> Result<usize, Malformed> {
    match kind {
        kind::UNDEFINED | kind::NULL | kind::MIN_KEY | kind::MAX_KEY => Ok(0),
        kind::BOOL => Ok(1),
        kind::INT32 => Ok(4),
        kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => Ok(8),
        kind::OBJECT_ID => Ok(12),
        kind::DECIMAL128 => Ok(16),
        kind::STRING | kind::SYMBOL | kind::CODE => prefix(bytes, 1).map(|length| length + 4),
        kind::DOCUMENT | kind::ARRAY => prefix(bytes, 5),
        kind::CODE_WITH_SCOPE => prefix(bytes, 14),
        kind::BINARY => prefix(bytes, 0).map(|length| length + 5),
        kind::DB_POINTER => prefix(bytes, 1).map(|length| length + 16),
        kind::REGEX => {
            let (pattern, rest) = split_cstring(bytes)?;
            let (options, _) = split_cstring(rest)?;
            Ok(pattern.len() + options.len() + 2)
        }
        _ => Err(Malformed),
    }
}

/// The length in the first four bytes, which must be at least `least`.
fn prefix(bytes: &[u8], least: usize) -> Result<usize, Malformed> {
    let length = bytes.first_chunk().copied().map(i32::from_le_bytes).ok_or(Malformed)?;
    usize::try_from(length).ok().filter(|length| *length >= least).ok_or(Malformed)
}
