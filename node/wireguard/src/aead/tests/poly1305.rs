//! Poly1305 of the vector paths against the definition, at the edges of its numbers.

use super::*;
use crate::aead::avx512::Way;

/// 2^130 - 5, as its upper two bits and its lower 128.
const P: Number = Number { high: 3, low: u128::MAX - 4 };

/// A number, slow and plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number {
    high: u64,
    low: u128,
}

impl Number {
    fn reduced(mut self) -> Self {
        while self >= P {
            let (low, borrow) = self.low.overflowing_sub(P.low);
            self = Self { high: self.high - P.high - u64::from(borrow), low };
        }
        self
    }

    fn plus(self, other: Self) -> Self {
        let (low, carry) = self.low.overflowing_add(other.low);
        Self { high: self.high + other.high + u64::from(carry), low }.reduced()
    }

    /// By doubling and adding.
    fn times(self, factor: u128) -> Self {
        (0..128).rev().fold(Self { high: 0, low: 0 }, |sum, bit| {
            let sum = sum.plus(sum);
            if factor >> bit & 1 == 1 { sum.plus(self) } else { sum }
        })
    }

    /// What remains to `self` from `other`.
    fn minus(self, other: Self) -> Self {
        let other = other.reduced();
        let (low, borrow) = P.low.overflowing_sub(other.low);
        self.plus(Self { high: P.high - other.high - u64::from(borrow), low })
    }
}

/// A block, with the bit beyond it.
fn block(bytes: u128) -> Number {
    Number { high: 1, low: bytes }.reduced()
}

/// RFC 8439, section 2.5.1. The last block is the lengths.
fn model(r: u128, s: u128, text: &[u8], lengths: u128) -> [u8; 16] {
    let r = r & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
    let mut h = Number { high: 0, low: 0 };
    for chunk in text.chunks(16) {
        let mut bytes = [0; 16];
        bytes[..chunk.len()].copy_from_slice(chunk);
        h = h.plus(block(u128::from_le_bytes(bytes))).times(r);
    }
    h.plus(block(lengths)).times(r).low.wrapping_add(s).to_le_bytes()
}

/// The tags of a message by everything that this processor can run: alone, and as the third of eight.
fn tags(r: u128, s: u128, text: &[u8], lengths: u128) -> Vec<[u8; 16]> {
    let mut one_time = [0; 64];
    one_time[..16].copy_from_slice(&r.to_le_bytes());
    one_time[16..32].copy_from_slice(&s.to_le_bytes());
    let mut tags = Vec::new();
    if avx512::is_available() {
        let others = bytes(150, 1);
        for way in [Way::ByMessage, Way::ByBlock] {
            tags.push(avx512::tags(way, &[&one_time], &[text], lengths)[0]);
            let (mut keys, mut texts) = ([&[0xff; 64]; 8], [&others[..]; 8]);
            (keys[2], texts[2]) = (&one_time, text);
            tags.push(avx512::tags(way, &keys, &texts, lengths)[2]);
        }
    }
    if avx2::is_available() {
        tags.push(avx2::tag(&one_time, text, lengths));
    }
    tags
}

fn check(r: u128, s: u128, text: &[u8], lengths: u128) {
    let expected = model(r, s, text, lengths);
    for (i, tag) in tags(r, s, text, lengths).into_iter().enumerate() {
        assert_eq!(tag, expected, "tag {i}: r {r:x}, s {s:x}, {} bytes", text.len());
    }
}

#[test]
fn limbs_at_their_limits_are_as_the_definition() {
    let factors = [0, 1, 2, 4, (1 << 44) - 4, 1 << 88, u128::MAX];
    for r in factors {
        for byte in [0, 1, 0x80, 0xfe, 0xff] {
            for len in (0..300).step_by(7).chain([1408, 1424, 1440]) {
                check(r, u128::MAX, &vec![byte; len], u128::MAX);
                check(r, 1, &vec![byte; len], (len as u128) << 64);
            }
        }
    }
}

#[test]
fn sums_around_the_prime_are_as_the_definition() {
    // With r = 1, h is the sum of the blocks. The last block of the text makes it what is wanted.
    let mut seen = 0;
    for blocks in 1..24_usize {
        let lengths = (blocks as u128 * 16) << 64;
        for offset in -6..=6_i128 {
            let small = Number { high: 0, low: offset.unsigned_abs() };
            for edge in
                [Number { high: 0, low: 0 }, Number { high: 1, low: 0 }, Number { high: 3, low: 0 }]
            {
                let target = if offset < 0 { edge.minus(small) } else { edge.plus(small) };
                for seed in 0..8 {
                    let mut text = bytes(blocks * 16, seed);
                    let (words, _) = text.as_chunks_mut::<16>();
                    let (last, rest) = words.split_last_mut().unwrap();
                    let sum = rest.iter().fold(block(lengths), |sum, word| {
                        sum.plus(block(u128::from_le_bytes(*word)))
                    });
                    let missing = target.minus(sum).minus(Number { high: 1, low: 0 });
                    if missing.high == 0 {
                        *last = missing.low.to_le_bytes();
                        assert_eq!(model(1, 0, &text, lengths), target.low.to_le_bytes());
                        check(1, 0, &text, lengths);
                        check(1, u128::MAX, &text, lengths);
                        seen += 1;
                    }
                }
            }
        }
    }
    assert!(seen > 500, "only {seen} sums");
}

#[test]
fn numbers_that_are_not_reduced_are_as_the_definition() {
    // Two blocks and the lengths, each with the bit beyond, are 3 * 2^128 and what they contain: the sum
    // is between p and 2^130 without any carry.
    for above in 0..8_u128 {
        let lengths = 32 << 64;
        let sum = 0_u128.wrapping_sub(5).wrapping_add(above).wrapping_sub(lengths);
        for first in [0, 1, sum / 2, sum - 1] {
            let mut text = first.to_le_bytes().to_vec();
            text.extend((sum - first).to_le_bytes());
            check(1, 0, &text, lengths);
        }
    }
}

#[test]
fn any_key_and_text_are_as_the_definition() {
    for len in (0..600).step_by(13) {
        let word = |seed| u128::from_le_bytes(bytes(16, seed).try_into().unwrap());
        check(word(len as u64), word(len as u64 + 1), &bytes(len, 3), word(9));
    }
}

/// RFC 8439, appendix A.3, the vectors of whole blocks. The last block takes the place of the lengths.
#[test]
fn the_vectors_of_the_rfc() {
    const ONES: u128 = u128::MAX;
    const R: u128 = 4 << 64 | 1;
    const A: u128 = 0xb943_5e50_d794_35e3;
    const B: u128 = 1 << 64 | 0xcd79_435e_50d7_9433;
    let small = |word: u128| word.to_le_bytes();
    let vectors: [(u128, u128, &[u128], u128); 9] = [
        (0, 0, &[0; 4], 0),
        (2, 0, &[ONES], 3),
        (2, ONES, &[2], 3),
        (1, 0, &[ONES, ONES - 15, 0x11], 5),
        (
            1,
            0,
            &[
                ONES,
                0xfefe_fefe_fefe_fefe_fefe_fefe_fefe_fefb,
                0x0101_0101_0101_0101_0101_0101_0101_0101,
            ],
            0,
        ),
        (2, 0, &[ONES - 2], ONES - 5),
        (R, 0, &[A, B, 0, 1], 0x55 << 64 | 0x14),
        (R, 0, &[A, B, 0], 0x13),
        (1, 0, &[0], 0),
    ];
    for (r, s, blocks, expected) in vectors {
        let (last, text) = blocks.split_last().unwrap();
        let text: Vec<u8> = text.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(model(r, s, &text, *last), small(expected), "{r} {blocks:?}");
        check(r, s, &text, *last);
    }
}
