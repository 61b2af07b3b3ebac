//! Poly1305 (RFC 8439, section 2.5) in whole registers: three limbs of 44, 44 and 42 bits.

use super::BLOCK_LEN;

const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;

/// A number modulo 2^130 - 5. The limbs may have a few bits more than their share.
type Limbs = [u64; 3];

fn word(bytes: &[u8], at: usize) -> u64 {
    let chunk = bytes.get(at..).and_then(<[u8]>::first_chunk);
    chunk.map_or(0, |word| u64::from_le_bytes(*word))
}

/// A number of 128 bits, with a bit beyond.
fn split(low: u64, high: u64, beyond: u64) -> Limbs {
    [low & MASK_44, (low >> 44 | high << 20) & MASK_44, high >> 24 | beyond << 40]
}

fn multiply(a: Limbs, b: Limbs) -> Limbs {
    let product = |i: usize, j: usize| u128::from(a[i]) * u128::from(b[j]);
    // What is beyond 2^132 counts twenty times.
    let zero = product(0, 0) + 20 * (product(1, 2) + product(2, 1));
    let one = product(0, 1) + product(1, 0) + 20 * product(2, 2) + (zero >> 44);
    let two = product(0, 2) + product(1, 1) + product(2, 0) + (one >> 44);
    let zero = (zero as u64 & MASK_44) + 5 * (two >> 42) as u64;
    [zero & MASK_44, (one as u64 & MASK_44) + (zero >> 44), two as u64 & MASK_42]
}

/// The tag of a message under the key at the start of `one_time`. Its last block has the two `lengths`
/// (RFC 8439, section 2.8).
pub(super) fn tag(one_time: &[u8; BLOCK_LEN], text: &[u8], lengths: [u64; 2]) -> [u8; 16] {
    let clamped =
        [word(one_time, 0) & 0x0fff_fffc_0fff_ffff, word(one_time, 8) & 0x0fff_fffc_0fff_fffc];
    let r = split(clamped[0], clamped[1], 0);
    let mut h = [0; 3];
    let mut absorb = |low: u64, high: u64| {
        let block = split(low, high, 1);
        h = multiply([h[0] + block[0], h[1] + block[1], h[2] + block[2]], r);
    };
    let (blocks, rest) = text.as_chunks::<16>();
    for block in blocks {
        absorb(word(block, 0), word(block, 8));
    }
    if !rest.is_empty() {
        let mut block = [0; 16];
        block[..rest.len()].copy_from_slice(rest);
        absorb(word(&block, 0), word(&block, 8));
    }
    absorb(lengths[0], lengths[1]);
    finish(h, [word(one_time, 16), word(one_time, 24)])
}

/// Reduces modulo 2^130 - 5, and adds s modulo 2^128.
fn finish(mut h: Limbs, s: [u64; 2]) -> [u8; 16] {
    for _ in 0..2 {
        h[1] += h[0] >> 44;
        h[2] += h[1] >> 44;
        h = [(h[0] & MASK_44) + 5 * (h[2] >> 42), h[1] & MASK_44, h[2] & MASK_42];
    }
    h[1] += h[0] >> 44;
    h[0] &= MASK_44;
    // h - (2^130 - 5), which is taken unless it is negative.
    let zero = h[0] + 5;
    let one = h[1] + (zero >> 44);
    let two = (h[2] + (one >> 44)).wrapping_sub(1 << 42);
    let is_less = (two >> 63).wrapping_neg();
    let choose = |less: u64, other: u64| less & is_less | other & !is_less;
    let (zero, one, two) =
        (choose(h[0], zero & MASK_44), choose(h[1], one & MASK_44), choose(h[2], two));
    let (low, high) = (zero | one << 44, one >> 20 | two << 24);
    let number = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
    number(low, high).wrapping_add(number(s[0], s[1])).to_le_bytes()
}
