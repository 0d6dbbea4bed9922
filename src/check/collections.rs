//! Judgement of the collections: which are read, and what is odd about them. Pure.

use super::findings::{Asked, Finding, Level, quoted};
use crate::words::bytes;

/// What kind of collection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    View,
    TimeSeries,
}

/// A collection that is named like a resource type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// It keeps pre- and post-images.
    pub(super) images: bool,
    /// It has a collation of its own.
    pub(super) collated: bool,
    pub(super) capped: bool,
    /// What only a plain collection is asked.
    pub(super) content: Asked<Content>,
}

/// What is in a collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) documents: u64,
    pub(super) bytes: u64,
    /// It has the index by `meta.lastUpdated`, then `_id`.
    pub(super) indexed: bool,
    /// Parameters that no index serves, and the members where their values are.
    pub(super) unindexed: Vec<(&'static str, String)>,
    /// TTL indexes: the member, and after how many seconds.
    pub(super) expiring: Vec<(String, i64)>,
    pub(super) sample: Sample,
}

/// How many of some documents are of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) documents: u64,
    /// `_id` is neither a string nor an ObjectId.
    pub(super) foreign_key: u64,
    /// `_id` is a text that reads like the ObjectId of another document, or such an ObjectId.
    pub(super) twin_key: u64,
    /// `id` is there, and is not the text of `_id`.
    pub(super) other_id: u64,
    /// `meta.lastUpdated` is a text.
    pub(super) updated_text: u64,
    /// `meta.lastUpdated` is neither a date nor a text.
    pub(super) updated_missing: u64,
}

/// All that is to be said of a collection.
pub(super) fn findings(found: &Found, has_images: bool) -> Vec<Finding> {
    let name = &found.name;
    match found.kind {
        Kind::View => return vec![skipped(name, "a view")],
        Kind::TimeSeries => return vec![skipped(name, "a time series")],
        Kind::Plain if found.capped => return vec![capped(name)],
        Kind::Plain if found.collated => return vec![collated(name)],
        Kind::Plain => {}
    }
    match &found.content {
        Ok(content) => {
            let mut all = vec![summary(name, content)];
            all.extend(index(name, content));
            all.extend(searches(name, content));
            all.extend(images(name, found.images, has_images));
            all.extend(expiring(name, content));
            all.extend(sample(name, &content.sample));
            all
        }
        Err(refusal) => {
            vec![Finding::fail("collection", format!("{name} can't be read: {}", refusal.why))]
        }
    }
}

/// One line for all collections that are no resources'.
pub(super) fn ignored(names: &[String]) -> Option<Finding> {
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let text = match names.len() {
        0 => return None,
        count @ 1..=SHOWN => format!("ignored, not named like an R4 type ({count}): {shown}"),
        count => format!("ignored, not named like an R4 type ({count}): {shown}, …"),
    };
    Some(Finding::ok("ignored", text))
}

/// Said where there is nothing to read.
pub(super) fn none_found() -> Finding {
    let text =
        "no collection is named like an R4 type yet: the first write of a type makes its own";
    Finding::ok("collections", text)
}

fn summary(name: &str, content: &Content) -> Finding {
    let size = bytes(content.bytes);
    let documents = match content.documents {
        1 => "1 document".into(),
        count => format!("{count} documents"),
    };
    Finding::ok("collection", format!("{name}: {documents}, {size}"))
}

fn skipped(name: &str, what: &str) -> Finding {
    Finding::ok("collection", format!("{name} is {what}: skipped"))
}

fn capped(name: &str) -> Finding {
    let text = format!("{name} is capped: MongoDB can't read it as of one instant");
    Finding::fail("collection", text).mended_by(copied(name))
}

fn collated(name: &str) -> Finding {
    let text = format!("{name} has a collation, in whose order no stream can go on");
    Finding::fail("collection", text).mended_by(copied(name))
}

/// The commands that put a plain collection in the place of another.
fn copied(name: &str) -> String {
    let copy = quoted(&format!("{name}_copy"));
    format!(
        "(while nothing writes to it)\n\
         db.{name}.aggregate([{{$out: {copy}}}])\n\
         db.getCollection({copy}).renameCollection({}, true)",
        quoted(name)
    )
}

fn index(name: &str, content: &Content) -> Option<Finding> {
    if content.indexed {
        return None;
    }
    let text = format!(
        "{name} has no index by meta.lastUpdated: `_since` and `_until` read the whole collection, \
         by _id"
    );
    let mend = format!("db.{name}.createIndex({{\"meta.lastUpdated\": 1, _id: 1}})");
    Some(Finding::slow("index", text).mended_by(mend))
}

/// What a search reads of a small collection is soon read.
fn searches(name: &str, content: &Content) -> Option<Finding> {
    const SMALL: u64 = 10_000;
    if content.unindexed.is_empty() || content.documents <= SMALL {
        return None;
    }
    let parameters: Vec<_> = content.unindexed.iter().map(|(parameter, _)| *parameter).collect();
    let text = format!(
        "{name} has no index for searches by {}: each reads the whole collection",
        parameters.join(", ")
    );
    let command = |(_, path): &(&str, String)| {
        format!("db.{name}.createIndex({{{}: 1, _id: 1}})", quoted(path))
    };
    let commands: Vec<_> = content.unindexed.iter().map(command).collect();
    Some(Finding::slow("search", text).mended_by(commands.join("\n")))
}

/// `possible`: the server knows of images; where it does not, that is said once, elsewhere.
fn images(name: &str, kept: bool, possible: bool) -> Option<Finding> {
    if kept || !possible {
        return None;
    }
    let text = format!(
        "{name} keeps no pre- and post-images: exports of a compartment or group with it can't \
         go on live, one with a _typeFilter tells of deletions of what it never sent, and an \
         update in place is sent as it is when it is looked up"
    );
    let mend = format!(
        "db.runCommand({{collMod: {}, changeStreamPreAndPostImages: {{enabled: true}}}})",
        quoted(name)
    );
    Some(Finding::slow("images", text).mended_by(mend))
}

fn expiring(name: &str, content: &Content) -> impl Iterator<Item = Finding> {
    content.expiring.iter().map(move |(member, seconds)| {
        let text = format!(
            "{name} expires by {member} after {seconds} s: each is a deletion in the streams"
        );
        Finding::ok("expiry", text)
    })
}

fn sample(name: &str, sample: &Sample) -> impl Iterator<Item = Finding> {
    let said = [
        (
            sample.foreign_key,
            ("keys", Level::Fail, None),
            "have an _id that is neither a string nor an ObjectId: they are in no stream",
        ),
        (
            sample.twin_key,
            ("twins", Level::Fail, None),
            "have an _id that reads like another's, the one a text and the other an ObjectId: both \
             are one resource to a stream, which is deleted with either of them",
        ),
        (
            sample.other_id,
            ("ids", Level::Slow, None),
            "have an id that is not their _id: they are served under their _id, and references \
             to the other lead nowhere",
        ),
        (
            sample.updated_text,
            ("updated", Level::Slow, Some(dates_from_texts(name))),
            "have meta.lastUpdated as text, not as a date: `_since` and `_until` read the whole \
             collection, and leave out what is no FHIR instant",
        ),
        (
            sample.updated_missing,
            ("updated", Level::Slow, None),
            "have no date in meta.lastUpdated: no `_since` or `_until` finds them, only a whole \
             export does",
        ),
    ];
    let of = sample.documents;
    said.into_iter().filter(|(count, ..)| *count > 0).map(
        move |(count, (check, level, mend), what)| {
            let text = format!("{name}: {count} of {of} sampled documents {what}");
            Finding { level, mend, ..Finding::ok(check, text) }
        },
    )
}

/// The command that makes dates of texts; what it can't read stays.
fn dates_from_texts(name: &str) -> String {
    format!(
        "db.{name}.updateMany({{\"meta.lastUpdated\": {{$type: \"string\"}}}}, \
         [{{$set: {{\"meta.lastUpdated\": {{$convert: {{input: \"$meta.lastUpdated\", \
         to: \"date\", onError: \"$meta.lastUpdated\"}}}}}}}}])"
    )
}
