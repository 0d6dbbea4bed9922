//! What a session has written and nobody has taken yet. Large frames that all streams have in
//! common are kept as they are: thousands that lag hold one copy.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// From how many bytes on a frame is not copied.
const LARGE: usize = 32 << 10;

#[derive(Debug, Default)]
pub(super) struct Out {
    /// Before what is written now.
    parts: VecDeque<Bytes>,
    parts_len: usize,
    last: BytesMut,
}

impl Out {
    /// Where bytes are appended.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.last
    }

    /// Appends a frame that others write too.
    pub(super) fn share(&mut self, frame: &Bytes) {
        if frame.len() < LARGE {
            self.last.extend_from_slice(frame);
            return;
        }
        self.parts_len += self.last.len() + frame.len();
        if !self.last.is_empty() {
            self.parts.push_back(self.last.split().freeze());
        }
        self.parts.push_back(frame.clone());
    }

    pub(super) fn len(&self) -> usize {
        self.parts_len + self.last.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is to be written next; nothing, once all is taken.
    pub(super) fn take(&mut self) -> Bytes {
        let Some(part) = self.parts.pop_front() else { return self.last.split().freeze() };
        self.parts_len -= part.len();
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_comes_out_in_order_and_what_is_large_is_no_copy() {
        let (small, large) = (Bytes::from_static(b"small"), Bytes::from(vec![b'x'; LARGE]));
        let mut out = Out::default();
        out.share(&large);
        out.buffer().extend_from_slice(b"own ");
        out.share(&small);
        out.share(&large);
        out.buffer().extend_from_slice(b" end");
        assert_eq!(out.len(), 2 * LARGE + 13);
        let parts: Vec<_> =
            std::iter::from_fn(|| Some(out.take()).filter(|p| !p.is_empty())).collect();
        assert_eq!(parts, [&large[..], b"own small", &large, b" end"]);
        assert!([0, 2].iter().all(|&at| parts[at].as_ptr() == large.as_ptr()));
        assert!(out.is_empty());
    }
}
