//! Who asks for a stream, as the connection and the request know it.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Uri, request::Parts},
};

use crate::{
    connection::Takeover,
    session::{Asked, CutOff},
};

/// Who asks.
pub(super) struct Caller {
    pub(super) asked: Asked,
    pub(super) takeover: Option<Takeover>,
    pub(super) cut_off: CutOff,
}

impl Caller {
    /// The address that limits count.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.asked.peer.map(|peer| peer.ip())
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let forwarded = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
        let asked = Asked {
            peer: peer.map(|ConnectInfo(peer)| *peer),
            forwarded: forwarded.map(|whom| cut(whom, MOST_FORWARDED)),
            query: query(&parts.uri),
        };
        let cut_off = parts.extensions.remove().unwrap_or_default();
        Ok(Self { asked, takeover: parts.extensions.remove(), cut_off })
    }
}

/// What is kept of a request's texts while its stream is open, in characters: a URL may have 64 KiB.
const MOST_QUERY: usize = 300;
const MOST_FORWARDED: usize = 100;

/// What was asked for. The position is left out: it names a resource, and the stream moves on.
fn query(uri: &Uri) -> Box<str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let counting = pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("lastEventId="));
    let mut text = uri.path().to_owned();
    for (at, pair) in counting.enumerate() {
        text.push(if at == 0 { '?' } else { '&' });
        text.push_str(pair);
    }
    cut(&text, MOST_QUERY)
}

fn cut(text: &str, most: usize) -> Box<str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(uri: &str) -> String {
        query(&uri.parse().unwrap()).into()
    }

    #[test]
    fn a_query_is_shown_without_the_position_and_cut_where_it_is_long() {
        assert_eq!(shown("/fhir/$export"), "/fhir/$export");
        let asked = "/fhir/$export?lastEventId=1h~a~0.1.0~q~0~ip1&_type=Patient&_since=2024";
        assert_eq!(shown(asked), "/fhir/$export?_type=Patient&_since=2024");
        assert_eq!(shown("/fhir/$export?lastEventId=1"), "/fhir/$export");
        let long = shown(&format!("/fhir/Patient?name={}", "x".repeat(9_000)));
        assert_eq!(long.chars().count(), MOST_QUERY + 1);
        assert!(long.ends_with("x…"));
    }
}
