//! The first MAC of handshake messages (whitepaper, section 5.4.4): whoever makes one knows our
//! public key.

use crate::{
    blake2s::{BLOCK_LEN, block, compress, digest, start},
    packet::Frame,
    wire::{INITIATION_LEN, RESPONSE_LEN},
};

const MAC_LEN: usize = 16;
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
    // Functions of their own: together they would need more than an eBPF program's stack.
    #[must_use]
    #[inline(never)]
    pub fn fit_initiation<F: Frame + ?Sized>(&self, frame: &F, at: usize) -> bool {
        let (mut first, mut second, mut mac) = ([0; 16], [0; 16], [0; 16]);
        let whole = frame.words::<16>(at, &mut first)
            && frame.words::<{ (INITIATION_COVERS - BLOCK_LEN) / 4 }>(at + BLOCK_LEN, &mut second)
            && frame.words::<{ MAC_LEN / 4 }>(at + INITIATION_COVERS, &mut mac);
        if !whole {
            return false;
        }
        const COUNT: u32 = (BLOCK_LEN + INITIATION_COVERS) as u32;
        let [one, two] = &self.keys;
        let mut h = one.words;
        compress(&mut h, &first, 2 * BLOCK_LEN as u32, false);
        compress(&mut h, &second, COUNT, true);
        if same(&h, &mac) {
            return true;
        }
        if self.live < 2 {
            return false;
        }
        h = two.words;
        compress(&mut h, &first, 2 * BLOCK_LEN as u32, false);
        compress(&mut h, &second, COUNT, true);
        same(&h, &mac)
    }

    /// Whether the MAC of the response at `at` fits one of the keys.
    #[must_use]
    #[inline(never)]
    pub fn fit_response<F: Frame + ?Sized>(&self, frame: &F, at: usize) -> bool {
        let (mut covered, mut mac) = ([0; 16], [0; 16]);
        let whole = frame.words::<{ RESPONSE_COVERS / 4 }>(at, &mut covered)
            && frame.words::<{ MAC_LEN / 4 }>(at + RESPONSE_COVERS, &mut mac);
        if !whole {
            return false;
        }
        const COUNT: u32 = (BLOCK_LEN + RESPONSE_COVERS) as u32;
        let [one, two] = &self.keys;
        let mut h = one.words;
        compress(&mut h, &covered, COUNT, true);
        if same(&h, &mac) {
            return true;
        }
        if self.live < 2 {
            return false;
        }
        h = two.words;
        compress(&mut h, &covered, COUNT, true);
        same(&h, &mac)
    }
}

/// Whether a chaining value begins with this MAC. Not in constant time: the key is public.
#[inline(always)]
fn same(h: &[u32; 8], mac: &[u32; 16]) -> bool {
    (h[0] ^ mac[0]) | (h[1] ^ mac[1]) | (h[2] ^ mac[2]) | (h[3] ^ mac[3]) == 0
}
