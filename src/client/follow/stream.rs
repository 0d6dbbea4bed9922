//! The connection: asked for, read, and asked for again.

use std::time::Duration;

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};

use super::writer::{Batches, Entry};
use crate::client::{
    Failure,
    backoff::Backoff,
    http, note,
    sse::{Event, Item, Parser},
};

/// The server sends a comment every 15 s: after this long the connection is dead.
const IDLE: Duration = Duration::from_secs(60);
/// Until the server says `retry:`.
const RETRY: Duration = Duration::from_secs(3);
/// Above any resource that a store can hold.
const MAX_EVENT: usize = 128 << 20;

/// Why following ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// 204.
    NothingMore,
    /// The client has caught up, and was asked to end there.
    CaughtUp,
    /// The writer has ended.
    OutputClosed,
}

/// What comes after one connection.
enum Next {
    Again(Duration, String),
    End(End),
}

pub(super) struct Follower {
    client: Client,
    url: Url,
    event_types: Vec<String>,
    until_caught_up: bool,
    position: String,
    backoff: Backoff,
    batches: Batches,
}

impl Follower {
    pub(super) fn new(
        url: Url,
        event_types: Vec<String>,
        until_caught_up: bool,
        position: Option<String>,
        batches: Batches,
    ) -> Result<Self, Failure> {
        let client = http::client(|builder| builder.read_timeout(IDLE))?;
        let (position, backoff) = (position.unwrap_or_default(), Backoff::new(RETRY));
        Ok(Self { client, url, event_types, until_caught_up, position, backoff, batches })
    }

    /// Connects again and again until there is a reason to end.
    ///
    /// # Errors
    /// The server refuses for good.
    pub(super) async fn run(&mut self) -> Result<End, Failure> {
        loop {
            match self.connection().await? {
                Next::End(end) => return Ok(end),
                Next::Again(wait, why) => {
                    note(&format!("{why}; again in {:.1} s", wait.as_secs_f64()));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn connection(&mut self) -> Result<Next, Failure> {
        let mut request = self.client.get(self.url.clone()).header(ACCEPT, "text/event-stream");
        if !self.position.is_empty() {
            let id = HeaderValue::from_bytes(self.position.as_bytes()).map_err(|_| {
                Failure::new(format!("the position {:?} can't be sent", self.position))
            })?;
            request = request.header("last-event-id", id);
        }
        match request.send().await {
            Ok(response) => self.answered(response).await,
            Err(e) if e.is_builder() || e.is_redirect() => {
                Err(Failure::new(http::chain(&e.without_url())))
            }
            Err(e) => Ok(Next::Again(self.backoff.next(), http::chain(&e))),
        }
    }

    async fn answered(&mut self, response: Response) -> Result<Next, Failure> {
        match response.status() {
            StatusCode::NO_CONTENT => Ok(Next::End(End::NothingMore)),
            StatusCode::OK if is_event_stream(&response) => self.read(response).await,
            StatusCode::OK => Err(Failure::new(format!(
                "{} answers with {}, which is no event stream",
                self.url,
                content_type(&response)
            ))),
            status if http::may_pass(status) => {
                let wait = self.backoff.next_as_asked(http::retry_after(response.headers()));
                Ok(Next::Again(wait, http::refusal(response).await))
            }
            _ => Err(Failure::new(http::refusal(response).await)),
        }
    }

    async fn read(&mut self, mut response: Response) -> Result<Next, Failure> {
        let mut parser = Parser::resuming(self.position.clone()).with_limit(MAX_EVENT);
        let (mut items, mut served) = (Vec::new(), false);
        let why = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    parser.feed(&bytes, &mut items).map_err(|e| Failure::new(e.to_string()))?;
                    served |= !items.is_empty();
                    if let Some(end) = self.take(&mut items).await {
                        return Ok(Next::End(end));
                    }
                }
                Ok(None) => break "the stream ended".to_owned(),
                Err(e) => break format!("the stream broke: {}", http::chain(&e.without_url())),
            }
        };
        // A server that says something and ends has been reached; one that says nothing is as
        // good as down.
        if !served {
            return Ok(Next::Again(self.backoff.next(), why));
        }
        self.backoff.reset();
        Ok(Next::Again(self.backoff.first(), why))
    }

    /// Hands on what one read of the socket held.
    async fn take(&mut self, items: &mut Vec<Item>) -> Option<End> {
        let mut batch = Vec::with_capacity(items.len());
        let mut end = None;
        for item in items.drain(..) {
            match item {
                Item::Retry(wait) => self.backoff.set_first(wait),
                Item::Checkpoint(position) => batch.push(Entry { line: None, position }),
                Item::Event(event) => {
                    let caught_up = event.event == "caught-up";
                    let at = batch.last().map_or(&self.position, |last| &last.position);
                    let entry = self.entry(event, at);
                    batch.push(entry);
                    if caught_up && self.until_caught_up {
                        end = Some(End::CaughtUp);
                        break;
                    }
                }
            }
        }
        let last = batch.last()?;
        self.position.clone_from(&last.position);
        let closed = self.batches.send(batch).await.is_err();
        if closed { Some(End::OutputClosed) } else { end }
    }

    /// What an event is to the output; `at` is the position before it.
    fn entry(&self, event: Event, at: &str) -> Entry {
        let line = match event.event.as_str() {
            "reset" => {
                note("the stream starts over: drop what was read so far");
                Some(event.data)
            }
            "caught-up" | "fell-behind" => {
                note(&event.event.replace('-', " "));
                None
            }
            // Without a position of its own it is no resource, but why the stream ends.
            "OperationOutcome" if event.id == at => {
                note(&http::diagnostics(event.data.as_bytes()).unwrap_or(event.data));
                None
            }
            name if self.is_chosen(name) => Some(event.data),
            _ => None,
        };
        // A line break in JSON is white space between its tokens.
        Entry { line: line.map(|line| line.replace('\n', " ")), position: event.id }
    }

    fn is_chosen(&self, name: &str) -> bool {
        self.event_types.is_empty() || self.event_types.iter().any(|ty| ty == name)
    }
}

fn content_type(response: &Response) -> &str {
    let value = response.headers().get(CONTENT_TYPE);
    value.and_then(|value| value.to_str().ok()).unwrap_or("no content type")
}

fn is_event_stream(response: &Response) -> bool {
    let essence = content_type(response).split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("text/event-stream")
}
