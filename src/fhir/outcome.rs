//! OperationOutcome: how FHIR says what went wrong.

use bytes::Bytes;
use serde::Serialize;

/// The kinds of issue that we send (FHIR value set `issue-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IssueType {
    /// Content that can't be read.
    Structure,
    /// A value that is not allowed.
    Value,
    /// Content that is understood and refused.
    Invalid,
    /// Something that this server does not do.
    NotSupported,
    /// There is no such thing.
    NotFound,
    /// It was deleted.
    Deleted,
    /// The current version is another than expected.
    Conflict,
    /// There is one like it already.
    Duplicate,
    /// Content that somebody's rule refuses.
    BusinessRule,
    /// Too large.
    TooLong,
    /// More than is done at once.
    TooCostly,
    /// The caller may not.
    Forbidden,
    /// The data that a position needs has gone.
    Incomplete,
    /// The server can't at the moment.
    Transient,
    /// The caller took too long.
    Timeout,
    /// There is too much of it at the moment.
    Throttled,
    /// A defect of ours or of the store.
    Exception,
    /// For information.
    Informational,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    resource_type: &'static str,
    issue: [Issue<'a>; 1],
}

#[derive(Serialize)]
struct Issue<'a> {
    severity: &'static str,
    code: IssueType,
    diagnostics: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    expression: &'a [String],
}

/// An OperationOutcome of one issue of severity `error`, as compact JSON. `expression` names
/// the parameter or element at fault.
#[must_use]
pub fn error(code: IssueType, diagnostics: &str, expression: &[String]) -> Bytes {
    one("error", code, diagnostics, expression)
}

/// The same of severity `warning`, for what was left out.
#[must_use]
pub fn warning(diagnostics: &str) -> Bytes {
    one("warning", IssueType::NotSupported, diagnostics, &[])
}

/// The same for something that went well.
#[must_use]
pub fn information(diagnostics: &str) -> Bytes {
    one("information", IssueType::Informational, diagnostics, &[])
}

fn one(severity: &'static str, code: IssueType, diagnostics: &str, expression: &[String]) -> Bytes {
    let issue = [Issue { severity, code, diagnostics, expression }];
    let outcome = Outcome { resource_type: "OperationOutcome", issue };
    // Strings and unit variants only: serialization can't fail.
    serde_json::to_vec(&outcome).unwrap_or_default().into()
}
