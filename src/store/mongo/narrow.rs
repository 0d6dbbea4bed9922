//! Clues as conditions of MongoDB's: they leave out documents that can't be wanted, and never one
//! that can. Pure.
//!
//! A document may hold any BSON. What the encoder writes as the JSON text that is sought is most
//! often a string, but a date, an ObjectId, binary data and other rare types have texts too: where
//! a text is sought, all values of those types are let through. Paths go through arrays as
//! MongoDB's do, one level each. (Of two members of one name MongoDB knows the first alone; no
//! driver's documents have such.)

use mongodb::bson::{Bson, DateTime, Document, Regex, doc, raw::cstr};

use super::decode;
use crate::store::{Clue, Place, Sought};

/// The types, but for strings and symbols, that the encoder writes as texts.
const TEXT_TYPES: [&str; 10] = [
    "javascript",
    "javascriptWithScope",
    "binData",
    "objectId",
    "date",
    "timestamp",
    "regex",
    "dbPointer",
    "minKey",
    "maxKey",
];

/// A clue as conditions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Narrowing {
    at: Vec<At>,
}

/// What a member is to be.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct At {
    /// The member, dotted.
    pub(super) path: String,
    /// One of these values.
    pub(super) points: Vec<Bson>,
    /// Or a text that begins like one of these patterns.
    begins: Vec<Bson>,
    /// Or within one of these times.
    times: Vec<Bson>,
    /// Or of one of these types.
    types: Vec<&'static str>,
}

impl Narrowing {
    /// The clue's.
    pub(super) fn of(clue: &Clue) -> Self {
        Self { at: clue.places.iter().map(At::of).collect() }
    }

    /// As a filter that documents are put to one by one.
    pub(super) fn filter(&self) -> Document {
        /// Each text is put to each pattern: more of them cost more than what they leave out.
        const MOST_PATTERNS: usize = 32;
        if self.at.iter().map(|at| at.begins.len()).sum::<usize>() > MOST_PATTERNS {
            return Document::new();
        }
        any(self.at.iter().flat_map(|at| at.conditions(true)).collect())
    }

    /// What it says of one member, if it is about one member alone.
    pub(super) fn alone(&self) -> Option<&At> {
        match self.at.as_slice() {
            [at] => Some(at),
            _ => None,
        }
    }
}

impl At {
    fn of(place: &Place) -> Self {
        let path = match place.path.as_slice() {
            ["id"] => "_id".to_owned(),
            path => path.join("."),
        };
        let mut at = Self { path, ..Self::default() };
        for sought in &place.values {
            at.add(sought);
        }
        // What has another key than a string or an ObjectId is in no scan.
        if at.path == "_id" {
            at.types.clear();
        }
        at
    }

    fn add(&mut self, sought: &Sought) {
        match sought {
            Sought::Text(id) if self.path == "_id" => self.points.extend(decode::keys_of(id)),
            Sought::Text(text) => self.points.push(text.as_str().into()),
            Sought::Bool(is) => return self.points.push((*is).into()),
            Sought::Begins(start) => self.begins.push(begins(start)),
            Sought::Instant(from, to) => {
                self.times.push(between(*from, *to));
                self.types = TEXT_TYPES.into_iter().filter(|ty| *ty != "date").collect();
                return self.types.push("string");
            }
        }
        self.types = TEXT_TYPES.to_vec();
    }

    /// Whether it is `_id`.
    pub(super) fn is_key(&self) -> bool {
        self.path == "_id"
    }

    /// As a filter that an index is asked by.
    pub(super) fn filter(&self) -> Document {
        any(self.conditions(true))
    }

    /// The points alone.
    pub(super) fn of_points(&self) -> Document {
        doc! {&self.path: {"$in": &self.points}}
    }

    /// All but the points; `None`: there is nothing else.
    pub(super) fn beside_points(&self) -> Option<Document> {
        let conditions = self.conditions(false);
        (!conditions.is_empty()).then(|| any(conditions))
    }

    fn conditions(&self, with_points: bool) -> Vec<Document> {
        let path = &self.path;
        let points = if with_points { self.points.as_slice() } else { &[] };
        let texts = [points, &self.begins].concat();
        let texts = (!texts.is_empty()).then(|| doc! {path: {"$in": texts}});
        let times = self.times.iter().map(|time| doc! {path: time.clone()});
        let types = (!self.types.is_empty()).then(|| doc! {path: {"$type": self.types.clone()}});
        texts.into_iter().chain(times).chain(types).collect()
    }
}

/// A filter that passes what passes one of these.
fn any(mut conditions: Vec<Document>) -> Document {
    match conditions.len() {
        1 => conditions.remove(0),
        // `$or` takes no empty list. No value of a resource is what no value can be.
        0 => doc! {"_id": {"$in": []}},
        _ => doc! {"$or": conditions},
    }
}

/// A beginning, as a regular expression that an index has a range for.
fn begins(start: &str) -> Bson {
    let mut pattern = String::from("^");
    for character in start.chars() {
        // Of a bar the server takes that there is no one beginning, escaped or not.
        if character == '|' {
            pattern.push_str("\\x7C");
            continue;
        }
        if character.is_ascii() && !character.is_ascii_alphanumeric() {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    // A clue has no text with a zero, which no pattern may have: of such all texts would pass.
    let pattern = pattern.try_into().unwrap_or_else(|_| cstr!("").into());
    Bson::RegularExpression(Regex { pattern, options: cstr!("").into() })
}

fn between(from: Option<i64>, to: Option<i64>) -> Bson {
    let ends = [("$gte", from), ("$lte", to)];
    let ends = ends.into_iter().filter_map(|(operator, ms)| {
        ms.map(|ms| (operator.to_owned(), Bson::DateTime(DateTime::from_millis(ms))))
    });
    match ends.collect::<Document>() {
        range if range.is_empty() => doc! {"$type": "date"}.into(),
        range => range.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowing(path: &[&'static str], values: Vec<Sought>) -> Narrowing {
        Narrowing::of(&Clue { places: vec![Place { path: path.to_vec(), values }] })
    }

    #[test]
    fn texts_booleans_and_keys() {
        let text = |text: &str| Sought::Text(text.into());
        let code = narrowing(&["code", "coding", "code"], vec![text("a"), text("b")]);
        let types = doc! {"code.coding.code": {"$type": TEXT_TYPES.to_vec()}};
        let points = doc! {"code.coding.code": {"$in": ["a", "b"]}};
        assert_eq!(code.filter(), doc! {"$or": [points.clone(), types.clone()]});
        let at = code.alone().expect("one member");
        assert_eq!((at.of_points(), at.beside_points()), (points, Some(types)));
        let active = narrowing(&["active"], vec![Sought::Bool(true)]);
        assert_eq!(active.filter(), doc! {"active": {"$in": [true]}});
        assert_eq!(active.alone().expect("one member").beside_points(), None);
        let hex = "0123456789abcdef01234567";
        let key = narrowing(&["id"], vec![text(hex)]).filter();
        assert_eq!(key.get_document("_id").expect("keys").get_array("$in").expect("two").len(), 2);
    }

    #[test]
    fn beginnings_have_no_character_that_means_anything() {
        let Bson::RegularExpression(regex) = begins("http://x/P.ü|") else { panic!("a pattern") };
        assert_eq!(regex.pattern.as_str(), r"^http\:\/\/x\/P\.ü\x7C");
    }

    #[test]
    fn what_is_no_date_is_let_through() {
        let updated = narrowing(&["meta", "lastUpdated"], vec![Sought::Instant(Some(5), None)]);
        let filter = updated.filter();
        let conditions = filter.get_array("$or").expect("two");
        let from = doc! {"meta.lastUpdated": {"$gte": DateTime::from_millis(5)}};
        assert_eq!(conditions[0], from.into());
        assert!(conditions[1].to_string().contains("string"));
    }
}
