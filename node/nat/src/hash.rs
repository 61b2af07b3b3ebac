//! The keyed hash of the indexes: two multiplications to 128 bits, folded (as wyhash and ahash do).
//! An attacker sees no hash, and does not know the keys.

use crate::flow::{DownKey, UpKey};

/// The secret keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys([u64; 2]);

/// The fraction of pi, as in Blowfish: any odd constants without structure do.
const PI: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345];

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

impl Keys {
    pub(crate) fn new(keys: [u64; 2]) -> Self {
        Self(keys)
    }

    #[inline(always)]
    fn hash(self, words: [u64; 4]) -> u64 {
        let [a, b, c, d] = words;
        let [k0, k1] = self.0;
        let first = fold(a ^ k0, b ^ k1 ^ PI[0]);
        let second = fold(c ^ k1, d ^ k0 ^ PI[1]);
        fold(first ^ k0 ^ PI[1], second.rotate_left(32) ^ k1 ^ PI[0]) ^ first ^ second
    }

    #[inline(always)]
    pub(crate) fn up(self, key: &UpKey) -> u64 {
        let ports = u64::from(key.port) << 16 | u64::from(key.remote_port);
        let kind = u64::from(key.protocol as u8) << 8 | u64::from(key.v6);
        self.hash([key.remote[0], key.remote[1], u64::from(key.slot) << 32 | ports, kind])
    }

    #[inline(always)]
    pub(crate) fn down(self, key: &DownKey) -> u64 {
        let ports = u64::from(key.port) << 16 | u64::from(key.remote_port);
        let kind = 1 << 24 | u64::from(key.protocol as u8) << 8 | u64::from(key.external);
        self.hash([key.remote[0], key.remote[1], u64::from(key.slot) << 32 | ports, kind])
    }

    /// Of anything in two words.
    #[inline(always)]
    pub(crate) fn pair(self, a: u64, b: u64) -> u64 {
        self.hash([a, b, 2, 0])
    }
}
