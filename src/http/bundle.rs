//! `POST /fhir`: a batch's entries each for itself, a transaction's all or none.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    AppState, blocking,
    bodies::MOST_ENTRIES,
    conditions::{Return, etag, has_current, preferred_return},
    entries::{Entries, Planned, in_entry, plan, writes_of},
    read::find,
    request::{JsonBody, TakesJson},
    write::{outcome_of, said, status},
};
use crate::{
    error::{ApiError, FHIR_JSON},
    fhir::{
        bundle::{BadEntry, Bundle, BundleKind, Entry},
        instant,
        outcome::{self, IssueType},
    },
    store::{Effect, Written},
};

/// How many entries of a batch are on their way at once, so that the store can commit them
/// together.
const BATCH_WIDTH: usize = 64;

/// `POST /fhir`
pub(super) async fn post(
    State(app): State<AppState>,
    _: TakesJson,
    headers: HeaderMap,
    JsonBody(body, _share): JsonBody,
) -> Result<Response, ApiError> {
    let prefer = preferred_return(&headers).unwrap_or(Return::Minimal);
    let (kind, entries) = blocking(move || read(&body)).await?;
    let _done = app.bodies.entries(entries.len()).await?;
    let (kind, answers) = match kind {
        BundleKind::Batch => ("batch-response", batch(&app, entries, prefer).await),
        BundleKind::Transaction => {
            ("transaction-response", transaction(&app, entries, prefer).await?)
        }
        other => {
            let why = format!(
                "only a batch or a transaction is performed, not a {other:?}: a Bundle is stored by POST to Bundle"
            );
            return Err(ApiError::invalid("Bundle.type", why));
        }
    };
    let json = blocking(move || Ok(response(kind, &answers))).await?;
    Ok(([(header::CONTENT_TYPE, FHIR_JSON)], json).into_response())
}

fn read(body: &[u8]) -> Result<(BundleKind, Entries), ApiError> {
    let bundle = Bundle::parse(body)?;
    if bundle.count() > MOST_ENTRIES {
        let why = format!(
            "this Bundle has {} entries, and may have {MOST_ENTRIES}: send it in parts",
            bundle.count()
        );
        let refusal = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, IssueType::TooCostly, why);
        return Err(refusal.at("Bundle.entry"));
    }
    Ok((bundle.kind, bundle.entries().collect()))
}

async fn batch(app: &AppState, entries: Entries, prefer: Return) -> Vec<Answer> {
    let read = AtomicUsize::new(0);
    let perform = |(index, entry): (usize, Result<Entry, BadEntry>)| {
        let (app, read) = (app.clone(), &read);
        async move {
            let done = perform(&app, entry, prefer, read).await;
            done.unwrap_or_else(|error| Answer::refused(&in_entry(index, error)))
        }
    };
    stream::iter(entries.into_iter().enumerate()).map(perform).buffered(BATCH_WIDTH).collect().await
}

async fn perform(
    app: &AppState,
    entry: Result<Entry, BadEntry>,
    prefer: Return,
    read: &AtomicUsize,
) -> Result<Answer, ApiError> {
    match plan(entry?)? {
        Planned::Read { target, if_none_match } => {
            let most = app.bodies.limit();
            if read.load(Relaxed) > most {
                return Err(too_much(most));
            }
            let current = find(app, &target).await?;
            read.fetch_add(current.json.len(), Relaxed);
            let known = if_none_match.is_some_and(|known| has_current(&known, current.version));
            Ok(Answer {
                status: if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK },
                etag: (current.version != 0).then(|| etag(current.version)),
                last_modified: current.last_updated.map(instant::text),
                resource: Some(current.json).filter(|_| !known),
                ..Answer::default()
            })
        }
        Planned::Write(write) => {
            let name = format!("{}/{}", write.ty, write.id);
            let written = outcome_of(app.commit(vec![write]).await?.pop())?;
            Ok(Answer::written(&name, written, prefer))
        }
    }
}

/// A few bytes that ask stand for a whole resource: what a batch reads is no larger than what it may
/// write.
fn too_much(most: usize) -> ApiError {
    let why = format!("this batch has read {most} bytes and more: ask for the rest in another");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, IssueType::TooCostly, why)
}

async fn transaction(
    app: &AppState,
    entries: Entries,
    prefer: Return,
) -> Result<Vec<Answer>, ApiError> {
    let writes = blocking(move || writes_of(entries)).await?;
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = writes.iter().map(|write| format!("{}/{}", write.ty, write.id)).collect();
    let written = app.commit(writes).await.map_err(|error| match error.index() {
        Some(index) => in_entry(index, error.into()),
        None => error.into(),
    })?;
    let mut written = written.into_iter();
    let answer = |name: &String| Ok(Answer::written(name, outcome_of(written.next())?, prefer));
    names.iter().map(answer).collect()
}

/// `Bundle.entry` of a response.
#[derive(Default)]
struct Answer {
    status: StatusCode,
    location: Option<String>,
    etag: Option<String>,
    last_modified: Option<String>,
    resource: Option<Bytes>,
    outcome: Option<Bytes>,
}

impl Answer {
    fn written(name: &str, written: Written, prefer: Return) -> Self {
        let exists = written.effect != Effect::Missing;
        let is_current = written.json.is_some();
        Self {
            status: status(written.effect),
            location: is_current.then(|| format!("{name}/_history/{}", written.version)),
            etag: exists.then(|| etag(written.version)),
            last_modified: exists.then(|| instant::text(written.last_updated)),
            outcome: (prefer == Return::Outcome).then(|| said(name, &written)),
            resource: written.json.filter(|_| prefer == Return::Representation),
        }
    }

    fn refused(error: &ApiError) -> Self {
        let outcome = outcome::error(error.code, &error.diagnostics, &error.expression);
        Self { status: error.status, outcome: Some(outcome), ..Self::default() }
    }
}

/// The response Bundle as compact JSON.
fn response(kind: &'static str, answers: &[Answer]) -> Bytes {
    let entry = answers.iter().map(EntryOut::from).collect();
    let bundle = BundleOut { resource_type: "Bundle", r#type: kind, entry };
    // Strings and texts that are JSON: serialization can't fail.
    serde_json::to_vec(&bundle).unwrap_or_default().into()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BundleOut<'a> {
    resource_type: &'static str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entry: Vec<EntryOut<'a>>,
}

#[derive(Serialize)]
struct EntryOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a RawValue>,
    response: ResponseOut<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseOut<'a> {
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a RawValue>,
}

impl<'a> From<&'a Answer> for EntryOut<'a> {
    fn from(answer: &'a Answer) -> Self {
        let raw = |json: &'a Option<Bytes>| serde_json::from_slice(json.as_deref()?).ok();
        Self {
            resource: raw(&answer.resource),
            response: ResponseOut {
                status: answer.status.to_string(),
                location: answer.location.as_deref(),
                etag: answer.etag.as_deref(),
                last_modified: answer.last_modified.as_deref(),
                outcome: raw(&answer.outcome),
            },
        }
    }
}
