//! A server to test, and a client of it.

use std::{net::SocketAddr, sync::Arc};

use fhirtail::store::embedded::{EmbeddedOptions, EmbeddedStore};
use reqwest::{Body, Client, Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) const LIMIT: usize = 256 << 10;

/// A server on a port and in a folder of its own.
pub(crate) struct App {
    address: SocketAddr,
    client: Client,
    pub(crate) store: Arc<EmbeddedStore>,
    server: support::App,
    _folder: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/fhir+json"), "{}", self.text);
        serde_json::from_str(&self.text).expect("JSON")
    }

    /// The only issue's code and diagnostics, and the element at fault.
    pub(crate) fn issue(&self) -> (String, String, String) {
        let outcome = self.json();
        assert_eq!(outcome["resourceType"], "OperationOutcome", "{outcome}");
        let issue = &outcome["issue"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&issue["code"]), text(&issue["diagnostics"]), text(&issue["expression"][0]))
    }
}

impl App {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store =
            EmbeddedStore::open(folder.path(), EmbeddedOptions::default()).expect("a store");
        let limit = LIMIT.to_string();
        let server = support::App::with(store.clone(), &["--body-limit", &limit]).await;
        let (address, client) = (server.address, support::client());
        Self { address, client, store, server, _folder: folder }
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request =
            self.client.request(method, format!("http://{}{path}", self.address)).body(body);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/fhir+json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a body") }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn put(&self, path: &str, resource: &Value) -> Answer {
        self.send(Method::PUT, path, &[], resource.to_string()).await
    }

    pub(crate) async fn bundle(&self, kind: &str, entry: Value) -> Answer {
        let bundle = json!({"resourceType": "Bundle", "type": kind, "entry": entry});
        self.send(Method::POST, "/fhir", &[], bundle.to_string()).await
    }

    /// Sends bytes that no client would, and reads what comes back.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.address).await.expect("a connection");
        socket.write_all(bytes).await.expect("written");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A Patient of one name.
pub(crate) fn patient(id: &str, family: &str) -> Value {
    json!({"resourceType": "Patient", "id": id, "name": [{"family": family}]})
}

pub(crate) fn request(method: &str, url: &str) -> Value {
    json!({"method": method, "url": url})
}
