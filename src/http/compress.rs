//! `Accept-Encoding`: gzip and zstd, with a flush after every chunk, so that no event waits in
//! a compressor.

use std::io::{self, Write};

use async_stream::stream;
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::StreamExt;

use crate::connection::Takeover;

/// Below this a body of known size is not worth it.
const SMALLEST: u64 = 1024;

pub(super) async fn layer(mut request: Request, next: Next) -> Response {
    let accepts = Accepts::of(request.headers());
    match request.extensions_mut().get_mut::<Takeover>() {
        Some(takeover) if accepts.has(Coding::Gzip) => takeover.accept_gzip(),
        // What is encoded goes through here to its end.
        _ if accepts.has(Coding::Zstd) => drop(request.extensions_mut().remove::<Takeover>()),
        _ => {}
    }
    let response = next.run(request).await;
    match accepts.best() {
        Some(coding) if is_worth_it(&response) => compressed(response, coding),
        _ => response,
    }
}

fn is_worth_it(response: &Response) -> bool {
    let has_body = response.status().is_success()
        && response.status() != axum::http::StatusCode::NO_CONTENT
        && response.headers().contains_key(header::CONTENT_TYPE);
    let is_small = response.body().size_hint().upper().is_some_and(|size| size < SMALLEST);
    has_body && !is_small && !response.headers().contains_key(header::CONTENT_ENCODING)
}

fn compressed(response: Response, coding: Coding) -> Response {
    let (mut head, body) = response.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    head.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(head, Body::from_stream(encode(body, coding)))
}

fn encode(body: Body, coding: Coding) -> impl futures_core::Stream<Item = io::Result<Bytes>> {
    stream! {
        let mut chunks = body.into_data_stream();
        let mut encoder = Encoder::new(coding)?;
        while let Some(chunk) = chunks.next().await {
            let encoded = chunk.map_err(io::Error::other).and_then(|chunk| encoder.write(&chunk));
            let broken = encoded.is_err();
            yield encoded;
            if broken {
                return;
            }
        }
        yield encoder.finish();
    }
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// What the caller accepts (RFC 9110 §12.5.3).
struct Accepts(Vec<Coding>);

impl Accepts {
    /// The better first.
    fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let text: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
        let accepts = |coding: &Coding| {
            text.iter().flat_map(|value| value.split(',')).any(|item| {
                let mut parts = item.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default();
                let named = name.eq_ignore_ascii_case(coding.name());
                let refused = parts.filter_map(|part| part.strip_prefix("q="));
                named && !refused.map(str::parse).any(|q: Result<f32, _>| q.is_ok_and(|q| q <= 0.0))
            })
        };
        Self([Coding::Zstd, Coding::Gzip].into_iter().filter(accepts).collect())
    }

    fn has(&self, coding: Coding) -> bool {
        self.0.contains(&coding)
    }

    fn best(&self) -> Option<Coding> {
        self.0.first().copied()
    }
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
        })
    }

    /// All of a chunk, flushed: whoever reads it can decode it to its end.
    fn write(&mut self, chunk: &[u8]) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => {
                encoder.write_all(chunk)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            Self::Zstd(encoder) => {
                encoder.write_all(chunk)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.finish().map(Bytes::from),
            Self::Zstd(encoder) => encoder.finish().map(Bytes::from),
        }
    }
}
