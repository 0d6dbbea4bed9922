//! Events of the change stream → changes of resources. Pure, but for what the catalog knows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;
use mongodb::bson::RawDocumentBuf;

use super::{
    Shared, encode,
    event::Event,
    head::Head,
    layout::Layout,
    lookup::{Found, Place},
    unreadable,
};
use crate::{
    fhir::{
        ResourceType,
        element::{members, text_of},
        instant,
    },
    position::LogPosition,
    store::{Before, Change, ChangeKind, Image},
};

/// What an event says.
#[derive(Debug, Default)]
pub(super) struct Mapped {
    /// In order; none for events of collections that hold no resources.
    pub(super) steps: Vec<Step>,
    /// Collections came or went.
    pub(super) listing_changed: bool,
}

/// A change, complete but for its document perhaps.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) change: Change,
    /// Whether the document is still to be read.
    pub(super) open: bool,
}

impl Step {
    /// Whose change it is, if it is that of one document.
    pub(super) fn place(&self) -> Option<Place> {
        match &self.change.kind {
            ChangeKind::Upsert { ty, doc, .. } | ChangeKind::Delete { ty, doc, .. } => {
                Some((*ty, doc.clone()))
            }
            ChangeKind::Deferred { .. } | ChangeKind::Replaced { .. } => None,
        }
    }

    /// It stands for earlier changes too, before which this was there.
    pub(super) fn stand_after(&mut self, was: Before) {
        if let ChangeKind::Upsert { before, .. } | ChangeKind::Delete { before, .. } =
            &mut self.change.kind
        {
            *before = was;
        }
    }

    /// What became of its document, where it has none, is told by `until`.
    pub(super) fn defer(&mut self, until: LogPosition) {
        if let (true, ChangeKind::Upsert { ty, .. }) = (self.open, &self.change.kind) {
            self.change.kind = ChangeKind::Deferred { ty: *ty, until };
            self.open = false;
        }
    }

    /// The document before the change, where that is known.
    fn found_before(&self) -> Option<Found> {
        let json = self.change.kind.before().json()?;
        let [meta] = members(str::from_utf8(&json).ok()?, ["meta"]);
        let updated = meta.and_then(|meta| text_of(members(meta, ["lastUpdated"])[0]));
        let updated_ms =
            updated.and_then(|text| instant::parse(&text)).map(Timestamp::as_millisecond);
        Some(Found { json, updated_ms })
    }

    /// Puts in the document.
    pub(super) fn fill(&mut self, found: Found) {
        if let ChangeKind::Upsert { json, updated_ms, .. } = &mut self.change.kind {
            *json = found.json;
            *updated_ms = found.updated_ms;
            self.open = false;
        }
    }
}

/// Gives each change that came without its document what was before the next change of the same.
pub(super) fn fill_from_images(steps: &mut [Step]) {
    let mut later = HashMap::<Place, usize>::new();
    for at in (0..steps.len()).rev() {
        let Some(place) = steps[at].place() else { continue };
        let next = later.insert(place, at).filter(|_| steps[at].open);
        if let Some(found) = next.and_then(|next| steps[next].found_before()) {
            steps[at].fill(found);
        }
    }
}

/// Maps an event whose consumption leads to `position`.
pub(super) fn steps(shared: &Arc<Shared>, event: &Event<'_>, position: LogPosition) -> Mapped {
    let ty = shared.layout.type_of(event.collection);
    let replaced = |types: Vec<ResourceType>| Mapped {
        steps: types.into_iter().map(|ty| whole(event, position, ty)).collect(),
        listing_changed: true,
    };
    match (event.operation, ty) {
        ("insert" | "update" | "replace" | "delete", Some(ty)) => Mapped {
            steps: one(shared, event, position, ty).into_iter().collect(),
            listing_changed: shared.catalog().get(ty).is_none(),
        },
        ("drop", Some(ty)) => replaced(vec![ty]),
        ("rename", _) => {
            let target = event.renamed_to.and_then(|name| shared.layout.type_of(name));
            replaced(ty.into_iter().chain(target).collect())
        }
        ("dropDatabase", _) => replaced(ResourceType::all().collect()),
        _ => Mapped::default(),
    }
}

fn change(event: &Event<'_>, position: LogPosition, kind: ChangeKind) -> Change {
    Change::new(position, event.committed(), kind)
}

fn whole(event: &Event<'_>, position: LogPosition, ty: ResourceType) -> Step {
    let kind = ChangeKind::Replaced { ty };
    Step { change: change(event, position, kind), open: false }
}

/// The change of one document.
fn one(
    shared: &Arc<Shared>,
    event: &Event<'_>,
    position: LogPosition,
    ty: ResourceType,
) -> Option<Step> {
    let Some(doc) = event.doc.clone() else {
        unreadable(ty, "its _id is neither a string nor an ObjectId");
        return None;
    };
    let lacks_document = event.operation != "delete" && event.after.is_none();
    if lacks_document && shared.catalog().get(ty).is_some_and(|facts| facts.capped) {
        // MongoDB reads it as of no instant. Who begins anew is told so; all others go on.
        return Some(whole(event, position, ty));
    }
    let id = encode::id_text(&doc);
    let before = before(shared, event, ty);
    let (open, kind) = if event.operation == "delete" {
        (false, ChangeKind::Delete { ty, id, doc, before })
    } else {
        let (updated_ms, json) = match event.after {
            Some(after) => {
                let updated_ms = Head::of(after).ok().and_then(|head| head.updated_ms);
                (updated_ms, shared.json(ty, after)?)
            }
            None => (None, Bytes::new()),
        };
        let upsert = ChangeKind::Upsert { ty, id, doc, updated_ms, json, before };
        (lacks_document, upsert)
    };
    Some(Step { change: change(event, position, kind), open })
}

fn before(shared: &Arc<Shared>, event: &Event<'_>, ty: ResourceType) -> Before {
    let image = event.before.and_then(|image| RawDocumentBuf::from_bytes(image.to_vec()).ok());
    match image {
        _ if event.operation == "insert" => Before::Absent,
        None => Before::Unknown,
        Some(image) => {
            let (layout, bytes) = (shared.layout.clone(), image.as_bytes().len());
            let kept = Mutex::new(Kept::Stored(image));
            let encode =
                move || kept.lock().unwrap_or_else(PoisonError::into_inner).json(ty, &layout);
            Before::Known(Image { bytes, encode: Arc::new(encode) })
        }
    }
}

/// A before-image: as it came, and once it was asked for as JSON in its place.
enum Kept {
    Stored(RawDocumentBuf),
    Json(Option<Bytes>),
}

impl Kept {
    fn json(&mut self, ty: ResourceType, layout: &Layout) -> Option<Bytes> {
        if let Self::Stored(image) = self {
            *self = Self::Json(encode::json(image.as_bytes(), ty, layout).ok());
        }
        match self {
            Self::Json(json) => json.clone(),
            Self::Stored(_) => None,
        }
    }
}
