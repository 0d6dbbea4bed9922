//! The chunked transfer coding (RFC 9112 §7.1): what stands around the bytes of a body. Pure.

use bytes::{BufMut, Bytes, BytesMut};

/// Ends a body.
pub(super) const LAST: &[u8] = b"0\r\n\r\n";

/// Room for the longest size line.
const SIZE_LINE: usize = 18;

/// A chunk that is written in place: its size is known only when all is in.
#[derive(Debug)]
pub(super) struct Chunk {
    buffer: BytesMut,
}

impl Chunk {
    /// An empty chunk.
    pub(super) fn new() -> Self {
        let mut buffer = BytesMut::with_capacity(4096);
        buffer.put_bytes(0, SIZE_LINE);
        Self { buffer }
    }

    /// Where the bytes of the body are appended.
    pub(super) fn body(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many bytes of the body are in.
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - SIZE_LINE
    }

    /// The chunk as it goes over the wire, and its body; nothing for an empty one, which would
    /// end the body.
    pub(super) fn finish(mut self) -> (Bytes, Bytes) {
        let len = self.len();
        if len == 0 {
            return Default::default();
        }
        self.buffer.put_slice(b"\r\n");
        let size = size_line(len);
        let start = SIZE_LINE - size.len();
        self.buffer[start..SIZE_LINE].copy_from_slice(size.as_bytes());
        let buffer = self.buffer.freeze();
        (buffer.slice(start..), buffer.slice(SIZE_LINE..SIZE_LINE + len))
    }
}

/// A body, or part of one, as one chunk.
pub(super) fn chunk(body: &[u8]) -> Bytes {
    let mut chunk = Chunk::new();
    chunk.body().extend_from_slice(body);
    chunk.finish().0
}

/// What stands before so many bytes of a body.
pub(super) fn size_line(len: usize) -> String {
    format!("{len:x}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_says_how_long_it_is() {
        for len in [1, 15, 16, 255, 70_000] {
            let mut chunk = Chunk::new();
            chunk.body().put_bytes(b'x', len);
            let (bytes, body) = chunk.finish();
            assert_eq!(body, "x".repeat(len));
            let (size, rest) = bytes.split_at(bytes.iter().position(|b| *b == b'\r').unwrap());
            let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
            assert_eq!(size, len);
            assert_eq!(rest, format!("\r\n{}\r\n", "x".repeat(len)).as_bytes());
        }
    }

    #[test]
    fn an_empty_chunk_is_nothing() {
        let (chunk, body) = Chunk::new().finish();
        assert!(chunk.is_empty() && body.is_empty());
    }
}
