//! A request for a stream: path, query and headers, read and checked. Pure.

use std::fmt;

use axum::http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;

use crate::{
    error::ApiError,
    fhir::{ResourceType, instant, outcome::IssueType},
    frame::Format,
    plan::{Grant, Plan, Scope},
    position::Position,
    store::Window,
};

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportRequest {
    /// What the stream will carry.
    pub plan: Plan,
    /// How it is written.
    pub format: Format,
    /// Where it goes on.
    pub start: Option<Position>,
    /// `respond-eventsource` was asked by `Prefer`.
    pub preferred: bool,
    /// Parameters that were ignored, under `Prefer: handling=lenient`.
    pub ignored: Vec<String>,
}

/// What the path says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// `/$export`
    System,
    /// `/Patient/$export`
    Patients,
    /// `/Group/{id}/$export`
    Group(String),
    /// `/{Type}/$export`
    Type(ResourceType),
}

/// The query's parameters, decoded, in order.
pub type Pairs = Vec<(String, String)>;

impl ExportRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// 400 that names the parameter or header; 406 for an `Accept` that can't be met.
    pub fn parse(
        level: Level,
        pairs: Pairs,
        headers: &HeaderMap,
        grant: Grant,
    ) -> Result<Self, ApiError> {
        let prefer = Prefer::parse(headers);
        let query = Query::parse(pairs, prefer.lenient)?;
        let format = format(&prefer, headers)?;
        let (plan, mut ignored) = plan(level, &query, format, grant, prefer.lenient)?;
        ignored.extend(query.ignored);
        if format == Format::Ndjson {
            check_output_format(query.output_format.as_deref())?;
        }
        let start = start(headers, query.last_event_id, format)?;
        let preferred = prefer.event_source && format == Format::Sse;
        let request = Self { plan, format, start, preferred, ignored };
        request.check_start()?;
        Ok(request)
    }

    /// A position in a history is one of this query's, or a mistake.
    fn check_start(&self) -> Result<(), ApiError> {
        let Some(scan) = self.start.as_ref().and_then(|start| start.scan.as_ref()) else {
            return Ok(());
        };
        if scan.query == self.plan.query() && scan.type_index < self.plan.types.len() {
            return Ok(());
        }
        Err(ApiError::invalid(
            "Last-Event-ID",
            "Last-Event-ID is a position in the history of another query. Ask with the URL that \
             it came from, or without Last-Event-ID to start from the beginning.",
        ))
    }
}

/// The query's parameters, each with its meaning.
#[derive(Default)]
struct Query {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    types: Option<Vec<ResourceType>>,
    output_format: Option<String>,
    last_event_id: Option<String>,
    ignored: Vec<String>,
}

impl Query {
    fn parse(pairs: Pairs, lenient: bool) -> Result<Self, ApiError> {
        let mut query = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "_since" => once(&mut query.since, &name, parse_instant(&name, &value)?)?,
                "_until" => once(&mut query.until, &name, parse_instant(&name, &value)?)?,
                "_type" => query.types.get_or_insert_default().extend(parse_types(&value)?),
                "_outputFormat" => once(&mut query.output_format, &name, value)?,
                "lastEventId" => once(&mut query.last_event_id, &name, value)?,
                _ if lenient => query.ignored.push(name),
                _ => return Err(unknown_parameter(&name)),
            }
        }
        Ok(query)
    }
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), ApiError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(ApiError::invalid(name, format!("{name} stands twice: give it once."))),
    }
}

fn unknown_parameter(name: &str) -> ApiError {
    let shown = shown(name);
    let start: String = name.chars().take(80).collect();
    ApiError::invalid(
        &start,
        format!(
            "the parameter {shown} is not known here. Known: _since, _until, _type, \
             _outputFormat, lastEventId. With 'Prefer: handling=lenient' it is ignored."
        ),
    )
}

fn parse_instant(name: &str, value: &str) -> Result<Timestamp, ApiError> {
    // A '+' that was not written as %2B arrives as a space, and no instant has a space.
    instant::parse(&value.replace(' ', "+")).ok_or_else(|| {
        let value = shown(value);
        ApiError::invalid(
            name,
            format!(
                "{name}={value} is not an instant. Send a date and time with seconds and zone, \
                 as 2024-02-29T12:00:00Z."
            ),
        )
    })
}

fn parse_types(value: &str) -> Result<Vec<ResourceType>, ApiError> {
    let parse = |name: &str| {
        ResourceType::parse(name).ok_or_else(|| {
            let name = shown(name);
            ApiError::invalid(
                "_type",
                format!("_type names {name}, which is no resource type of FHIR R4 (4.0.1)."),
            )
        })
    };
    value.split(',').map(|name| parse(name.trim())).collect()
}

/// A caller's text within ours: cut where it is long.
fn shown(text: &str) -> impl fmt::Display {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("'{}…'", text[..end].escape_debug()),
        None => format!("'{}'", text.escape_debug()),
    }
}

fn plan(
    level: Level,
    query: &Query,
    format: Format,
    grant: Grant,
    lenient: bool,
) -> Result<(Plan, Vec<String>), ApiError> {
    let mut ignored = Vec::new();
    let (scope, only) = match level {
        Level::System => (Scope::System, None),
        Level::Patients => (Scope::Patients, None),
        Level::Group(id) => (Scope::Group(id), None),
        Level::Type(ty) => (Scope::System, Some(ty)),
    };
    let mut types = query.types.clone();
    let possible = scope.types();
    let fits = |ty: &ResourceType| possible.contains(*ty) && only.is_none_or(|only| only == *ty);
    if let Some(foreign) = types.iter().flatten().find(|ty| !fits(ty)) {
        if !lenient {
            return Err(ApiError::invalid(
                "_type",
                format!("_type names {foreign}, which this export does not hold."),
            ));
        }
        ignored.push(format!("_type={foreign}"));
        types.iter_mut().for_each(|types| types.retain(fits));
    }
    let types = only.map(|ty| vec![ty]).or(types);
    let window = Window {
        // Whole milliseconds: later than x.4 ms is later than x, earlier than x.4 is up to x.
        after_ms: query.since.map(floor_ms),
        before_ms: query.until.map(|at| -floor_ms_of(-at.as_nanosecond())),
    };
    let plan = Plan::new(scope, types.as_deref(), window, format == Format::Sse, grant);
    Ok((plan, ignored))
}

fn floor_ms(at: Timestamp) -> i64 {
    floor_ms_of(at.as_nanosecond())
}

fn floor_ms_of(nanoseconds: i128) -> i64 {
    // A Timestamp lies within the years -9999 to 9999: its milliseconds fit.
    i64::try_from(nanoseconds.div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

/// What `Prefer` asks (RFC 7240): several headers or a list, tokens in any case.
#[derive(Default)]
pub(crate) struct Prefer {
    event_source: bool,
    /// Parameters that are not known are ignored.
    pub(crate) lenient: bool,
}

impl Prefer {
    pub(crate) fn parse(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        for preference in list(headers, &header::HeaderName::from_static("prefer")) {
            let preference = preference.split(';').next().unwrap_or_default();
            let plain: String = preference.chars().filter(|c| !" \"".contains(*c)).collect();
            match plain.to_ascii_lowercase().as_str() {
                "respond-eventsource" => prefer.event_source = true,
                "handling=lenient" => prefer.lenient = true,
                _ => {}
            }
        }
        prefer
    }
}

/// The items of a header that is a list.
pub(crate) fn list<'h>(
    headers: &'h HeaderMap,
    name: &header::HeaderName,
) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

pub(crate) const NDJSON: [&str; 3] =
    ["application/fhir+ndjson", "application/ndjson", "application/x-ndjson"];

fn format(prefer: &Prefer, headers: &HeaderMap) -> Result<Format, ApiError> {
    if prefer.event_source {
        return Ok(Format::Sse);
    }
    let mut best: Option<(u16, Format)> = None;
    let mut asked = false;
    for range in list(headers, &header::ACCEPT) {
        asked = true;
        let (range, quality) = media_range(range);
        let format = match range.as_str() {
            "text/event-stream" | "text/*" => Format::Sse,
            "*/*" | "application/*" => Format::Ndjson,
            range if NDJSON.contains(&range) => Format::Ndjson,
            _ => continue,
        };
        if quality > 0 && best.is_none_or(|(most, _)| quality > most) {
            best = Some((quality, format));
        }
    }
    match best {
        Some((_, format)) => Ok(format),
        None if !asked => Ok(Format::Ndjson),
        None => Err(ApiError::new(
            StatusCode::NOT_ACCEPTABLE,
            IssueType::NotSupported,
            "an export is sent as text/event-stream (history, then live) or as \
             application/fhir+ndjson (history). Name one of them in Accept, or send 'Prefer: \
             respond-eventsource'. There is no kick-off: the answer is the data.",
        )
        .at("Accept")),
    }
}

/// A media range in lower case without its parameters, and its weight in thousandths.
pub(crate) fn media_range(item: &str) -> (String, u16) {
    let mut parts = item.split(';').map(str::trim);
    let range = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let weight = weight.and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0).clamp(0.0, 1.0);
    (range, (weight * 1000.0) as u16)
}

fn check_output_format(output_format: Option<&str>) -> Result<(), ApiError> {
    match output_format {
        None | Some("ndjson") => Ok(()),
        // A '+' that was not written as %2B arrives as a space.
        Some(given) if NDJSON.contains(&given.replace(' ', "+").as_str()) => Ok(()),
        Some(given) => Err(ApiError::invalid(
            "_outputFormat",
            format!("_outputFormat={} is not sent: only application/fhir+ndjson is.", shown(given)),
        )),
    }
}

/// The position to go on from. The header wins over the parameter; an empty one is none, as
/// in a browser.
fn start(
    headers: &HeaderMap,
    parameter: Option<String>,
    format: Format,
) -> Result<Option<Position>, ApiError> {
    let (name, value) = match headers.get("last-event-id") {
        Some(value) => ("Last-Event-ID", String::from_utf8_lossy(value.as_bytes()).into_owned()),
        None => ("lastEventId", parameter.unwrap_or_default()),
    };
    if value.is_empty() {
        return Ok(None);
    }
    if format == Format::Ndjson {
        return Err(ApiError::invalid(
            name,
            format!("{name} is for event streams: ask with Accept: text/event-stream."),
        ));
    }
    let position = value.parse().map_err(|malformed| {
        ApiError::invalid(
            name,
            format!("{name} {} is not a position of this server: {malformed}.", shown(&value)),
        )
    })?;
    Ok(Some(position))
}
