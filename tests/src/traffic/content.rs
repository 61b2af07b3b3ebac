//! Bytes that differ at every place of a stream, and their hash.

use ring::digest::{Context, SHA256};

const BLOCK: usize = 256 * 1024;

/// The content of a stream: the same for the same seed.
#[derive(Debug)]
pub struct Content {
    block: Vec<u8>,
    next: u64,
    left: u64,
}

impl Content {
    /// A stream of `length` bytes.
    #[must_use]
    pub fn new(seed: u64, length: u64) -> Self {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let block = (0..BLOCK / 8).flat_map(|_| word()).collect();
        Self { block, next: 0, left: length }
    }

    /// The next piece; none after the last.
    pub fn piece(&mut self) -> Option<&[u8]> {
        if self.left == 0 {
            return None;
        }
        let length = usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK);
        // A number every 1 KiB, so that a piece lost, doubled or moved changes the hash.
        for (index, place) in self.block.chunks_exact_mut(1024).enumerate() {
            let number = self.next + index as u64;
            place[..8].copy_from_slice(&number.to_le_bytes());
        }
        self.next += (BLOCK / 1024) as u64;
        self.left -= length as u64;
        Some(&self.block[..length])
    }
}

/// A SHA-256 in the making.
pub struct Hash(Context);

impl Default for Hash {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Hash {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.0.finish().as_ref());
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(seed: u64, length: u64) -> Vec<u8> {
        let mut content = Content::new(seed, length);
        let mut bytes = Vec::new();
        while let Some(piece) = content.piece() {
            bytes.extend_from_slice(piece);
        }
        bytes
    }

    #[test]
    fn content_has_its_length_depends_on_its_seed_and_does_not_repeat() {
        let bytes = all(1, 600_000);
        assert_eq!(bytes.len(), 600_000);
        assert_eq!(bytes, all(1, 600_000));
        assert_ne!(bytes, all(2, 600_000));
        assert_ne!(bytes[..1024], bytes[BLOCK..BLOCK + 1024]);
    }
}
