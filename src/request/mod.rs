//! A request for a stream: path, query and headers, read and checked. Pure.

use std::{fmt, sync::Arc};

use axum::http::HeaderMap;
use jiff::Timestamp;

use crate::{
    elements::Elements,
    error::ApiError,
    fhir::{ResourceType, instant},
    frame::Format,
    plan::{Grant, Plan, Scope},
    position::Position,
    search::Context,
    store::Window,
    type_filter::TypeFilters,
};

mod headers;
mod parameters;
mod patients;

pub(crate) use headers::{NDJSON, Prefer, list, media_range};
pub(crate) use parameters::parameters;

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
    /// `Prefer: handling=lenient`.
    pub lenient: bool,
    /// Parameters that were ignored under it.
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

/// The parameters of a query, or of a form, decoded, in order.
pub(crate) fn pairs(query: &[u8]) -> Pairs {
    form_urlencoded::parse(query).into_owned().collect()
}

impl ExportRequest {
    /// Reads a request. `base` is this server's own base URL, which ends in a slash, if it
    /// knows it.
    ///
    /// # Errors
    /// 400 that names the parameter or header; 406 for an `Accept` that can't be met.
    pub fn parse(
        level: Level,
        pairs: Pairs,
        headers: &HeaderMap,
        base: Option<&str>,
        grant: Grant,
    ) -> Result<Self, ApiError> {
        let prefer = Prefer::parse(headers);
        let context = Context { lenient: prefer.lenient, base };
        let query = Query::parse(pairs, prefer.lenient)?;
        let format = headers::format(&prefer, headers)?;
        let (plan, mut ignored) = plan(level, &query, format, grant, context)?;
        ignored.extend(query.ignored);
        if format == Format::Ndjson {
            headers::check_output_format(query.output_format.as_deref())?;
        }
        let start = headers::start(headers, query.last_event_id, format)?;
        let preferred = prefer.event_source && format == Format::Sse;
        let lenient = prefer.lenient;
        let request = Self { plan, format, start, preferred, lenient, ignored };
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
    type_filters: Vec<String>,
    elements: Vec<String>,
    patients: Vec<String>,
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
                "_typeFilter" => query.type_filters.push(value),
                "_elements" => query.elements.push(value),
                "patient" => query.patients.push(value),
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
             _typeFilter, _elements, patient, _outputFormat, lastEventId. With 'Prefer: handling=lenient' it is ignored."
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
pub(crate) fn shown(text: &str) -> impl fmt::Display {
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
    context: Context<'_>,
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
        if !context.lenient {
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
    let filters = filters(&query.type_filters, &plan, context, &mut ignored)?;
    let elements = elements(&query.elements, &plan, context.lenient, &mut ignored)?;
    let (filters, elements) = (Arc::new(filters), Arc::new(elements));
    let patients = match patients::parse(&query.patients, context.base)? {
        Some(_) if !plan.is_restricted() && !context.lenient => {
            return Err(ApiError::invalid(
                "patient",
                "patient goes with /Patient/$export and /Group/{id}/$export: ask there.",
            ));
        }
        Some(_) if !plan.is_restricted() => {
            ignored.push("patient".into());
            None
        }
        patients => patients,
    };
    Ok((Plan { filters, elements, patients, ..plan }, ignored))
}

/// The searches of the plan's types.
fn filters(
    values: &[String],
    plan: &Plan,
    context: Context<'_>,
    ignored: &mut Vec<String>,
) -> Result<TypeFilters, ApiError> {
    let (mut filters, not_done) = TypeFilters::parse(values, context)?;
    let foreign = foreign("_typeFilter", filters.types(), plan, context.lenient)?;
    filters.retain(|ty| !foreign.contains(&ty));
    ignored.extend(foreign.iter().map(|ty| format!("_typeFilter={ty}?")));
    ignored.extend(not_done);
    Ok(filters)
}

/// The elements of the plan's types.
fn elements(
    values: &[String],
    plan: &Plan,
    lenient: bool,
    ignored: &mut Vec<String>,
) -> Result<Elements, ApiError> {
    let mut elements = Elements::parse(values)?;
    let foreign = foreign("_elements", elements.types(), plan, lenient)?;
    elements.retain(|ty| !foreign.contains(&ty));
    ignored.extend(foreign.iter().map(|ty| format!("_elements={ty}.")));
    Ok(elements)
}

/// Those of the types that a parameter names which are not the plan's.
fn foreign(
    name: &str,
    types: impl Iterator<Item = ResourceType>,
    plan: &Plan,
    lenient: bool,
) -> Result<Vec<ResourceType>, ApiError> {
    let foreign: Vec<_> = types.filter(|ty| !plan.type_set.contains(*ty)).collect();
    match foreign.first() {
        Some(ty) if !lenient => {
            let text = format!(
                "{name} is also about {ty}, which this export does not hold. Name the type in \
                 _type too, or leave it out of {name}."
            );
            Err(ApiError::invalid(name, text))
        }
        _ => Ok(foreign),
    }
}

fn floor_ms(at: Timestamp) -> i64 {
    floor_ms_of(at.as_nanosecond())
}

fn floor_ms_of(nanoseconds: i128) -> i64 {
    // A Timestamp lies within the years -9999 to 9999: its milliseconds fit.
    i64::try_from(nanoseconds.div_euclid(1_000_000)).unwrap_or(i64::MAX)
}
