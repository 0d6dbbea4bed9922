//! A connection's way into TLS.

use std::{io, sync::Arc};

use axum::http::StatusCode;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::AsyncWriteExt;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{greeting, guard::Guard};
use crate::{
    error::FHIR_JSON,
    fhir::outcome::{self, IssueType},
    tls::HTTP2,
};

/// What is encrypted and waits for the socket, of one connection.
const MOST_WAITING: usize = 64 << 10;

/// Shakes hands. `None`: the client speaks in the clear, and was told.
pub(super) async fn accept(
    mut guard: Guard,
    config: Arc<ServerConfig>,
) -> io::Result<Option<TlsStream<Guard>>> {
    if !greeting::is_tls(&mut guard).await? {
        guard.write_all(&in_the_clear()).await?;
        guard.shutdown().await?;
        return Ok(None);
    }
    let bounded = |connection: &mut ServerConnection| {
        connection.set_buffer_limit(Some(MOST_WAITING));
    };
    TlsAcceptor::from(config).accept_with(guard, bounded).await.map(Some)
}

/// Whether that is what the client chose (ALPN, RFC 7301).
pub(super) fn speaks_http2(stream: &TlsStream<Guard>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

/// What is said to somebody who asks by `http://`.
fn in_the_clear() -> Vec<u8> {
    const WHY: &str = "this server speaks TLS: ask by https://.";
    let body = outcome::error(IssueType::NotSupported, WHY, &[]);
    let (status, length) = (StatusCode::BAD_REQUEST, body.len());
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {FHIR_JSON}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    [head.as_bytes(), &body].concat()
}
