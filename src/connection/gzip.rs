//! gzip (RFC 1952) that thousands of streams share: what is written is deflate blocks that refer
//! to nothing before them and end on a byte, so that they stand in any stream as they are. A
//! stream needs no compressor of its own; all that it keeps is the checksum for its end. Pure.

use std::{
    cell::RefCell,
    io::{self, Write},
};

use bytes::{BufMut, Bytes, BytesMut};
use crc32fast::Hasher;
use flate2::{Compression, write::DeflateEncoder};

/// Deflate, no name, no time, unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The last block: stored, and empty.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Below this a compressor is not worth its start. No stored block may have 64 KiB.
const SMALLEST: usize = 256;

/// Plain bytes as they stand in every gzip stream.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) bytes: Bytes,
    plain: Hasher,
}

impl Blocks {
    /// # Errors
    /// The compressor's, of which it has none.
    pub(super) fn of(plain: &[u8]) -> io::Result<Self> {
        let bytes = match u16::try_from(plain.len()) {
            Ok(len) if plain.len() < SMALLEST => stored(plain, len),
            _ => deflated(plain)?,
        };
        let mut sum = Hasher::new();
        sum.update(plain);
        Ok(Self { bytes, plain: sum })
    }
}

/// What the end of one stream will say of its bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    plain: Hasher,
}

impl Member {
    /// What is written first.
    pub(super) fn begin() -> Bytes {
        Bytes::from_static(&HEAD)
    }

    /// These blocks are written next.
    pub(super) fn add(&mut self, blocks: &Blocks) {
        self.plain.combine(&blocks.plain);
    }

    /// What is written last.
    pub(super) fn end(self) -> Bytes {
        // The length is told modulo 2³².
        let len = self.plain.total_len() as u32;
        let (sum, len) = (self.plain.finalize().to_le_bytes(), len.to_le_bytes());
        [&LAST_BLOCK[..], &sum, &len].concat().into()
    }
}

fn stored(plain: &[u8], len: u16) -> Bytes {
    let mut out = BytesMut::with_capacity(plain.len() + 5);
    out.put_u8(0);
    out.put_u16_le(len);
    out.put_u16_le(!len);
    out.put_slice(plain);
    out.freeze()
}

thread_local! {
    /// Some 300 KB: one for each thread that writes, not for each stream.
    static ENCODER: RefCell<DeflateEncoder<Vec<u8>>> =
        RefCell::new(DeflateEncoder::new(Vec::new(), Compression::fast()));
}

fn deflated(plain: &[u8]) -> io::Result<Bytes> {
    ENCODER.with_borrow_mut(|encoder| {
        encoder.write_all(plain)?;
        encoder.flush()?;
        let blocks = std::mem::take(encoder.get_mut());
        // What comes next shall not refer to this.
        encoder.reset(Vec::new())?;
        Ok(blocks.into())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn lines(count: usize) -> Vec<u8> {
        (0..count).flat_map(|n| format!("data: line {n} of many\n").into_bytes()).collect()
    }

    #[test]
    fn blocks_stand_in_any_stream_and_in_any_order() {
        let texts = [lines(1), lines(20), lines(100_000), lines(3), vec![b'x'; SMALLEST]];
        let blocks: Vec<_> = texts.iter().map(|text| Blocks::of(text).unwrap()).collect();
        for order in [vec![0, 1, 2, 3, 4], vec![4, 2, 2, 0], vec![1], vec![]] {
            let (mut member, mut encoded) = (Member::default(), Member::begin().to_vec());
            for &index in &order {
                member.add(&blocks[index]);
                encoded.extend_from_slice(&blocks[index].bytes);
            }
            encoded.extend_from_slice(&member.end());
            let mut decoded = Vec::new();
            GzDecoder::new(&*encoded).read_to_end(&mut decoded).expect("sum and length are right");
            let plain: Vec<u8> = order.iter().flat_map(|&index| texts[index].clone()).collect();
            assert!(decoded == plain, "{order:?}");
        }
    }

    #[test]
    fn all_that_was_written_can_be_read_at_once() {
        let mut encoded = Member::begin().to_vec();
        let mut plain = Vec::new();
        for text in [lines(1), lines(1000), lines(2)] {
            encoded.extend_from_slice(&Blocks::of(&text).unwrap().bytes);
            plain.extend(text);
            let mut decoded = vec![0; plain.len()];
            GzDecoder::new(&*encoded).read_exact(&mut decoded).unwrap();
            assert!(decoded == plain);
        }
    }

    #[test]
    fn text_becomes_a_good_deal_smaller() {
        let text = lines(1000);
        assert!(Blocks::of(&text).unwrap().bytes.len() * 4 < text.len());
    }
}
