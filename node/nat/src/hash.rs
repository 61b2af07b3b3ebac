//! The keyed hash of the indexes: two multiplications to 128 bits, folded (as wyhash and ahash do).
//! An attacker sees no hash, and does not know the keys.

use crate::flow::{DownKey, UpKey};

/// The secret keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys([u64; 4]);

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

/// Steele and Vigna's SplitMix64.
fn mix(word: u64) -> u64 {
    let mixed = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

impl Keys {
    /// A factor with few bits would hardly spread anything, so the keys are mixed first.
    pub(crate) fn new(keys: [u64; 2]) -> Self {
        let [a, b] = keys.map(mix);
        let [c, d] = [mix(a ^ b.rotate_left(17)), mix(b ^ a.rotate_left(41))];
        Self([a, b, c, d].map(|key| key | 1))
    }

    #[inline(always)]
    fn hash(self, words: [u64; 4]) -> u64 {
        let [a, b, c, d] = words;
        let [k0, k1, k2, k3] = self.0;
        let first = fold(a ^ k0, b ^ k1);
        let second = fold(c ^ k2, d ^ k3);
        fold(first ^ k2, second ^ k1)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Protocol;

    /// Keys that differ in few bits are spread as if they were thrown at random.
    #[test]
    fn keys_that_are_alike_have_chains_of_their_own() {
        const BUCKETS: usize = 1 << 14;
        for keys in [[0, 0], [1, 2], [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]] {
            let keys = Keys::new(keys);
            let mut up = vec![0u32; BUCKETS];
            let mut down = vec![0u32; BUCKETS];
            for number in 0..BUCKETS as u32 {
                let remote = [0, 0x2d01_0203_ffff | u64::from(number / 32 % 4) << 56];
                let (port, remote_port) = (1024 + (number % 32) as u16, 443);
                let (protocol, slot) = (Protocol::Tcp, number / 128);
                let key = UpKey { remote, slot, port, remote_port, protocol, v6: false };
                up[keys.up(&key) as usize % BUCKETS] += 1;
                let (port, external) = (4096 + number as u16, 0);
                let key = DownKey { remote, slot: 0, port, remote_port, protocol, external };
                down[keys.down(&key) as usize % BUCKETS] += 1;
            }
            for counts in [up, down] {
                let longest = counts.iter().max().copied().unwrap_or_default();
                let empty = counts.iter().filter(|count| **count == 0).count();
                // 37 % are empty at random.
                assert!(longest <= 10, "{longest}");
                assert!((BUCKETS / 3..BUCKETS / 5 * 2).contains(&empty), "{empty}");
            }
        }
    }
}
