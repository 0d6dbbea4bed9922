//! `GET /fhir/{type}` and `POST /fhir/{type}/_search`: a search's answer, written while the type is
//! read.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    AppState,
    caller::Caller,
    limits::Full,
    request::{OfType, content_encoding, is_json, text_of},
};
use crate::{
    error::{ApiError, FHIR_JSON},
    fhir::{ResourceType, outcome::IssueType},
    request::{NDJSON, Pairs, Prefer, list, media_range, pairs},
    search::{Answer, Context, Search, Shape, SortBy, SortKey, Subset, Summary},
    session::{OpenStream, spread},
    store::StoreError,
};

mod body;
mod reading;

use body::Found;
use reading::Reading;

/// `GET /fhir/{type}`
pub(super) async fn get(
    State(app): State<AppState>,
    OfType(ty): OfType,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let pairs = pairs(query.unwrap_or_default().as_bytes());
    search(app, ty, caller, pairs, &headers).await
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
    let mut all = pairs(query.unwrap_or_default().as_bytes());
    all.extend(form(&app, &headers, request.into_body()).await?);
    search(app, ty, caller, all, &headers).await
}

async fn form(app: &AppState, headers: &HeaderMap, body: Body) -> Result<Pairs, ApiError> {
    const FORM: &str = "application/x-www-form-urlencoded";
    let given = text_of(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    content_encoding(headers)?;
    let body = app.bodies.read(body).await?.text;
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
    // Whoever sends a file sends its last line's end with it.
    Ok(pairs(body.trim_ascii_end()))
}

async fn search(
    app: AppState,
    ty: ResourceType,
    mut caller: Caller,
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
    let place = app.limits.place(caller.address()).map_err(full)?;
    let turns = Arc::clone(app.limits.scans());
    let turn = turns.take_now().ok_or(Full::Scans).map_err(full)?;
    // Whoever can't be answered hears so by a status.
    let reading = Reading::begin(&app.store, turns, turn, &search).await?;
    let link = format!("{base}/{ty}{}", query_of(&pairs, &search.ignored));
    let head = head(shape, &search.ignored);
    let answer = answer(&search, shape, format!("{base}/{ty}/"));
    let open = OpenStream::new(shape.name(), app.admission(place, &mut caller));
    let found = Found { search, answer, link, reading, open };
    Ok((head, found.into_body(app.times())).into_response())
}

/// This server's base URL, as its caller knows it.
pub(super) fn base(app: &AppState, headers: &HeaderMap) -> Result<String, ApiError> {
    let base = &app.options.base;
    Ok(match text_of(headers, &header::HOST)? {
        Some(host) if base.starts_with('/') && !host.is_empty() => {
            format!("{}://{}{base}", app.options.scheme, authority(host)?)
        }
        _ => base.to_string(),
    })
}

/// A host and its port, as they stand in a URL: each resource's begins with them.
fn authority(host: &str) -> Result<&str, ApiError> {
    /// A name of the DNS has 253 bytes, and a port six with its colon.
    const MOST_BYTES: usize = 260;
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"-._~%:[]".contains(&b);
    match host.len() <= MOST_BYTES && host.bytes().all(is_part) {
        true => Ok(host),
        false => Err(ApiError::invalid("Host", "Host names no host. Send its name and its port.")),
    }
}

fn answer(search: &Search, shape: Shape, full_url: String) -> Answer {
    let subset = Subset::of(search.ty, &search.options);
    Answer::new(shape, full_url, subset, counting(search).is_some())
}

/// The parameter by which only the number of resources is asked for.
fn counting(search: &Search) -> Option<&'static str> {
    match (search.options.summary, search.options.count) {
        (Some(Summary::Count), _) => Some("_summary=count"),
        (_, Some(0)) => Some("_count=0"),
        _ => None,
    }
}

/// Refuses what can be asked for, and is not done.
fn check_options(search: &Search, shape: Shape) -> Result<(), ApiError> {
    let options = &search.options;
    if let [SortKey { by: SortBy::LastUpdated, descending }, id] = options.sort.as_slice()
        && id.descending != *descending
    {
        const WHY: &str = "_sort: by _lastUpdated and _id a search is sorted in one direction. Send \
                           _sort=_lastUpdated,_id or _sort=-_lastUpdated,-_id.";
        return Err(not_supported(WHY, "_sort"));
    }
    match counting(search) {
        Some(asked) if shape == Shape::Ndjson => {
            let why =
                format!("{asked}: lines tell no count. Ask with Accept: application/fhir+json.");
            Err(not_supported(why, asked.split('=').next().unwrap_or(asked)))
        }
        _ => Ok(()),
    }
}

fn not_supported(why: impl Into<String>, name: &str) -> ApiError {
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
        let (name, _) = media_range(&format.trim().replace(' ', "+"));
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

/// Appends a text as part of a URL's query.
pub(super) fn encode(query: &mut String, text: &str) {
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
