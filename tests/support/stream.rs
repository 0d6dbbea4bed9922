//! An event stream as a test reads it: event by event, never waiting for ever.

use std::{collections::VecDeque, io::Write, time::Duration};

use bytes::Bytes;
use fhirtail::client::sse::{Event, Item, Parser};
use flate2::write::GzDecoder;
use futures_util::{Stream, StreamExt};
use reqwest::{Client, Response, header};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The HTTP client of a test. It waits for no byte longer than that.
pub fn client() -> Client {
    // Whoever comes second finds one installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().read_timeout(PATIENCE).build().expect("an HTTP client")
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// An open event stream.
pub struct EventStream {
    chunks: std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>,
    parser: Parser,
    ready: VecDeque<Item>,
    /// What is still to be decoded, of a stream in gzip.
    gzip: Option<GzDecoder<Vec<u8>>>,
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

    /// Opens a stream as a browser does, which takes gzip.
    pub async fn open_encoded(url: &str) -> Self {
        let request = client().get(url).header(header::ACCEPT, "text/event-stream");
        let request = request.header(header::ACCEPT_ENCODING, "gzip, deflate, br, zstd").send();
        let response = tokio::time::timeout(PATIENCE, request).await.expect("an answer");
        let stream = Self::of(response.expect("HTTP"));
        assert!(stream.gzip.is_some(), "{:?}", stream.response_headers);
        stream
    }

    pub fn of(response: Response) -> Self {
        Self::new(response.headers().clone(), response.bytes_stream())
    }

    /// An answer's head and body, whoever reads them.
    pub fn new<E: Into<Broken>>(
        response_headers: header::HeaderMap,
        chunks: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Self {
        let gzip = response_headers.get(header::CONTENT_ENCODING).map(|coding| {
            assert_eq!(coding, "gzip");
            GzDecoder::new(Vec::new())
        });
        let chunks = Box::pin(chunks.map(|chunk| chunk.map_err(Into::into)));
        let parser = Parser::resuming(String::new());
        Self { chunks, parser, ready: VecDeque::new(), gzip, response_headers }
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
                    let chunk = self.decoded(chunk);
                    self.parser.feed(&chunk, &mut items).expect("a stream");
                    self.ready.extend(items);
                }
                Some(Err(_)) => return None,
                None => {
                    self.gzip.as_mut().map(GzDecoder::try_finish).transpose().expect("a whole end");
                    return None;
                }
            }
        }
    }

    fn decoded(&mut self, chunk: Bytes) -> Bytes {
        let Some(gzip) = &mut self.gzip else { return chunk };
        gzip.write_all(&chunk).and_then(|()| gzip.flush()).expect("gzip");
        std::mem::take(gzip.get_mut()).into()
    }

    /// The next event; `None` at the stream's end.
    pub async fn event(&mut self) -> Option<Event> {
        let event = async {
            loop {
                match self.item().await? {
                    Item::Event(event) => return Some(event),
                    Item::Checkpoint(_) | Item::Retry(_) => {}
                }
            }
        };
        // A comment is no event: a stream that says nothing else goes on for ever.
        tokio::time::timeout(PATIENCE, event).await.expect("an event")
    }

    /// The events up to and with the first of this name.
    pub async fn until(&mut self, name: &str) -> Vec<Event> {
        self.until_that(|event| event.event == name).await
    }

    /// The events up to and with the first that fits.
    pub async fn until_that(&mut self, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let Some(event) = self.event().await else {
                let last = &events[events.len().saturating_sub(3)..];
                panic!("it ends before it fits, after {} events: {last:#?}", events.len());
            };
            let last = fits(&event);
            events.push(event);
            if last {
                return events;
            }
        }
    }
}
