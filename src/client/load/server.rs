//! A group as a `transaction` Bundle, and what the server answers.

use std::time::Duration;

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::sink::SendError;
use crate::{
    client::{Failure, http},
    error::FHIR_JSON,
    store::{Action, Effect, Write},
};

/// A transaction of a group takes seconds at most.
const IDLE: Duration = Duration::from_secs(60);

/// A running FHIR server.
#[derive(Debug, Clone)]
pub struct Server {
    client: Client,
    base: Url,
}

impl Server {
    pub(super) fn new(base: Url) -> Result<Self, Failure> {
        let client = http::client(|builder| builder.read_timeout(IDLE))?;
        Ok(Self { client, base })
    }

    pub(super) async fn transaction(&self, writes: &[Write]) -> Result<Vec<Effect>, SendError> {
        let request = self
            .client
            .post(self.base.clone())
            .header(CONTENT_TYPE, FHIR_JSON)
            .header(ACCEPT, FHIR_JSON)
            // An outcome tells what was written anew from what was there already.
            .header("prefer", "return=OperationOutcome")
            .body(bundle(writes));
        match request.send().await {
            Ok(response) if response.status().is_success() => answer(response, writes).await,
            Ok(response) => Err(self.refused(response).await),
            Err(e) if e.is_builder() || e.is_redirect() => Err(SendError::Fatal(http::chain(&e))),
            Err(e) => Err(SendError::Later(http::chain(&e), None)),
        }
    }

    async fn refused(&self, response: Response) -> SendError {
        let (status, wait) = (response.status(), http::retry_after(response.headers()));
        let why = http::refusal(response).await;
        match status {
            StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::INTERNAL_SERVER_ERROR => SendError::Refused(why),
            status if http::may_pass(status) => SendError::Later(why, wait),
            _ => SendError::Fatal(format!("{} answers {why}", self.base)),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BundleOut<'w> {
    resource_type: &'static str,
    r#type: &'static str,
    entry: Vec<EntryOut<'w>>,
}

#[derive(Serialize)]
struct EntryOut<'w> {
    request: RequestOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'w serde_json::Map<String, serde_json::Value>>,
}

#[derive(Serialize)]
struct RequestOut {
    method: &'static str,
    url: String,
}

fn bundle(writes: &[Write]) -> Vec<u8> {
    let entry = |write| {
        let Write { ty, id, action, .. }: &Write = write;
        let (method, resource) = match action {
            Action::Put(resource) => ("PUT", Some(resource.members())),
            Action::Delete => ("DELETE", None),
        };
        EntryOut { request: RequestOut { method, url: format!("{ty}/{id}") }, resource }
    };
    let entry = writes.iter().map(entry).collect();
    let bundle = BundleOut { resource_type: "Bundle", r#type: "transaction", entry };
    // Maps with string keys: serialization can't fail.
    serde_json::to_vec(&bundle).unwrap_or_default()
}

#[derive(Deserialize)]
struct BundleIn {
    #[serde(default)]
    entry: Vec<EntryIn>,
}

#[derive(Deserialize)]
struct EntryIn {
    response: ResponseIn,
}

#[derive(Deserialize)]
struct ResponseIn {
    status: String,
    outcome: Option<Box<RawValue>>,
}

async fn answer(response: Response, writes: &[Write]) -> Result<Vec<Effect>, SendError> {
    let body = response.bytes().await.map_err(|e| SendError::Later(http::chain(&e), None))?;
    let bundle: BundleIn = serde_json::from_slice(&body).map_err(|e| {
        SendError::Fatal(format!("the server's answer is no transaction-response: {e}"))
    })?;
    if bundle.entry.len() != writes.len() {
        let (sent, got) = (writes.len(), bundle.entry.len());
        let why = format!("the server answered {got} of {sent} entries of a transaction");
        return Err(SendError::Fatal(why));
    }
    Ok(bundle.entry.iter().map(|entry| effect(&entry.response)).collect())
}

/// What a write did. Servers that don't say when they wrote nothing are taken to have updated.
fn effect(response: &ResponseIn) -> Effect {
    let said = || http::diagnostics(response.outcome.as_ref()?.get().as_bytes());
    match response.status.get(..3) {
        Some("201") => Effect::Created,
        Some("204") => Effect::Deleted,
        _ if said().is_some_and(|text| text.contains("holds the same already")) => {
            Effect::Unchanged
        }
        _ => Effect::Updated,
    }
}
