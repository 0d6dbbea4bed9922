//! A `Parameters` resource, read as the parameters of a query. Pure.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::{Pairs, shown};
use crate::{
    error::ApiError,
    fhir::{outcome::IssueType, resource::Resource},
};

/// The names and values of a body's parameters, in order. A reference's value is its `reference`.
///
/// # Errors
/// 400 that names what is wrong.
pub(crate) fn parameters(body: &[u8]) -> Result<Pairs, ApiError> {
    let resource = Resource::parse(body)?;
    if resource.ty().name() != "Parameters" {
        let text = format!(
            "the body is a {}. Send a Parameters, or the parameters in the URL.",
            resource.ty()
        );
        return Err(ApiError::invalid("resourceType", text));
    }
    match resource.members().get("parameter") {
        None => Ok(Pairs::new()),
        Some(Value::Array(list)) => list
            .iter()
            .enumerate()
            .map(|(index, parameter)| {
                let place = format!("Parameters.parameter[{index}]");
                pair(parameter).map_err(|what| wrong(&place, &what))
            })
            .collect(),
        Some(_) => Err(wrong("Parameters.parameter", "is no list")),
    }
}

fn pair(parameter: &Value) -> Result<(String, String), String> {
    let Value::Object(members) = parameter else { return Err("is no object".into()) };
    let Some(Value::String(name)) = members.get("name") else {
        return Err("has no name that is a string".into());
    };
    let mut values = members.iter().filter(|(member, _)| member.starts_with("value"));
    match (values.next(), values.next()) {
        (Some((member, value)), None) => match text(member, value) {
            Some(text) => Ok((name.clone(), text)),
            None => Err(format!(
                "has a {} in which no text is found. Send a valueString, a valueInstant, or a \
                 valueReference with its reference",
                shown(member)
            )),
        },
        (None, _) => Err("has no value".into()),
        (Some(_), Some(_)) => Err("has two values. Send a parameter for each".into()),
    }
}

/// A value as it would stand in a URL.
fn text(member: &str, value: &Value) -> Option<String> {
    let reference =
        |value: &Map<String, Value>| value.get("reference")?.as_str().map(str::to_owned);
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Object(members) if member == "valueReference" => reference(members),
        _ => None,
    }
}

fn wrong(place: &str, what: &str) -> ApiError {
    let text = format!("{place} {what}.");
    ApiError::new(StatusCode::BAD_REQUEST, IssueType::Structure, text).at(place)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parameter: &Value) -> Result<Pairs, ApiError> {
        let body = json!({"resourceType": "Parameters", "parameter": parameter});
        parameters(body.to_string().as_bytes())
    }

    #[test]
    fn values_are_as_in_a_url() {
        let read = read(&json!([
            {"name": "_type", "valueString": "Patient,Observation"},
            {"name": "_since", "valueInstant": "2024-02-29T12:00:00+01:00"},
            {"name": "patient", "valueReference": {"reference": "Patient/1", "display": "x"}},
            {"name": "patient", "valueReference": {"reference": "Patient/2"}},
            {"name": "x", "valueBoolean": true, "_valueBoolean": {"id": "i"}},
        ]));
        let expected = [
            ("_type", "Patient,Observation"),
            ("_since", "2024-02-29T12:00:00+01:00"),
            ("patient", "Patient/1"),
            ("patient", "Patient/2"),
            ("x", "true"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read.expect("parameters"), expected);
        assert_eq!(parameters(br#"{"resourceType":"Parameters"}"#).expect("none"), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (parameter, place) in [
            (json!({}), "Parameters.parameter"),
            (json!([{"name": "_type", "valueString": "Patient"}, 1]), "Parameters.parameter[1]"),
            (json!([{"valueString": "x"}]), "Parameters.parameter[0]"),
            (json!([{"name": "x"}]), "Parameters.parameter[0]"),
            (
                json!([{"name": "x", "valueString": "a", "valueCode": "b"}]),
                "Parameters.parameter[0]",
            ),
            (json!([{"name": "x", "valueReference": {"display": "d"}}]), "Parameters.parameter[0]"),
            (json!([{"name": "x", "valuePeriod": {"start": "2024"}}]), "Parameters.parameter[0]"),
            (json!([{"name": "x", "part": [{"name": "y"}]}]), "Parameters.parameter[0]"),
        ] {
            let error = read(&parameter).expect_err("it is refused");
            assert_eq!((error.status, &*error.expression[0]), (StatusCode::BAD_REQUEST, place));
        }
        for body in ["", "{", "[]", r#"{"resourceType":"Patient"}"#, r#"{"parameter":[]}"#] {
            let error = parameters(body.as_bytes()).expect_err(body);
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{body}");
        }
    }
}
