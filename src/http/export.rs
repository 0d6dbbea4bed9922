//! `$export`: a request becomes a session, and its frames the body.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    AppState, blocking,
    caller::Caller,
    limits::Full,
    request::{OfId, OfType, content_encoding, content_type},
    search,
};
use crate::{
    error::{ApiError, CLOSE},
    fhir::{
        ResourceType,
        outcome::{self, IssueType},
    },
    filter::members_of,
    frame::{self, Format},
    plan::{Grant, Members, Plan, Scope},
    request::{ExportRequest, Level, Pairs, pairs, parameters},
    session::{Outgoing, Place, Session, millis, spread},
    store::{self, Clue, Lookup, Scan, Sought, StoreError, detached},
};

pub(super) fn routes() -> Router<AppState> {
    // Some clients write '$' as '%24', which the router would not take for the same.
    ["$export", "%24export"].into_iter().fold(Router::new(), |router, export| {
        router
            .route(&format!("/fhir/{export}"), get(system).post(system))
            .route(&format!("/fhir/{{type}}/{export}"), get(of_type).post(of_type))
            .route(&format!("/fhir/Group/{{id}}/{export}"), get(of_group).post(of_group))
    })
}

async fn system(State(app): State<AppState>, asked: Asked) -> Result<Response, ApiError> {
    export(app, Level::System, asked).await
}

async fn of_type(
    State(app): State<AppState>,
    OfType(ty): OfType,
    asked: Asked,
) -> Result<Response, ApiError> {
    let level = if ty.name() == "Patient" { Level::Patients } else { Level::Type(ty) };
    export(app, level, asked).await
}

async fn of_group(
    State(app): State<AppState>,
    OfId(id): OfId,
    asked: Asked,
) -> Result<Response, ApiError> {
    export(app, Level::Group(id), asked).await
}

/// A GET's query; of a POST, that and a `Parameters` in its body.
struct Asked {
    caller: Caller,
    headers: HeaderMap,
    pairs: Pairs,
}

impl FromRequest<AppState> for Asked {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let Ok(caller) = Caller::from_request_parts(&mut parts, app).await;
        let mut pairs = pairs(parts.uri.query().unwrap_or_default().as_bytes());
        if parts.method == Method::POST {
            pairs.extend(body_pairs(app, &parts.headers, body).await?);
        }
        Ok(Self { caller, headers: parts.headers, pairs })
    }
}

async fn body_pairs(app: &AppState, headers: &HeaderMap, body: Body) -> Result<Pairs, ApiError> {
    content_encoding(headers)?;
    let body = app.bodies.read(body).await?;
    if body.text.is_empty() {
        return Ok(Pairs::new());
    }
    content_type(headers)?;
    blocking(move || parameters(&body.text)).await
}

async fn export(app: AppState, level: Level, asked: Asked) -> Result<Response, ApiError> {
    let Asked { mut caller, headers, pairs } = asked;
    let base = search::base(&app, &headers)?;
    let base = base.contains("://").then(|| format!("{base}/"));
    let request = ExportRequest::parse(level, pairs, &headers, base.as_deref(), Grant::Everything)?;
    if app.drain.is_cancelled() {
        return come_again(&app, &request, Refused::stopping());
    }
    let place = match admit(&app, caller.address(), &request).await {
        Ok(place) => place,
        Err(refused) => return come_again(&app, &request, refused),
    };
    let ended = !request.plan.follow && request.start.as_ref().is_some_and(|p| p.scan.is_none());
    if ended && request.format == Format::Sse {
        // All of a stream that ends has been sent: 204 keeps an EventSource from coming again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let head = head(&request)?;
    let ExportRequest { plan, format, start, .. } = request;
    let (store, hub) = (Arc::clone(&app.store), Arc::clone(&app.hub));
    let mut session = Session::new(Arc::new(plan), store, hub, format, start);
    let turns = app.limits.scans();
    let turn = match format {
        Format::Sse => None,
        Format::Ndjson => match turns.take_now() {
            None => return Err(Full::Scans.refusal(spread(app.options.retry))),
            turn => turn,
        },
    };
    session.scans_in_turn(Arc::clone(turns), turn);
    let outgoing = Outgoing::new(session, app.times(), app.admission(place, &mut caller));
    Ok(match caller.takeover {
        Some(takeover) if format == Format::Sse => takeover.answer(head, outgoing),
        _ => (head, outgoing.into_body()).into_response(),
    })
}

/// Why there is no stream.
enum Refused {
    /// The caller's mistake, which coming again does not mend.
    Caller(ApiError),
    /// It may go at another time.
    Now(ApiError),
}

impl Refused {
    fn stopping() -> Self {
        Self::Now(StoreError::Unavailable("this server is stopping".into()).into())
    }

    fn store(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::SnapshotExpired => Self::Now(error.into()),
            error => Self::Caller(error.into()),
        }
    }
}

/// Whether there is a place for the stream, and a store that can answer it.
async fn admit(
    app: &AppState,
    peer: Option<IpAddr>,
    request: &ExportRequest,
) -> Result<Place, Refused> {
    let full = |full: Full| Refused::Now(full.refusal(spread(app.options.retry)));
    let place = app.limits.place(peer).map_err(full)?;
    check_scope(app, request).await?;
    Ok(place)
}

/// What only the store knows: whether the group is there, and whether a compartment can be
/// followed without a leak.
async fn check_scope(app: &AppState, request: &ExportRequest) -> Result<(), Refused> {
    let plan = &request.plan;
    let mut members = None;
    if let Scope::Group(id) = &plan.scope {
        let absent = || {
            let text = format!("there is no Group/{id}.");
            Refused::Caller(ApiError::not_found(text).at("id"))
        };
        members = members_of(&read(app, "Group", id).await?.ok_or_else(absent)?);
    }
    // A stream that is gone on with has them, whoever was deleted meanwhile.
    if request.start.is_none() && !request.lenient {
        check_patients(app, plan, members.as_ref()).await?;
    }
    if plan.follow && plan.is_restricted() {
        plan.types.iter().try_for_each(|ty| app.store.before_images(*ty)).map_err(|mend| {
            let text = format!(
                "this export can't go on live: it must tell when a resource leaves a \
                 compartment. {mend}"
            );
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Refused::Caller(ApiError::new(status, IssueType::NotSupported, text))
        })?;
    }
    Ok(())
}

/// Whether the patients whom the request names are there, or are members of its group.
async fn check_patients(
    app: &AppState,
    plan: &Plan,
    members: Option<&Members>,
) -> Result<(), Refused> {
    let missing = |what: String| {
        let text =
            format!("patient: {what}. With 'Prefer: handling=lenient' that does not matter.");
        Err(Refused::Caller(ApiError::not_found(text).at("patient")))
    };
    let Some(patients) = &plan.patients else { return Ok(()) };
    match members {
        Some(members) => match patients.ids().find(|id| !members.contains(id)) {
            Some(id) => missing(format!("Patient/{id} is no member of the group")),
            None => Ok(()),
        },
        None => match absent(app, patients.ids()).await? {
            Some(id) => missing(format!("there is no Patient/{id}")),
            None => Ok(()),
        },
    }
}

/// One of the patients who is not there, if any is: one question, however many they are.
async fn absent<'p>(
    app: &AppState,
    ids: impl Iterator<Item = &'p str>,
) -> Result<Option<&'p str>, Refused> {
    let mut absent: BTreeSet<&str> = ids.collect();
    if let (1, Some(id)) = (absent.len(), absent.first()) {
        let found = read(app, "Patient", id).await?;
        return Ok(absent.pop_first().filter(|_| found.is_none()));
    }
    let Some(ty) = ResourceType::parse("Patient") else { return Ok(None) };
    let values = absent.iter().map(|id| Sought::Text((*id).to_owned())).collect();
    let clues = [Clue { places: vec![store::Place { path: vec!["id"], values }] }].into();
    let store = Arc::clone(&app.store);
    let snapshot = detached(async move { store.snapshot().await }).await;
    let mut found = snapshot.map_err(Refused::store)?.scan(Scan { clues, ..Scan::of(ty) });
    while let Some(batch) = found.recv().await {
        let batch = batch.map_err(Refused::store)?;
        for key in (0..batch.len()).filter_map(|index| batch.key(index)) {
            absent.remove(&*key.doc().to_string());
        }
    }
    Ok(absent.pop_first())
}

/// A stored resource.
async fn read(app: &AppState, name: &str, id: &str) -> Result<Option<Bytes>, Refused> {
    let Some(ty) = ResourceType::parse(name) else { return Ok(None) };
    Ok(match app.read(ty, id).await.map_err(Refused::store)? {
        Lookup::Found { json, .. } => Some(json),
        Lookup::Absent | Lookup::Deleted { .. } => None,
    })
}

/// An EventSource gives up for good on any status but 200: what it should survive is told in
/// the stream. Who can set `Prefer` can read a status.
fn come_again(
    app: &AppState,
    request: &ExportRequest,
    refused: Refused,
) -> Result<Response, ApiError> {
    match refused {
        Refused::Now(error) if request.format == Format::Sse && !request.preferred => {
            let why = outcome::error(error.code, &error.diagnostics, &error.expression);
            let retry = frame::retry(millis(spread(app.options.retry)));
            let body = [frame::outcome(&why), retry].concat();
            let mut head = head(request)?;
            head.insert(header::CONNECTION, CLOSE);
            Ok((head, Body::from(body)).into_response())
        }
        Refused::Now(error) | Refused::Caller(error) => Err(error),
    }
}

fn head(request: &ExportRequest) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    let media_type = HeaderValue::from_static(request.format.media_type());
    headers.insert(header::CONTENT_TYPE, media_type);
    let cache = HeaderValue::from_static("no-store, no-transform");
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if request.preferred {
        headers.insert("preference-applied", HeaderValue::from_static("respond-eventsource"));
    }
    if !request.ignored.is_empty() {
        let ignored = request.ignored.join(", ");
        let ignored: String = ignored.chars().filter(char::is_ascii_graphic).take(500).collect();
        if let Ok(value) = HeaderValue::from_str(&ignored) {
            headers.insert("x-ignored-parameters", value);
        }
    }
    Ok(headers)
}
