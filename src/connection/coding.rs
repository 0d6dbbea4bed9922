//! How the bytes of streams are written: as they are, or in gzip. Pure.

use std::{cell::OnceCell, io};

use bytes::Bytes;

use super::{
    chunked::{Chunk, chunk},
    gzip::{Blocks, Member},
};

/// How one stream is written.
#[derive(Debug, Clone)]
pub(super) enum Coding {
    /// As it is.
    Identity,
    /// In gzip, and what its end will say.
    Gzip(Member),
}

impl Coding {
    pub(super) fn new(gzip: bool) -> Self {
        match gzip {
            true => Self::Gzip(Member::default()),
            false => Self::Identity,
        }
    }

    /// What is written first.
    pub(super) fn begin(&self) -> Bytes {
        match self {
            Self::Identity => Bytes::new(),
            Self::Gzip(_) => Member::begin(),
        }
    }

    /// Part of the body as it is written next.
    ///
    /// # Errors
    /// The compressor's.
    pub(super) fn encode(&mut self, plain: Bytes) -> io::Result<Bytes> {
        match self {
            Self::Identity => Ok(plain),
            Self::Gzip(member) => {
                let blocks = Blocks::of(&plain)?;
                member.add(&blocks);
                Ok(blocks.bytes)
            }
        }
    }

    /// What is written last.
    pub(super) fn end(self) -> Bytes {
        match self {
            Self::Identity => Bytes::new(),
            Self::Gzip(member) => member.end(),
        }
    }
}

/// A chunk for many streams, encoded once for all that want it so.
#[derive(Debug)]
pub(super) struct SharedChunk {
    plain: Bytes,
    body: Bytes,
    gzip: OnceCell<(Bytes, Blocks)>,
}

impl SharedChunk {
    pub(super) fn new(chunk: Chunk) -> Self {
        let (plain, body) = chunk.finish();
        Self { plain, body, gzip: OnceCell::new() }
    }

    /// The chunk as it is written next in a stream.
    ///
    /// # Errors
    /// The compressor's.
    pub(super) fn of(&self, coding: &mut Coding) -> io::Result<&Bytes> {
        let Coding::Gzip(member) = coding else { return Ok(&self.plain) };
        let (encoded, blocks) = match self.gzip.get() {
            Some(known) => known,
            None => {
                let blocks = Blocks::of(&self.body)?;
                self.gzip.get_or_init(|| (chunk(&blocks.bytes), blocks))
            }
        };
        member.add(blocks);
        Ok(encoded)
    }
}
