//! Versions as HTTP has them: `ETag`, `If-Match`, `If-None-Match`, `Last-Modified`; and what a
//! caller prefers to be answered.

use axum::http::{HeaderMap, StatusCode};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

use crate::{error::ApiError, fhir::outcome::IssueType, store::Expect};

/// The weak ETag of a version.
#[must_use]
pub(super) fn etag(version: u64) -> String {
    format!("W/\"{version}\"")
}

/// `Last-Modified` (IMF-fixdate).
#[must_use]
pub(super) fn http_date(at: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok()
}

/// What `If-Match` and `If-None-Match` demand of the version that a write replaces.
///
/// # Errors
/// 400 for what is not one ETag, or `*` in `If-None-Match`, or both headers; 412 for an ETag
/// that none of our versions has.
pub(super) fn expectation(
    if_match: Option<&str>,
    if_none_match: Option<&str>,
) -> Result<Expect, ApiError> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Expect::Any),
        (None, Some(text)) if text.trim() == "*" => Ok(Expect::Absent),
        (None, Some(_)) => Err(ApiError::invalid(
            "If-None-Match",
            "on a write If-None-Match can only be *: create, never replace",
        )),
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("If-Match", "If-Match and If-None-Match contradict each other"))
        }
        (Some(text), None) => version(text),
    }
}

fn version(text: &str) -> Result<Expect, ApiError> {
    let tag = text.trim();
    let quoted = tag.strip_prefix("W/").unwrap_or(tag);
    let opaque = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(opaque) = opaque.filter(|opaque| !opaque.contains('"')) else {
        let why = format!("If-Match is one version, W/\"3\", and not {text}");
        return Err(ApiError::invalid("If-Match", why));
    };
    // "+3" and "03" are texts of their own, not the version 3.
    let number = opaque.parse().ok().filter(|number: &u64| number.to_string() == opaque);
    number.map(Expect::Version).ok_or_else(|| {
        let why = format!("no version here is {tag}");
        ApiError::new(StatusCode::PRECONDITION_FAILED, IssueType::Conflict, why).at("If-Match")
    })
}

/// Whether `If-None-Match` of a read names the current version: the caller has it.
#[must_use]
pub(super) fn has_current(if_none_match: &str, current: u64) -> bool {
    let current = format!("\"{current}\"");
    let is_current = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == current;
    if_none_match.split(',').map(str::trim).any(is_current)
}

/// `Prefer: return=…`: what the body of an answer to a write holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// Nothing.
    Minimal,
    /// The resource as stored.
    Representation,
    /// An OperationOutcome.
    Outcome,
}

/// What the caller prefers. Preferences of other kinds are not ours to judge.
#[must_use]
pub(super) fn preferred_return(headers: &HeaderMap) -> Option<Return> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let value = value.trim().trim_matches('"');
        let named = |name: &str| value.eq_ignore_ascii_case(name);
        match name.trim().eq_ignore_ascii_case("return") {
            true if named("minimal") => Some(Return::Minimal),
            true if named("representation") => Some(Return::Representation),
            true if named("OperationOutcome") => Some(Return::Outcome),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_write_expects() {
        assert_eq!(expectation(None, None).ok(), Some(Expect::Any));
        assert_eq!(expectation(Some("W/\"3\""), None).ok(), Some(Expect::Version(3)));
        assert_eq!(expectation(Some(" \"3\" "), None).ok(), Some(Expect::Version(3)));
        assert_eq!(expectation(None, Some("*")).ok(), Some(Expect::Absent));
        let refused = [
            (Some("3"), None, 400),
            (Some("*"), None, 400),
            (Some("W/\"1\", W/\"2\""), None, 400),
            (Some(""), None, 400),
            (Some("\""), None, 400),
            (Some("W/\"03\""), None, 412),
            (Some("W/\"a\""), None, 412),
            (None, Some("W/\"1\""), 400),
            (Some("W/\"1\""), Some("*"), 400),
        ];
        for (if_match, if_none_match, status) in refused {
            let error = expectation(if_match, if_none_match).expect_err("refused");
            assert_eq!(error.status.as_u16(), status, "{if_match:?} {if_none_match:?}");
        }
    }

    #[test]
    fn which_etags_are_current() {
        for text in ["*", "W/\"7\"", "\"7\"", "W/\"6\" , W/\"7\""] {
            assert!(has_current(text, 7), "{text}");
        }
        for text in ["", "7", "W/\"77\""] {
            assert!(!has_current(text, 7), "{text}");
        }
    }

    #[test]
    fn what_a_caller_prefers() {
        let prefer = |value: &'static str| {
            let value = axum::http::HeaderValue::from_static(value);
            preferred_return(&HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("prefer"),
                value,
            )]))
        };
        assert_eq!(prefer("respond-async, return=minimal"), Some(Return::Minimal));
        assert_eq!(prefer("Return=\"OperationOutcome\"; x"), Some(Return::Outcome));
        assert_eq!(prefer("handling=strict"), None);
        assert_eq!(prefer("return=all"), None);
    }

    #[test]
    fn dates_are_imf_fixdates() {
        let at: Timestamp = "1994-11-06T08:49:37.9Z".parse().expect("an instant");
        assert_eq!(http_date(at).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }
}
