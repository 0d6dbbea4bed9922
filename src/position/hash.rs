//! A hash for what stands in a position.

/// A hash that is the same in every build and on every machine (FNV-1a, folded to 32 bits).
#[derive(Debug, Clone, Copy)]
pub struct StableHash(u64);

impl Default for StableHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl StableHash {
    /// Adds a part and its end, so that ("ab", "c") and ("a", "bc") differ.
    #[must_use]
    pub fn with(self, part: &[u8]) -> Self {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let hash = part.iter().fold(self.0, |hash, byte| step(hash, *byte));
        Self(step(step(hash, 0xff), part.len() as u8))
    }

    /// The hash of all that was added.
    #[must_use]
    pub const fn finish(self) -> u32 {
        (self.0 ^ self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_everywhere_and_tells_parts_apart() {
        assert_eq!(StableHash::default().with(b"Patient").finish(), 2_222_356_254);
        let joined = |parts: [&str; 2]| {
            parts
                .iter()
                .fold(StableHash::default(), |hash, part| hash.with(part.as_bytes()))
                .finish()
        };
        assert_ne!(joined(["ab", "c"]), joined(["a", "bc"]));
    }
}
