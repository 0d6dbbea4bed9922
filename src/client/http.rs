//! What both commands need of HTTP: a client, `Retry-After`, and the text of an OperationOutcome.

use std::{error::Error, time::Duration};

use reqwest::{
    Client, ClientBuilder, Response, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;

use super::Failure;
use crate::tls;

const CONNECT: Duration = Duration::from_secs(10);
/// As much of an error's body as is read.
const MAX_ERROR_BODY: usize = 256 * 1024;

/// A client that gives up on a connection after 10 s.
pub(super) fn client(
    build: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, Failure> {
    tls::provide();
    let agent = concat!("fhirtail/", env!("CARGO_PKG_VERSION"));
    build(Client::builder().user_agent(agent).connect_timeout(CONNECT))
        .build()
        .map_err(|e| Failure::new(format!("HTTP can't be used: {}", chain(&e))))
}

/// The server may say something else later: time-outs, overload, and all faults of its own.
pub(super) fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

/// `Retry-After` in seconds; as a date it is not used.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// An error and its causes, as one line without repeats.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// `404 Not Found: what the OperationOutcome in the body says`, in one line.
pub(super) async fn refusal(response: Response) -> String {
    let status = response.status();
    let body = start_of_body(response).await;
    match diagnostics(&body) {
        Some(text) => format!("{status}: {text}"),
        None => status.to_string(),
    }
}

async fn start_of_body(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ERROR_BODY {
            break;
        }
    }
    body
}

#[derive(Deserialize)]
struct Outcome {
    issue: Vec<Issue>,
}

#[derive(Deserialize)]
struct Issue {
    diagnostics: Option<String>,
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    text: Option<String>,
}

/// What an OperationOutcome says to people, in one line.
pub(super) fn diagnostics(body: &[u8]) -> Option<String> {
    let outcome: Outcome = serde_json::from_slice(body).ok()?;
    let text_of = |issue: Issue| issue.diagnostics.or(issue.details.and_then(|d| d.text));
    let texts: Vec<_> = outcome.issue.into_iter().filter_map(text_of).collect();
    (!texts.is_empty()).then(|| one_line(&texts.join("; ")))
}

/// White space of any kind as single spaces.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_becomes_one_line() {
        let body = br#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","diagnostics":"a\n  b"},{"details":{"text":"c"}},{}]}"#;
        assert_eq!(diagnostics(body).as_deref(), Some("a b; c"));
        assert_eq!(diagnostics(b"<html>"), None);
        assert_eq!(diagnostics(br#"{"issue":[{}]}"#), None);
    }

    #[test]
    fn retry_after_is_seconds() {
        let wait = |text: &str| {
            let value = text.parse().expect("a header value");
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }
}
