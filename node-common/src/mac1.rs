//! The first MAC of handshake messages (whitepaper, section 5.4.4): whoever makes one knows our
//! public key.

use crate::{
    blake2s::{BLOCK_LEN, block, compress, digest, start},
    packet::Frame,
    wire::{INITIATION_LEN, RESPONSE_LEN},
};

/// Length of each of the two MACs, in bytes.
pub const MAC_LEN: usize = 16;
const LABEL: &[u8; 8] = b"mac1----";
/// What of an initiation the MAC covers: all but the two MACs.
const INITIATION_COVERS: usize = INITIATION_LEN - 2 * MAC_LEN;
/// What of a response it covers.
const RESPONSE_COVERS: usize = RESPONSE_LEN - 2 * MAC_LEN;

/// A public key, ready to check MACs with: the chaining value behind the block of its MAC key, so
/// that a check costs one compression less.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mac1Key {
    pub(crate) words: [u32; 8],
}

impl Mac1Key {
    /// The MAC key of a node's public key.
    #[must_use]
    pub fn new(public_key: &[u8; 32]) -> Self {
        let mut labelled = [0; 40];
        let (label, key) = labelled.split_at_mut(LABEL.len());
        label.copy_from_slice(LABEL);
        key.copy_from_slice(public_key);
        let key = digest(32, b"", &labelled);
        let mut words = start(MAC_LEN as u8, 32);
        compress(&mut words, &block(&key), BLOCK_LEN as u32, false);
        Self { words }
    }

    /// The MAC of what comes before the MACs of a handshake message of 92 or 148 bytes.
    #[must_use]
    pub fn mac(&self, message: &[u8]) -> [u8; MAC_LEN] {
        let covered = message.get(..message.len().saturating_sub(2 * MAC_LEN)).unwrap_or_default();
        let mut h = self.words;
        let mut count = BLOCK_LEN as u32;
        let mut blocks = covered.chunks(BLOCK_LEN).peekable();
        while let Some(bytes) = blocks.next() {
            count += bytes.len() as u32;
            compress(&mut h, &block(bytes), count, blocks.peek().is_none());
        }
        let mut mac = [0; MAC_LEN];
        for (place, word) in mac.chunks_exact_mut(4).zip(h) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        mac
    }
}

/// The keys that handshake messages may be for. There are two so that one can follow the other
/// without a gap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mac1Keys {
    /// How many of the keys count, from the first on. With none, MACs are not checked.
    pub live: u32,
    /// The keys.
    pub keys: [Mac1Key; 2],
}

impl Mac1Keys {
    /// One key.
    #[must_use]
    pub const fn one(key: Mac1Key) -> Self {
        Self { live: 1, keys: [key, Mac1Key { words: [0; 8] }] }
    }

    /// Two keys.
    #[must_use]
    pub const fn both(first: Mac1Key, second: Mac1Key) -> Self {
        Self { live: 2, keys: [first, second] }
    }

    /// Whether the MAC of the initiation at `at` fits one of the keys.
    #[must_use]
    #[inline(always)]
    pub fn fit_initiation<F: Frame + ?Sized>(&self, frame: &F, at: usize) -> bool {
        let [one, two] = &self.keys;
        one.fits_initiation(frame, at) || (self.live > 1 && two.fits_initiation(frame, at))
    }

    /// Whether the MAC of the response at `at` fits one of the keys.
    #[must_use]
    #[inline(always)]
    pub fn fit_response<F: Frame + ?Sized>(&self, frame: &F, at: usize) -> bool {
        let [one, two] = &self.keys;
        one.fits_response(frame, at) || (self.live > 1 && two.fits_response(frame, at))
    }
}

// Functions of their own, with little in their frames: an eBPF program and all that it calls have
// 512 bytes of stack together. The covered bytes end within a block, so the MAC's first words are
// read with it and then taken out.
impl Mac1Key {
    #[inline(never)]
    fn fits_initiation<F: Frame + ?Sized>(&self, frame: &F, at: usize) -> bool {
        let mut h = self.words;
        let Some(mut block) = frame.block(at) else { return false };
        compress(&mut h, &block, 2 * BLOCK_LEN as u32, false);
        let Some(next) = frame.block(at + BLOCK_LEN) else { return false };
        block = next;
        let m3 = word(frame, at + 2 * BLOCK_LEN);
        const { assert!(INITIATION_COVERS == BLOCK_LEN + 13 * 4) };
        let [.., m0, m1, m2] = block;
        let [.., p0, p1, p2] = &mut block;
        (*p0, *p1, *p2) = (0, 0, 0);
        compress(&mut h, &block, (BLOCK_LEN + INITIATION_COVERS) as u32, true);
        (h[0] ^ m0) | (h[1] ^ m1) | (h[2] ^ m2) | (h[3] ^ m3) == 0
    }

    #[inline(never)]
    fn fits_response<F: Frame + ?Sized>(&self, frame: &F, at: usize) -> bool {
        let mut h = self.words;
        let Some(mut block) = frame.block(at) else { return false };
        const { assert!(RESPONSE_COVERS == 15 * 4) };
        let [.., m0] = block;
        let [m1, m2, m3] = [0, 4, 8].map(|place| word(frame, at + BLOCK_LEN + place));
        let [.., p0] = &mut block;
        *p0 = 0;
        compress(&mut h, &block, (BLOCK_LEN + RESPONSE_COVERS) as u32, true);
        // Not in constant time: the key is public.
        (h[0] ^ m0) | (h[1] ^ m1) | (h[2] ^ m2) | (h[3] ^ m3) == 0
    }
}

/// A word of a MAC. The parser has seen that the message is whole; where one is not, zero is no
/// more likely to fit than any other word. (To leave early makes the compiler compare words that
/// it did not read, which the verifier refuses.)
#[inline(always)]
fn word<F: Frame + ?Sized>(frame: &F, at: usize) -> u32 {
    frame.word(at)
}
