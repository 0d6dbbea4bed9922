//! What the write side reads from a request: path, negotiation, body.

use axum::{
    RequestPartsExt,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
};

use super::{
    AppState,
    bodies::{Share, Whole},
};
use crate::{
    error::ApiError,
    fhir::{
        ResourceType,
        outcome::IssueType,
        resource::{Invalid, is_id},
    },
};

/// The resource that a path `/fhir/{type}/{id}` names.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its type.
    pub ty: ResourceType,
    /// Its id.
    pub id: String,
}

impl FromRequestParts<AppState> for Instance {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        instance(&path_segments(parts).await?)
    }
}

/// The version that a path `/fhir/{type}/{id}/_history/{version}` names.
#[derive(Debug)]
pub(super) struct VersionOf {
    /// The resource.
    pub target: Instance,
    /// The version, as written.
    pub version: String,
}

impl FromRequestParts<AppState> for VersionOf {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let mut segments = path_segments(parts).await?;
        let target = instance(&segments)?;
        Ok(Self { target, version: segments.pop().map(|(_, text)| text).unwrap_or_default() })
    }
}

/// The type that a path `/fhir/{type}` names.
#[derive(Debug)]
pub(super) struct OfType(pub ResourceType);

impl FromRequestParts<AppState> for OfType {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let segments = path_segments(parts).await?;
        resource_type(segments.first().map_or("", |(_, text)| text)).map(Self)
    }
}

/// The id that a path `/fhir/Group/{id}/…` names.
#[derive(Debug)]
pub(super) struct OfId(pub String);

impl FromRequestParts<AppState> for OfId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let segments = path_segments(parts).await?;
        resource_id(segments.first().map_or("", |(_, text)| text)).map(Self)
    }
}

fn instance(segments: &[(String, String)]) -> Result<Instance, ApiError> {
    let segment = |at: usize| segments.get(at).map_or("", |(_, text)| text.as_str());
    Ok(Instance { ty: resource_type(segment(0))?, id: resource_id(segment(1))? })
}

async fn path_segments(parts: &mut Parts) -> Result<Vec<(String, String)>, ApiError> {
    let path = parts.extract::<Path<Vec<(String, String)>>>().await;
    path.map(|Path(segments)| segments).map_err(|e| ApiError::invalid("path", e.body_text()))
}

/// The type of this name.
///
/// # Errors
/// 404.
pub(super) fn resource_type(name: &str) -> Result<ResourceType, ApiError> {
    ResourceType::parse(name)
        .ok_or_else(|| ApiError::not_found(format!("'{name}' is no resource type of FHIR R4")))
}

/// The text as an id.
///
/// # Errors
/// 400.
pub(super) fn resource_id(text: &str) -> Result<String, ApiError> {
    if is_id(text) {
        return Ok(text.to_owned());
    }
    let why = format!("'{text}' is not an id: 1 to 64 of A-Z a-z 0-9 '-' '.'");
    Err(ApiError::invalid("id", why))
}

/// The caller takes JSON, and asks for nothing that we don't know.
#[derive(Debug)]
pub(super) struct TakesJson;

impl FromRequestParts<AppState> for TakesJson {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        match format_parameter(parts.uri.query().unwrap_or_default())? {
            Some(format) if is_json(&format) => Ok(Self),
            Some(format) => Err(not_acceptable(&format).at("_format")),
            None => accept(&parts.headers).map(|()| Self),
        }
    }
}

/// `_format`, where that and `_pretty` are all that the query holds.
fn format_parameter(query: &str) -> Result<Option<String>, ApiError> {
    let mut format = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            // In a query '+' is a space, but who writes application/fhir+json means the plus.
            "_format" => {
                let value = value.to_ascii_lowercase();
                format = Some(value.replace("%2f", "/").replace("%2b", "+"));
            }
            "_pretty" => {}
            _ => {
                let why = format!("the parameter '{name}' means nothing here");
                return Err(ApiError::invalid(name, why));
            }
        }
    }
    Ok(format)
}

fn accept(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut asked = headers.get_all(header::ACCEPT).iter().peekable();
    if asked.peek().is_none() {
        return Ok(());
    }
    let texts: Vec<_> = asked.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    if texts.iter().flat_map(|text| text.split(',')).any(takes_json) {
        return Ok(());
    }
    Err(not_acceptable(&texts.join(", ")).at("Accept"))
}

/// Whether a media range takes JSON with a weight above 0.
fn takes_json(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let refused = parts.any(|parameter| {
        let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
        weight.and_then(|q| q.parse::<f32>().ok()) == Some(0.0)
    });
    !refused && (matches!(name, "*/*" | "application/*") || is_json(name))
}

pub(super) fn is_json(media_type: &str) -> bool {
    ["application/fhir+json", "application/json", "json"]
        .iter()
        .any(|json| media_type.eq_ignore_ascii_case(json))
}

fn not_acceptable(asked: &str) -> ApiError {
    let why = format!("'{asked}' is not served: ask for application/fhir+json");
    ApiError::new(StatusCode::NOT_ACCEPTABLE, IssueType::NotSupported, why)
}

/// A body of JSON, not yet read as such, and what it keeps from others until its request is done.
#[derive(Debug)]
pub(super) struct JsonBody(pub Bytes, pub Share);

impl FromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ApiError> {
        let headers = request.headers();
        content_type(headers)?;
        content_encoding(headers)?;
        let announced = text_of(headers, &header::CONTENT_LENGTH)?;
        if let Some(length) = announced.and_then(|length| length.parse().ok()) {
            app.bodies.allows(length)?;
        }
        let Whole { text, share } = app.bodies.read(request.into_body()).await?;
        Ok(Self(text, share))
    }
}

pub(super) fn content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = text_of(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    let known = is_json(parts.next().unwrap_or_default()) && !given.eq_ignore_ascii_case("json");
    let fits = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim_matches('"');
        match name.to_ascii_lowercase().as_str() {
            "charset" => value.eq_ignore_ascii_case("utf-8"),
            "fhirversion" => value == "4.0",
            _ => true,
        }
    };
    if known && parts.all(fits) {
        return Ok(());
    }
    let what = if given.is_empty() { "no Content-Type" } else { given };
    let why = format!("{what}: send application/fhir+json in UTF-8, of FHIR 4.0");
    Err(unsupported(why).at("Content-Type"))
}

pub(super) fn content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    match text_of(headers, &header::CONTENT_ENCODING)? {
        None | Some("" | "identity") => Ok(()),
        Some(coding) => {
            let why = format!("a body in '{coding}' is not read: send it as it is");
            Err(unsupported(why).at("Content-Encoding"))
        }
    }
}

fn unsupported(why: String) -> ApiError {
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, IssueType::NotSupported, why)
}

/// A header's text.
///
/// # Errors
/// 400 where it is not visible ASCII.
pub(super) fn text_of<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, ApiError> {
    let not_text = |_| ApiError::invalid(name.as_str(), format!("{name} is not ASCII text"));
    headers.get(name).map(|value| value.to_str().map_err(not_text)).transpose()
}

/// 400 for a text that is no resource or Bundle.
impl From<Invalid> for ApiError {
    fn from(Invalid(why): Invalid) -> Self {
        Self::new(StatusCode::BAD_REQUEST, IssueType::Structure, why)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn one(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn who_takes_json() {
        let good = [
            "*/*",
            "application/fhir+json",
            "application/xml, application/json;q=0.5",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/fhir+json; fhirVersion=4.0",
        ];
        for value in good {
            assert!(accept(&one(header::ACCEPT, value)).is_ok(), "{value}");
        }
        for value in ["application/fhir+xml", "text/turtle", "", "application/json;q=0.0"] {
            let error = accept(&one(header::ACCEPT, value)).expect_err(value);
            assert_eq!(error.status, StatusCode::NOT_ACCEPTABLE);
        }
        assert!(accept(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn which_bodies_are_read() {
        let good =
            ["application/fhir+json", "application/json; charset=UTF-8", "Application/JSON;x=y"];
        for value in good {
            assert!(content_type(&one(header::CONTENT_TYPE, value)).is_ok(), "{value}");
        }
        let bad = [
            "",
            "json",
            "text/plain",
            "application/fhir+xml",
            "application/json;charset=latin1",
            "application/fhir+json; fhirVersion=5.0",
        ];
        for value in bad {
            assert!(content_type(&one(header::CONTENT_TYPE, value)).is_err(), "{value}");
        }
    }

    #[test]
    fn which_parameters_are_known() {
        let format = |query| format_parameter(query).map_err(|e| e.expression);
        assert_eq!(
            format("_pretty=true&_format=application/fhir%2Bjson&"),
            Ok(Some("application/fhir+json".into()))
        );
        assert_eq!(format(""), Ok(None));
        assert_eq!(format("_format=json&_elements=id"), Err(vec!["_elements".into()]));
    }
}
