//! How a client of the crowd asks for its stream: as an `EventSource` does, over HTTP/1.1 or, by
//! prior knowledge, over HTTP/2 in the clear.

use std::time::Duration;

use axum::http::{StatusCode, header};

use support::{http2::Http2, stream::EventStream};

pub(crate) enum Transport {
    One(reqwest::Client),
    /// Its connection outlives its streams, as a browser's does, until it fails.
    Two(Option<Connection>),
}

pub(crate) struct Connection {
    base: String,
    http: Http2,
}

impl Transport {
    /// `None`: nobody answers. Whoever answers must say 200: an `EventSource` gives up for good on
    /// anything else, so trouble is told in the stream.
    pub(crate) async fn open(
        &mut self,
        base: &str,
        path: &str,
        headers: &[(&str, &str)],
        patience: Duration,
    ) -> Option<EventStream> {
        let asks = async {
            match self {
                Self::One(http) => over_one(http, base, path, headers).await,
                Self::Two(kept) => over_two(kept, base, path, headers).await,
            }
        };
        let answer = tokio::time::timeout(patience, asks).await.ok().flatten();
        if let (None, Self::Two(kept)) = (&answer, self) {
            *kept = None;
        }
        let (status, stream) = answer?;
        assert_eq!(status, StatusCode::OK, "{path}, {headers:?}: {:?}", stream.response_headers);
        Some(stream)
    }
}

type Answer = Option<(StatusCode, EventStream)>;

async fn over_one(
    http: &reqwest::Client,
    base: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let asked = http.get(format!("{base}{path}")).header(header::ACCEPT, "text/event-stream");
    let asked = headers.iter().fold(asked, |asked, (name, value)| asked.header(*name, *value));
    let answer = asked.send().await.ok()?;
    Some((answer.status(), EventStream::of(answer)))
}

async fn over_two(
    kept: &mut Option<Connection>,
    base: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    // Where it was sent away, resting, it comes anew, as browsers do.
    if let Some(kept) = kept.as_ref().filter(|kept| kept.base == base)
        && let Ok(answer) = kept.http.stream(path, headers).await
    {
        return Some(answer);
    }
    let address = base.strip_prefix("http://")?.parse().expect("an address");
    let http = Http2::reach(address).await?;
    let kept = kept.insert(Connection { base: base.to_owned(), http });
    kept.http.stream(path, headers).await.ok()
}
