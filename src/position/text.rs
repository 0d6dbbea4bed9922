//! A position's text: see [`super`] for its form. One position has one text.

use std::{
    fmt::{self, Write},
    str::FromStr,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL};

use super::{Epoch, LogPosition, Malformed, Position, ScanPosition, Stem};
use crate::store::{DocId, DocRef, KeyRef, ScanKey};

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
            out.write_str(&BASE64_URL.encode(id.as_bytes()))
        }
        DocRef::Oid(_) => write!(out, "o{}", key.doc()),
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

impl FromStr for Position {
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
    let (negative, digits) = ms.strip_prefix('-').map_or((false, ms), |digits| (true, digits));
    let digits: u64 = number(Some(digits), "the key's time is not a number")?;
    let ms = match negative {
        false => i64::try_from(digits).ok(),
        true => 0i64.checked_sub_unsigned(digits).filter(|ms| *ms != 0),
    };
    Ok(ScanKey::Updated(ms.ok_or(BAD_KEY)?, doc_id(doc)?))
}

fn doc_id(text: &str) -> Result<DocId, Malformed> {
    let (tag, rest) = text.split_at_checked(1).ok_or(BAD_KEY)?;
    match tag {
        "i" if rest.bytes().all(is_plain) => Ok(DocId::Text(rest.into())),
        "b" => BASE64_URL
            .decode(rest)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|id| !id.bytes().all(is_plain))
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
        let updated = (any::<i64>(), doc_ids());
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
    fn a_place_has_no_second_text() {
        for (good, other) in [("iab", "bYWI"), ("u0.ia", "u-0.ia"), ("u1.ia", "u01.ia")] {
            let text = |key| format!("1h~1~2.3.4~5~6~{key}");
            assert!(text(good).parse::<Position>().is_ok(), "{good}");
            assert!(text(other).parse::<Position>().is_err(), "{other}");
        }
        let first = ScanKey::Updated(i64::MIN, DocId::Text("a".into()));
        let scan = Some(ScanPosition { query: 0, type_index: 0, key: first });
        let whole = Position { epoch: Epoch(0), log: LogPosition::default(), members: None, scan };
        assert_eq!(whole.to_string().parse(), Ok(whole));
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
}
