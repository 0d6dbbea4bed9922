//! An event stream as a test reads it: event by event, never waiting for ever.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use fhirtail::client::sse::{Event, Item, Parser};
use futures_util::{Stream, StreamExt};
use reqwest::{Client, Response, header};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The HTTP client of a test.
pub fn client() -> Client {
    // Whoever comes second finds one installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().build().expect("an HTTP client")
}

/// An open event stream.
pub struct EventStream {
    chunks: std::pin::Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    parser: Parser,
    ready: VecDeque<Item>,
    pub response_headers: header::HeaderMap,
}

impl EventStream {
    /// Opens a stream that must be granted.
    pub async fn open(url: &str, last_event_id: Option<&str>) -> Self {
        let response = Self::request(url, last_event_id).await;
        assert_eq!(response.status(), 200, "{url}: {:?}", response.text().await);
        Self::of(response)
    }

    pub async fn request(url: &str, last_event_id: Option<&str>) -> Response {
        let mut request = client().get(url).header(header::ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer").expect("HTTP")
    }

    pub fn of(response: Response) -> Self {
        let response_headers = response.headers().clone();
        let chunks = Box::pin(response.bytes_stream());
        let parser = Parser::resuming(String::new());
        Self { chunks, parser, ready: VecDeque::new(), response_headers }
    }

    /// The next item; `None` at the stream's end.
    pub async fn item(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.chunks.next()).await;
            match chunk.expect("the stream goes on") {
                Some(Ok(chunk)) => {
                    let mut items = Vec::new();
                    self.parser.feed(&chunk, &mut items).expect("a stream");
                    self.ready.extend(items);
                }
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next event; `None` at the stream's end.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            match self.item().await? {
                Item::Event(event) => return Some(event),
                Item::Checkpoint(_) | Item::Retry(_) => {}
            }
        }
    }

    /// The events up to and with the first of this name.
    pub async fn until(&mut self, name: &str) -> Vec<Event> {
        self.until_that(|event| event.event == name).await
    }

    /// The events up to and with the first that fits.
    pub async fn until_that(&mut self, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.event().await.expect("the stream goes on until it fits");
            let last = fits(&event);
            events.push(event);
            if last {
                return events;
            }
        }
    }
}
