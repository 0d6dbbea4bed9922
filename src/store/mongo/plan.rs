//! What a commit writes, decided from what is there. Pure.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use jiff::Timestamp;
use mongodb::bson::{Bson, RawBson, RawDocumentBuf, rawdoc};

use super::{
    Shared, decode, encode,
    head::Head,
    write::{ByResource, tombstone_id},
};
use crate::{
    fhir::{ResourceType, instant, resource::Resource},
    store::{Action, DocId, DocRef, Effect, Expect, Write, WriteError, Written},
};

/// A current version.
#[derive(Debug)]
pub(super) struct Current {
    doc: DocId,
    document: RawDocumentBuf,
    version: u64,
    updated_ms: Option<i64>,
}

/// What a transaction found.
#[derive(Debug, Default)]
pub(super) struct There {
    current: ByResource<Current>,
    /// Versions of deletions, by [`tombstone_id`].
    pub(super) tombstones: HashMap<String, u64>,
}

impl There {
    /// Takes note of a document. The first of an id counts.
    pub(super) fn add(&mut self, ty: ResourceType, document: RawDocumentBuf) {
        let Ok(head) = Head::of(document.as_bytes()) else { return };
        let (version, updated_ms) = (head.version, head.updated_ms);
        let Some(doc) = head.doc.map(DocRef::to_doc) else { return };
        let id = encode::id_text(&doc);
        let current = Current { doc, document, version, updated_ms };
        self.current.entry((ty, id)).or_insert(current);
    }

    /// The current version of what a write names.
    pub(super) fn current(&self, write: &Write) -> Option<&Current> {
        self.current.get(&(write.ty, write.id.as_str().into()))
    }
}

/// The writes of one transaction, by collection.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) inserts: BTreeMap<ResourceType, Vec<Statement>>,
    pub(super) replacements: BTreeMap<ResourceType, Vec<Statement>>,
    pub(super) deletes: BTreeMap<ResourceType, Vec<Bson>>,
    /// Tombstones to set.
    pub(super) tombstones: Vec<Statement>,
    /// Tombstones to remove.
    pub(super) revived: Vec<String>,
}

/// A part of a command: a document to insert, or how one is replaced.
#[derive(Debug)]
pub(super) struct Statement {
    /// The place of its write among those of the transaction.
    pub(super) write: usize,
    pub(super) document: RawDocumentBuf,
}

impl Statement {
    fn replacement(write: usize, key: RawBson, document: RawDocumentBuf, upsert: bool) -> Self {
        let document = rawdoc! {"q": {"_id": key}, "u": document, "upsert": upsert};
        Self { write, document }
    }
}

/// Decides. An error is the first write that can't be.
pub(super) fn plan(
    shared: &Shared,
    writes: &[Write],
    there: &There,
) -> Result<(Vec<Written>, Changes), WriteError> {
    let now = Timestamp::now();
    let mut planner = Planner {
        shared,
        there,
        now: instant::from_millis(now.as_millisecond()).unwrap_or(now),
        changes: Changes::default(),
    };
    let outcomes = writes.iter().enumerate().map(|(index, write)| planner.write(index, write));
    let written = outcomes.collect::<Result<_, _>>()?;
    Ok((written, planner.changes))
}

struct Planner<'p> {
    shared: &'p Shared,
    there: &'p There,
    now: Timestamp,
    changes: Changes,
}

impl Planner<'_> {
    fn write(&mut self, index: usize, write: &Write) -> Result<Written, WriteError> {
        let current = self.there.current(write);
        let found = current.map(|current| current.version);
        let as_expected = match write.expect {
            Expect::Any => true,
            Expect::Absent => found.is_none(),
            Expect::Version(version) => found == Some(version),
        };
        if !as_expected {
            return Err(WriteError::Conflict { index, found });
        }
        match (&write.action, current) {
            (Action::Delete, None) => Ok(self.missing(write)),
            (Action::Delete, Some(current)) => self.delete(index, write, current),
            (Action::Put(resource), None) => self.create(index, write, resource),
            (Action::Put(resource), Some(current)) => self.update(index, write, resource, current),
        }
    }

    fn missing(&self, write: &Write) -> Written {
        let version = self.tombstone(write).unwrap_or(0);
        Written { effect: Effect::Missing, version, last_updated: self.now, json: None }
    }

    fn tombstone(&self, write: &Write) -> Option<u64> {
        self.there.tombstones.get(&tombstone_id(write.ty, &write.id)).copied()
    }

    fn delete(
        &mut self,
        index: usize,
        write: &Write,
        current: &Current,
    ) -> Result<Written, WriteError> {
        let version = next(index, current.version)?;
        let name = tombstone_id(write.ty, &write.id);
        let tombstone = rawdoc! {"_id": name.as_str(), "version": version.cast_signed()};
        let tombstone = Statement::replacement(index, RawBson::String(name), tombstone, true);
        self.changes.tombstones.push(tombstone);
        self.changes.deletes.entry(write.ty).or_default().push(decode::key(&current.doc));
        Ok(Written { effect: Effect::Deleted, version, last_updated: self.now, json: None })
    }

    fn create(
        &mut self,
        index: usize,
        write: &Write,
        resource: &Resource,
    ) -> Result<Written, WriteError> {
        let tombstone = self.tombstone(write);
        let version = next(index, tombstone.unwrap_or(0))?;
        let doc = DocId::Text(write.id.as_str().into());
        let (document, json) = self.stamped(index, write, resource, &doc, version)?;
        let statement = Statement { write: index, document };
        self.changes.inserts.entry(write.ty).or_default().push(statement);
        if tombstone.is_some() {
            self.changes.revived.push(tombstone_id(write.ty, &write.id));
        }
        let json = Some(json);
        Ok(Written { effect: Effect::Created, version, last_updated: self.now, json })
    }

    fn update(
        &mut self,
        index: usize,
        write: &Write,
        resource: &Resource,
        current: &Current,
    ) -> Result<Written, WriteError> {
        let stored = self.shared.json(write.ty, current.document.as_bytes());
        let new = resource.clone().with_id(&write.id);
        let parsed = stored.as_ref().and_then(|stored| Resource::parse(stored).ok());
        if parsed.is_some_and(|old| old.same_content(&new)) {
            return Ok(Written {
                effect: Effect::Unchanged,
                version: current.version,
                last_updated: current.updated_ms.and_then(instant::from_millis).unwrap_or_default(),
                json: stored,
            });
        }
        let version = next(index, current.version)?;
        let (document, json) = self.stamped(index, write, &new, &current.doc, version)?;
        let key = decode::raw_key(&current.doc);
        let replacement = Statement::replacement(index, key, document, false);
        self.changes.replacements.entry(write.ty).or_default().push(replacement);
        let json = Some(json);
        Ok(Written { effect: Effect::Updated, version, last_updated: self.now, json })
    }

    /// The document of a new version, and the JSON that every reader will get.
    fn stamped(
        &self,
        index: usize,
        write: &Write,
        resource: &Resource,
        doc: &DocId,
        version: u64,
    ) -> Result<(RawDocumentBuf, Bytes), WriteError> {
        let stamped = resource.clone().with_id(&write.id).stamped(version, self.now);
        let document = decode::document(&stamped, doc, &self.shared.layout)
            .map_err(|why| WriteError::Unstorable { index, why })?;
        let json = self.shared.json(write.ty, document.as_bytes()).ok_or_else(|| {
            WriteError::Unstorable { index, why: "the resource nests too deep".into() }
        })?;
        Ok((document, json))
    }
}

/// The version after another. A tombstone has 63 bits for it.
fn next(index: usize, version: u64) -> Result<u64, WriteError> {
    let next = version.checked_add(1).filter(|next| i64::try_from(*next).is_ok());
    next.ok_or_else(|| {
        let why = format!("no version can follow meta.versionId {version}");
        WriteError::Unstorable { index, why }
    })
}
