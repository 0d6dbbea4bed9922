//! `GET /fhir/{type}` and `POST /fhir/{type}/_search`: a search's answer, written while the type is
//! read.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tokio::{pin, time::sleep};

use super::{
    AppState,
    export::{Caller, pairs},
    limits::Full,
    request::{OfType, collect, is_json, text_of},
};
use crate::{
    error::{ApiError, FHIR_JSON},
    fhir::{ResourceType, outcome::IssueType},
    history::History,
    plan::{Grant, Plan, Scope},
    request::{NDJSON, Pairs, Prefer, list, media_range},
    search::{Answer, Context, Search, Shape, SortBy, SortKey, Subset, Summary},
    session::{CutOff, OpenStream, Phase, Place, count_sent, drained, spread},
    store::{Snapshot, Store, StoreError, Window, detached},
};

/// About how many bytes are read before some are sent.
const CHUNK_BYTES: usize = 64 << 10;
/// How often in a row a snapshot may expire, or the store be away, before more is read; and the
/// pause between, which grows by itself.
const MOST_FAILURES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// `GET /fhir/{type}`
pub(super) async fn get(
    State(app): State<AppState>,
    OfType(ty): OfType,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    search(app, ty, caller, pairs(query)?, &headers).await
}

/// `POST /fhir/{type}/_search`: parameters in the URL, and in a form.
pub(super) async fn post(
    State(app): State<AppState>,
    OfType(ty): OfType,
    caller: Caller,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let mut all = pairs(query)?;
    all.extend(form(&app, &headers, request.into_body()).await?);
    search(app, ty, caller, all, &headers).await
}

async fn form(app: &AppState, headers: &HeaderMap, body: Body) -> Result<Pairs, ApiError> {
    const FORM: &str = "application/x-www-form-urlencoded";
    let given = text_of(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let body = collect(body, &app.options).await?;
    if body.is_empty() {
        return Ok(Pairs::new());
    }
    if !given.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(FORM)) {
        let why = format!("'{given}' is not read here: send the parameters as {FORM}.");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, IssueType::NotSupported, why).at("Content-Type"));
    }
    // No URL is longer, and a form is read as the query of one.
    const MOST_BYTES: usize = 65_000;
    if body.len() > MOST_BYTES {
        let why = format!("the form is longer than {MOST_BYTES} bytes. Ask in several searches.");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, IssueType::TooLong, why));
    }
    pairs(Some(String::from_utf8_lossy(&body).into_owned()))
}

async fn search(
    app: AppState,
    ty: ResourceType,
    caller: Caller,
    pairs: Pairs,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let base = base(&app, headers)?;
    let with_slash = format!("{base}/");
    let lenient = Prefer::parse(headers).lenient;
    let context = Context { lenient, base: base.contains("://").then_some(&*with_slash) };
    let search = Search::parse(ty, &pairs, context)?;
    let shape = shape(search.options.format.as_deref(), headers)?;
    check_options(&search, shape)?;
    if app.drain.is_cancelled() {
        return Err(StoreError::Unavailable("this server is stopping".into()).into());
    }
    let full = |full: Full| full.refusal(spread(app.options.retry));
    let place = app.limits.place(caller.peer).map_err(full)?;
    let turn = app.limits.scan_now().map_err(full)?;
    // Whoever can't be answered hears so by a status.
    let snapshot = snapshot_of(&app.store).await?;
    let link = format!("{base}/{ty}{}", query_of(&pairs, &search.ignored));
    let head = head(shape, &search.ignored);
    let answer = answer(&search, shape, format!("{base}/{ty}/"));
    let place = place.into_iter().chain([turn]).collect();
    let found = Found { app, search, snapshot, answer, link };
    Ok((head, found.into_body(place, caller.cut_off)).into_response())
}

/// This server's base URL, as its caller knows it.
fn base(app: &AppState, headers: &HeaderMap) -> Result<String, ApiError> {
    let base = &app.options.base;
    Ok(match text_of(headers, &header::HOST)? {
        Some(host) if base.starts_with('/') => format!("http://{host}{base}"),
        _ => base.to_string(),
    })
}

fn answer(search: &Search, shape: Shape, full_url: String) -> Answer {
    let options = &search.options;
    let counts = options.summary == Some(Summary::Count) || options.count == Some(0);
    Answer::new(shape, full_url, Subset::of(search.ty, options), counts)
}

/// Refuses what can be asked for, and is not done.
fn check_options(search: &Search, shape: Shape) -> Result<(), ApiError> {
    let options = &search.options;
    let in_order = [SortKey { by: SortBy::Id, descending: false }];
    if !options.sort.is_empty() && options.sort != in_order {
        const WHY: &str = "_sort: a search is sorted by _id, and by nothing else. Send _sort=_id, \
                           or leave it out.";
        return Err(not_supported(WHY, "_sort"));
    }
    if shape == Shape::Ndjson && options.summary == Some(Summary::Count) {
        const WHY: &str = "_summary=count: lines tell no count. Ask with Accept: \
                           application/fhir+json.";
        return Err(not_supported(WHY, "_summary"));
    }
    Ok(())
}

fn not_supported(why: &str, name: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, IssueType::NotSupported, why).at(name)
}

/// `_format`, or what `Accept` likes best.
fn shape(format: Option<&str>, headers: &HeaderMap) -> Result<Shape, ApiError> {
    let of = |name: &str| match name {
        "*/*" | "application/*" => Some(Shape::Bundle),
        name if is_json(name) => Some(Shape::Bundle),
        name if name == "ndjson" || NDJSON.contains(&name) => Some(Shape::Ndjson),
        _ => None,
    };
    if let Some(format) = format {
        // A '+' that was not written as %2B arrives as a space.
        let name = format.to_ascii_lowercase().replace(' ', "+");
        return of(&name).ok_or_else(|| not_acceptable("_format"));
    }
    if !headers.contains_key(header::ACCEPT) {
        return Ok(Shape::Bundle);
    }
    let ranges = list(headers, &header::ACCEPT).map(media_range);
    let known = ranges.filter(|(_, quality)| *quality > 0);
    // Of equals the first.
    let known = known.filter_map(|(name, quality)| Some((quality, of(&name)?)));
    let best = known.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, shape)| shape).ok_or_else(|| not_acceptable("Accept"))
}

fn not_acceptable(name: &str) -> ApiError {
    const WHY: &str = "a search is answered as application/fhir+json (one Bundle) or as \
                       application/fhir+ndjson (a resource a line). Ask for one of them.";
    ApiError::new(StatusCode::NOT_ACCEPTABLE, IssueType::NotSupported, WHY).at(name)
}

/// The parameters that count, as the query of a URL.
fn query_of(pairs: &[(String, String)], ignored: &[String]) -> String {
    let counting = pairs.iter().filter(|(name, _)| !ignored.contains(name));
    let mut query = String::new();
    for (name, value) in counting {
        query.push(if query.is_empty() { '?' } else { '&' });
        encode(&mut query, name);
        query.push('=');
        encode(&mut query, value);
    }
    query
}

fn encode(query: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b':'
            | b'/'
            | b',' => {
                query.push(char::from(byte));
            }
            _ => query.push_str(&format!("%{byte:02X}")),
        }
    }
}

fn head(shape: Shape, ignored: &[String]) -> HeaderMap {
    let media_type = match shape {
        Shape::Ndjson => NDJSON[0],
        Shape::Bundle => FHIR_JSON,
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    let names = ignored.join(", ");
    let names: String = names.chars().filter(char::is_ascii_graphic).take(500).collect();
    if let (false, Ok(value)) = (names.is_empty(), HeaderValue::from_str(&names)) {
        headers.insert("x-ignored-parameters", value);
    }
    headers
}

/// A snapshot, taken to the end even if the caller goes away.
async fn snapshot_of(store: &Arc<dyn Store>) -> Result<Arc<dyn Snapshot>, StoreError> {
    let store = Arc::clone(store);
    detached(async move { store.snapshot().await }).await
}

/// A search that is under way.
struct Found {
    app: AppState,
    search: Search,
    snapshot: Arc<dyn Snapshot>,
    answer: Answer,
    link: String,
}

impl Found {
    /// The body: it is read as the client takes it, and ends with the client.
    fn into_body(self, place: Place, cut_off: CutOff) -> Body {
        let name = match self.answer.shape {
            Shape::Ndjson => "ndjson",
            Shape::Bundle => "bundle",
        };
        let mut open = OpenStream::new(name, place, cut_off);
        let Self { app, search, snapshot, mut answer, link } = self;
        let types = [search.ty];
        let plan =
            Plan::new(Scope::System, Some(&types), Window::default(), false, Grant::Everything);
        let plan = Arc::new(plan);
        let times = app.times();
        Body::from_stream(async_stream::stream! {
            let mut out = Vec::new();
            answer.open(&mut out, &link, &search.ignored);
            if !out.is_empty() {
                yield Ok(Bytes::from(std::mem::take(&mut out)));
            }
            open.enters(Phase::History);
            let mut history = History::new(Arc::clone(&plan), snapshot, None);
            let mut failures = 0;
            let drained = drained(&times);
            pin!(drained);
            loop {
                let fetched = tokio::select! {
                    biased;
                    () = &mut drained => Err(StoreError::Failed("the server is stopping".into())),
                    fetched = history.fetch() => fetched,
                };
                match fetched {
                    Ok(true) => failures = 0,
                    Ok(false) => break,
                    Err(StoreError::SnapshotExpired | StoreError::Unavailable(_))
                        if failures < MOST_FAILURES =>
                    {
                        // What has been read keeps its place: the rest is read as it is now.
                        sleep(PAUSE * failures).await;
                        failures += 1;
                        if let Ok(newer) = snapshot_of(&app.store).await {
                            let cursor = history.cursor().cloned();
                            history = History::new(Arc::clone(&plan), newer, cursor);
                        }
                        continue;
                    }
                    Err(error) => {
                        // Without its end nobody takes a part for the whole.
                        open.ends(&error.to_string());
                        yield Err(io::Error::other(error.to_string()));
                        return;
                    }
                }
                let before = answer.found;
                let whole = take(&mut history, &search, &mut answer, &mut out);
                if !out.is_empty() {
                    open.sent(answer.found - before, out.len());
                    count_sent(name, answer.found - before, out.len() as u64);
                    yield Ok(Bytes::from(std::mem::take(&mut out)));
                }
                if whole {
                    break;
                }
            }
            answer.close(&mut out);
            open.ends("all is sent");
            if !out.is_empty() {
                yield Ok(Bytes::from(out));
            }
        })
    }
}

/// Writes what is found among the resources at hand. `true`: as many as were asked for.
fn take(history: &mut History, search: &Search, answer: &mut Answer, out: &mut Vec<u8>) -> bool {
    let most = search.options.count.filter(|most| *most > 0);
    let Some(part) = history.take(CHUNK_BYTES) else { return false };
    for index in part.range.clone() {
        if most.is_some_and(|most| answer.found >= most) {
            return true;
        }
        let Some(key) = part.batch.key(index) else { continue };
        let line = part.batch.line(index);
        let json = line.strip_suffix(b"\n").unwrap_or(line);
        if search.matches(json) {
            answer.resource(out, &key.doc().to_string(), json);
        }
    }
    most.is_some_and(|most| answer.found >= most)
}
