//! Positions: the ids of events, from which anyone goes on anywhere.
//!
//! A position is a fact about the database, not about a process. Its text, numbers in base 36:
//!
//! ```text
//! live      1l~epoch~seconds.increment.consumed[~members]
//! history   1h~epoch~seconds.increment.consumed~query[.members]~type~key
//! key       i<id>  |  o<ObjectId in hex>  |  b<id in base64url>  |  u<ms>.<one of the former>
//! ```
//!
//! `seconds.increment` is a cluster time, `consumed` how many changes of that time are consumed
//! (the writes of one transaction share a time). Pure: no I/O, no clock.

use std::fmt::{self, Write};

use crate::store::{DocId, DocRef, KeyRef, ScanKey};

/// Which log a position belongs to: derived from the replica set's id, or drawn when an
/// embedded store is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

/// A point between two changes of the log.
///
/// Everything before `time`, and the first `consumed` changes at `time`, lie before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// A cluster time (seconds since 1970 in the upper 32 bits, increment in the lower), or the
    /// sequence number of an embedded store's log.
    pub time: u64,
    /// How many changes of that time are consumed.
    pub consumed: u32,
}

impl LogPosition {
    /// Before every change at `time`.
    #[must_use]
    pub const fn before(time: u64) -> Self {
        Self { time, consumed: 0 }
    }

    /// After every change at `time`.
    #[must_use]
    pub const fn past(time: u64) -> Self {
        Self::before(time.saturating_add(1))
    }
}

/// A client's whole state: all that it has been sent lies before it, all else after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Which log.
    pub epoch: Epoch,
    /// All changes before this are sent (in history: for the part that is scanned).
    pub log: LogPosition,
    /// A hash of the group's members, in streams of a group.
    pub members: Option<u32>,
    /// How far the scan has come; `None`: it is done, the stream is live.
    pub scan: Option<ScanPosition>,
}

/// How far a stream's history has come.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanPosition {
    /// A hash of the query that the scan answers.
    pub query: u32,
    /// The index of the type in the plan. All before it are done.
    pub type_index: usize,
    /// The last key of that type that was sent.
    pub key: ScanKey,
}

/// Why a text is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(scan) = &self.scan else {
            write_place(f, 'l', self.epoch, self.log)?;
            return self.members.map_or(Ok(()), |members| write!(f, "~{}", Base36(members.into())));
        };
        let stem = Stem {
            epoch: self.epoch,
            log: self.log,
            members: self.members,
            query: scan.query,
            type_index: scan.type_index,
        };
        stem.fmt(f)?;
        write_key(f, scan.key.borrowed())
    }
}

/// What the positions of one type's scan share: their texts begin with its text, and end with
/// their key's, which [`write_key`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Stem {
    /// Which log.
    pub epoch: Epoch,
    /// Where in the log the snapshot lies that is scanned.
    pub log: LogPosition,
    /// A hash of the group's members, in streams of a group.
    pub members: Option<u32>,
    /// A hash of the query.
    pub query: u32,
    /// The index of the type in the plan.
    pub type_index: usize,
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, 'h', self.epoch, self.log)?;
        write!(f, "~{}", Base36(self.query.into()))?;
        if let Some(members) = self.members {
            write!(f, ".{}", Base36(members.into()))?;
        }
        write!(f, "~{}~", Base36(self.type_index as u64))
    }
}

fn write_place(out: &mut impl Write, phase: char, epoch: Epoch, log: LogPosition) -> fmt::Result {
    write!(
        out,
        "1{phase}~{}~{}.{}.{}",
        Base36(epoch.0.into()),
        Base36(log.time >> 32),
        Base36(log.time & 0xffff_ffff),
        Base36(log.consumed.into()),
    )
}

/// Writes what a position's text says of a scan's key.
///
/// # Errors
/// Those of `out`.
pub fn write_key(out: &mut impl Write, key: KeyRef<'_>) -> fmt::Result {
    if let KeyRef::Updated(ms, _) = key {
        let sign = if ms < 0 { "-" } else { "" };
        write!(out, "u{sign}{}.", Base36(ms.unsigned_abs()))?;
    }
    match key.doc() {
        DocRef::Text(id) if id.bytes().all(is_plain) => {
            out.write_str("i")?;
            out.write_str(id)
        }
        DocRef::Text(id) => {
            out.write_str("b")?;
            out.write_str(&base64url::encode(id.as_bytes()))
        }
        DocRef::Oid(_) => write!(out, "o{}", key.doc()),
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

impl std::str::FromStr for Position {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut fields = text.splitn(6, '~');
        let mut field = || fields.next();
        let live = match field() {
            Some("1l") => true,
            Some("1h") => false,
            _ => return Err(Malformed("it does not begin with '1l~' or '1h~'")),
        };
        let epoch = Epoch(number(field(), "the epoch is not a number")?);
        let log = log_position(field())?;
        let query = field();
        let (type_index, key) = (field(), field());
        let (members, scan) = if live {
            if type_index.is_some() {
                return Err(Malformed("a live position has no scan"));
            }
            let members = query.map(|m| number(Some(m), BAD_MEMBERS)).transpose()?;
            (members, None)
        } else {
            let query = query.ok_or(Malformed("the query is missing"))?;
            let (query, members) = match query.split_once('.') {
                Some((query, members)) => (query, Some(number(Some(members), BAD_MEMBERS)?)),
                None => (query, None),
            };
            let scan = ScanPosition {
                query: number(Some(query), "the query is not a number")?,
                type_index: number::<u16>(type_index, "the type's index is not a number")?.into(),
                key: scan_key(key.ok_or(Malformed("the key is missing"))?)?,
            };
            (members, Some(scan))
        };
        Ok(Self { epoch, log, members, scan })
    }
}

const BAD_MEMBERS: &str = "the members are not a number";
const BAD_KEY: Malformed = Malformed("the key can't be read");

fn log_position(field: Option<&str>) -> Result<LogPosition, Malformed> {
    const BAD: &str = "the place in the log is not three numbers";
    let mut parts = field.unwrap_or("").splitn(3, '.');
    let seconds: u32 = number(parts.next(), BAD)?;
    let increment: u32 = number(parts.next(), BAD)?;
    let consumed = number(parts.next(), BAD)?;
    let time = u64::from(seconds) << 32 | u64::from(increment);
    Ok(LogPosition { time, consumed })
}

fn scan_key(text: &str) -> Result<ScanKey, Malformed> {
    let Some(rest) = text.strip_prefix('u') else {
        return doc_id(text).map(ScanKey::Id);
    };
    let (ms, doc) = rest.split_once('.').ok_or(BAD_KEY)?;
    let (sign, digits) = match ms.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, ms),
    };
    let ms = i64::try_from(number::<u64>(Some(digits), "the key's time is not a number")?)
        .map_err(|_| BAD_KEY)?;
    Ok(ScanKey::Updated(sign * ms, doc_id(doc)?))
}

fn doc_id(text: &str) -> Result<DocId, Malformed> {
    let (tag, rest) = text.split_at_checked(1).ok_or(BAD_KEY)?;
    match tag {
        "i" if rest.bytes().all(is_plain) => Ok(DocId::Text(rest.into())),
        "b" => base64url::decode(rest)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(|id| DocId::Text(id.into()))
            .ok_or(BAD_KEY),
        "o" => object_id(rest).map(DocId::Oid).ok_or(BAD_KEY),
        _ => Err(BAD_KEY),
    }
}

fn object_id(hex: &str) -> Option<[u8; 12]> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if hex.len() != 24 || !hex.bytes().all(lower) {
        return None;
    }
    let mut bytes = [0; 12];
    for (byte, at) in bytes.iter_mut().zip((0..24).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Reads what [`Base36`] writes, and nothing else: one number has one text.
fn number<T: TryFrom<u64>>(field: Option<&str>, otherwise: &'static str) -> Result<T, Malformed> {
    field
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()))
        .filter(|text| *text == "0" || !text.starts_with('0'))
        .and_then(|text| u64::from_str_radix(text, 36).ok())
        .and_then(|value| T::try_from(value).ok())
        .ok_or(Malformed(otherwise))
}

struct Base36(u64);

impl fmt::Display for Base36 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0u8; 13];
        let mut rest = self.0;
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&digits[at..]).unwrap_or_default())
    }
}

/// A hash that is the same in every build and on every machine (FNV-1a, folded to 32 bits).
#[derive(Debug, Clone, Copy)]
pub struct StableHash(u64);

impl Default for StableHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl StableHash {
    /// Adds a part and its end, so that ("ab", "c") and ("a", "bc") differ.
    #[must_use]
    pub fn with(self, part: &[u8]) -> Self {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let hash = part.iter().fold(self.0, |hash, byte| step(hash, *byte));
        Self(step(step(hash, 0xff), part.len() as u8))
    }

    /// The hash of all that was added.
    #[must_use]
    pub const fn finish(self) -> u32 {
        (self.0 ^ self.0 >> 32) as u32
    }
}

/// Base64 in the URL-safe alphabet without padding (RFC 4648 §5).
mod base64url {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len() * 4 / 3 + 3);
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0u32, |word, b| word << 8 | u32::from(*b));
            let word = word << (8 * (3 - chunk.len()));
            for sextet in 0..=chunk.len() {
                let index = word >> (18 - 6 * sextet) & 0x3f;
                out.push(char::from(ALPHABET[index as usize]));
            }
        }
        out
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len());
        for chunk in text.as_bytes().chunks(4) {
            let mut word = 0u32;
            for byte in chunk {
                let sextet = ALPHABET.iter().position(|a| a == byte)?;
                word = word << 6 | u32::try_from(sextet).ok()?;
            }
            let bytes = (word << (6 * (4 - chunk.len()))).to_be_bytes();
            out.extend_from_slice(bytes.get(1..chunk.len())?);
        }
        (encode(&out) == text).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn doc_ids() -> impl Strategy<Value = DocId> {
        prop_oneof![
            "[A-Za-z0-9.-]{1,64}".prop_map(|id| DocId::Text(id.into())),
            "\\PC{0,40}".prop_map(|id| DocId::Text(id.into())),
            any::<[u8; 12]>().prop_map(DocId::Oid),
        ]
    }

    fn keys() -> impl Strategy<Value = ScanKey> {
        let updated = (-i64::MAX..i64::MAX, doc_ids());
        prop_oneof![
            doc_ids().prop_map(ScanKey::Id),
            updated.prop_map(|(ms, doc)| ScanKey::Updated(ms, doc)),
        ]
    }

    prop_compose! {
        fn positions()(
            (epoch, time, consumed, members) in any::<(u32, u64, u32, Option<u32>)>(),
            scan in prop::option::of((any::<u32>(), 0..200usize, keys())),
        ) -> Position {
            let scan = scan.map(|(query, type_index, key)| ScanPosition { query, type_index, key });
            let log = LogPosition { time, consumed };
            Position { epoch: Epoch(epoch), log, members, scan }
        }
    }

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written(position in positions()) {
            let text = position.to_string();
            prop_assert_eq!(text.parse(), Ok(position));
            let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
            prop_assert!(text.bytes().all(is_safe), "{}", text);
        }

        /// One place has one text: whatever can be read is written the same again.
        #[test]
        fn no_other_text_is_a_position(text in "1[lh]~[0-9a-z.~-]{0,40}|\\PC{0,60}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }

        #[test]
        fn damage_is_seen_or_is_another_position(
            position in positions(), at in any::<prop::sample::Index>(), byte in 0x20..0x7fu8,
        ) {
            let mut text = position.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            let text = String::from_utf8(text).unwrap();
            if let Ok(read) = text.parse::<Position>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }

    #[test]
    fn ids_of_this_server_stay_within_what_a_browser_sends_across_origins() {
        let doc = DocId::Text("x".repeat(64).into());
        let year_9999 = 253_402_300_799_999;
        let scan = ScanPosition {
            query: u32::MAX,
            type_index: 147,
            key: ScanKey::Updated(year_9999, doc),
        };
        let log = LogPosition { time: u64::from(u32::MAX) << 32 | 0xffff, consumed: 9_999 };
        let whole =
            Position { epoch: Epoch(u32::MAX), log, members: Some(u32::MAX), scan: Some(scan) };
        assert!(whole.to_string().len() <= 128, "{}", whole.to_string().len());
    }

    #[test]
    fn places_in_the_log_are_ordered() {
        let time = LogPosition::before(7);
        assert!(time < LogPosition { time: 7, consumed: 1 });
        assert!(LogPosition { time: 7, consumed: 9 } < LogPosition::past(7));
        assert_eq!(LogPosition::past(7), LogPosition::before(8));
    }

    #[test]
    fn the_hash_is_the_same_everywhere_and_tells_parts_apart() {
        assert_eq!(StableHash::default().with(b"Patient").finish(), 2_222_356_254);
        let joined = |parts: [&str; 2]| {
            parts
                .iter()
                .fold(StableHash::default(), |hash, part| hash.with(part.as_bytes()))
                .finish()
        };
        assert_ne!(joined(["ab", "c"]), joined(["a", "bc"]));
    }
}
