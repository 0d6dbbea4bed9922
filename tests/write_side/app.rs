//! A server to test, and a client of it.

use std::{net::SocketAddr, sync::Arc};

use fhirtail::{
    http::{self, AppState},
    store::{
        Store,
        embedded::{EmbeddedOptions, EmbeddedStore},
    },
};
use reqwest::{Body, Client, Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub(crate) const LIMIT: usize = 256 << 10;

/// A server on a port and in a folder of its own.
pub(crate) struct App {
    address: SocketAddr,
    client: Client,
    pub(crate) store: Arc<EmbeddedStore>,
    server: JoinHandle<()>,
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
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let store =
            EmbeddedStore::open(folder.path(), EmbeddedOptions::default()).expect("a store");
        let state = AppState { store: store.clone(), body_limit: LIMIT, base: "/fhir".into() };
        let router = http::routes()
            .fallback(http::not_found)
            .method_not_allowed_fallback(http::method_not_allowed)
            .with_state(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("serve") });
        Self { address, client: Client::new(), store, server, _folder: folder }
    }

    pub(crate) async fn stop(self) {
        self.server.abort();
        self.store.close().await;
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
