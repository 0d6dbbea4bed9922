//! What a request's headers ask: preferences, the format, the position to go on from. Pure.

use axum::http::{HeaderMap, StatusCode, header};

use super::shown;
use crate::{error::ApiError, fhir::outcome::IssueType, frame::Format, position::Position};

/// What `Prefer` asks (RFC 7240): several headers or a list, tokens in any case.
#[derive(Default)]
pub(crate) struct Prefer {
    pub(super) event_source: bool,
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

pub(super) fn format(prefer: &Prefer, headers: &HeaderMap) -> Result<Format, ApiError> {
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

pub(super) fn check_output_format(output_format: Option<&str>) -> Result<(), ApiError> {
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
pub(super) fn start(
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
