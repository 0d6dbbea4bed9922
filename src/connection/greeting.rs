//! What a client begins with tells what it speaks: HTTP/2 has a preface that no request of HTTP/1
//! looks like (RFC 9113 §3.4), and TLS a byte that no request begins with.

use std::io;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::guard::Guard;

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of TLS: a record of its handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// As much as is read at once: most heads fit.
const ROOM: usize = 2048;

/// What a client speaks in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tongue {
    Http1,
    Http2,
}

/// Waits until it is clear what the client speaks. Nothing of it is lost.
pub(super) async fn tongue(guard: &mut Guard) -> io::Result<Tongue> {
    // Who ends within a preface has begun nothing else.
    Ok(hear(guard, tongue_of).await?.unwrap_or(Tongue::Http1))
}

/// Waits until it is clear whether the client speaks TLS. Nothing of it is lost.
pub(super) async fn is_tls(guard: &mut Guard) -> io::Result<bool> {
    let first = hear(guard, |said| said.first().copied()).await?;
    Ok(first.is_none_or(|first| first == HANDSHAKE))
}

fn tongue_of(said: &[u8]) -> Option<Tongue> {
    let part = said.len().min(PREFACE.len());
    match said[..part] == PREFACE[..part] {
        false => Some(Tongue::Http1),
        true => (part == PREFACE.len()).then_some(Tongue::Http2),
    }
}

/// Reads until what was said tells something; `None`: the client ended before it did.
async fn hear<T>(guard: &mut Guard, tells: impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
    let mut said = BytesMut::with_capacity(ROOM);
    let told = loop {
        if let Some(told) = tells(&said) {
            break Some(told);
        }
        if guard.read_buf(&mut said).await? == 0 {
            break None;
        }
    };
    guard.unread(said.freeze());
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_is_known_at_its_end_and_a_request_as_soon_as_it_differs() {
        for part in 0..PREFACE.len() {
            assert_eq!(tongue_of(&PREFACE[..part]), None, "{part}");
        }
        for rest in ["", "\0\0\0\x04"] {
            assert_eq!(tongue_of(&[PREFACE, rest.as_bytes()].concat()), Some(Tongue::Http2));
        }
        for request in ["G", "PU", "PO", "PRI * HTTP/1", "PRI * HTTP/2.0\r\n\r\nX"] {
            assert_eq!(tongue_of(request.as_bytes()), Some(Tongue::Http1), "{request}");
        }
    }
}
