//! A server in the test's own process: port 0, ended when dropped.

use std::{net::SocketAddr, sync::Arc};

use clap::Parser;
use fhirtail::{config::ServerArgs, server::Server, store::Store};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::stream::client;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    server: ServerArgs,
}

/// A running server.
pub struct App {
    pub address: SocketAddr,
    scheme: &'static str,
    stop: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl App {
    pub async fn start(store: Arc<dyn Store>) -> Self {
        Self::with(store, &[]).await
    }

    /// A server with further arguments, as on the command line.
    pub async fn with(store: Arc<dyn Store>, arguments: &[&str]) -> Self {
        let fixed = ["fhirtail", "--listen", "127.0.0.1:0"];
        let drain: &[&str] =
            if arguments.contains(&"--drain") { &[] } else { &["--drain", "0.05"] };
        let arguments = fixed.iter().chain(drain).chain(arguments);
        let args = Arguments::try_parse_from(arguments).expect("arguments of serve").server;
        let server = Server::bind(&args, store, None).await.expect("a server");
        let (address, stop) = (server.address(), CancellationToken::new());
        let scheme = if args.tls.tls_cert.is_some() { "https" } else { "http" };
        let stopped = stop.clone().cancelled_owned();
        let running = tokio::spawn(async move { server.run(stopped).await });
        Self { address, scheme, stop, running: Some(running) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The one stream that is open, as `/streams` has it.
    pub async fn stream(&self) -> Value {
        let answer = client().get(self.url("/streams.json")).send().await.expect("an answer");
        let text = answer.text().await.expect("a text");
        let page: Value = serde_json::from_str(&text).expect("JSON");
        page["streams"][0].clone()
    }

    /// Stops it as SIGTERM does, and waits until it has.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("the server ends");
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
