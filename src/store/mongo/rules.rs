//! What the server says of a document that it does not take. Pure.
//!
//! It repeats the document's values, in its message and beside: none of that is told on.

use mongodb::bson::Document;

use crate::store::Rule;

/// Why a document is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another writer came first, or a collection was made a moment ago: the same may go later.
    Collision,
    /// It never goes while the rule is there.
    Rule(Rule),
}

/// WriteConflict, SnapshotUnavailable, NoSuchTransaction.
const COLLISIONS: [i32; 3] = [112, 246, 251];

const DOCUMENT_VALIDATION_FAILURE: i32 = 121;

const DUPLICATE_KEY: i32 = 11_000;

/// Of an error's code, and of what the server says with it: a whole reply, or one of its
/// `writeErrors`. `None`: any other error.
pub(super) fn refusal(code: i32, said: &Document) -> Option<Refusal> {
    match code {
        DUPLICATE_KEY => Some(
            unique_index(said)
                .map_or(Refusal::Collision, |index| Refusal::Rule(Rule::Unique(index))),
        ),
        DOCUMENT_VALIDATION_FAILURE => Some(Refusal::Rule(Rule::Validator)),
        code => COLLISIONS.contains(&code).then_some(Refusal::Collision),
    }
}

/// The unique index that a document breaks: by its keys, or by its name where only a message says
/// it. `None`: the one of ids, which only a writer at the same time runs into.
fn unique_index(said: &Document) -> Option<String> {
    if let Ok(keys) = said.get_document("keyPattern") {
        return keys.keys().ne(["_id"]).then(|| keys.to_string());
    }
    let (_, rest) = said.get_str("errmsg").ok()?.split_once(" index: ")?;
    let (name, _) = rest.split_once(" dup key: ")?;
    (name != "_id_").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    fn unique(index: &str) -> Option<Refusal> {
        Some(Refusal::Rule(Rule::Unique(index.to_owned())))
    }

    #[test]
    fn of_unique_indexes_only_that_of_ids_is_a_collision() {
        let of = |keys: Document| refusal(11_000, &doc! {"keyPattern": keys, "keyValue": {"a": 1}});
        assert_eq!(of(doc! {"_id": 1}), Some(Refusal::Collision));
        assert_eq!(of(doc! {"a.b": 1}), unique(r#"{ "a.b": 1 }"#));
        assert_eq!(of(doc! {"_id": 1, "a": -1}), unique(r#"{ "_id": 1, "a": -1 }"#));
        let of = |index: &str| {
            let why = format!("E11000 duplicate key error collection: d.C{index}");
            refusal(11_000, &doc! {"errmsg": why})
        };
        assert_eq!(of(r#" index: _id_ dup key: { _id: "1" }"#), Some(Refusal::Collision));
        assert_eq!(of(r#" index: mrn dup key: { a: " dup key: " }"#), unique("mrn"));
        assert_eq!(of(r#" dup key: { _id: "1" }"#), Some(Refusal::Collision));
    }

    #[test]
    fn other_errors_are_no_rules() {
        assert_eq!(refusal(121, &doc! {}), Some(Refusal::Rule(Rule::Validator)));
        assert_eq!(refusal(112, &doc! {}), Some(Refusal::Collision));
        assert_eq!(refusal(13, &doc! {}), None);
    }
}
