//! BLAKE2s (RFC 7693), the hash of WireGuard's MACs: one implementation for the kernel's guard and
//! for user space. Only [`compress`] is long, and the eBPF target keeps it as a function of its own.

/// Bytes in a block.
pub const BLOCK_LEN: usize = 64;

const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The chaining value before the first block, for a digest of `len` bytes under a key of `key_len`.
#[must_use]
#[inline(always)]
pub const fn start(len: u8, key_len: u8) -> [u32; 8] {
    let mut h = IV;
    h[0] ^= 0x0101_0000 ^ (key_len as u32) << 8 ^ len as u32;
    h
}

macro_rules! mix {
    ($v:ident, $a:literal $b:literal $c:literal $d:literal, $x:expr, $y:expr) => {
        $v[$a] = $v[$a].wrapping_add($v[$b]).wrapping_add($x);
        $v[$d] = ($v[$d] ^ $v[$a]).rotate_right(16);
        $v[$c] = $v[$c].wrapping_add($v[$d]);
        $v[$b] = ($v[$b] ^ $v[$c]).rotate_right(12);
        $v[$a] = $v[$a].wrapping_add($v[$b]).wrapping_add($y);
        $v[$d] = ($v[$d] ^ $v[$a]).rotate_right(8);
        $v[$c] = $v[$c].wrapping_add($v[$d]);
        $v[$b] = ($v[$b] ^ $v[$c]).rotate_right(7);
    };
}

/// The order of a block's words in each round, four bits each, the first word's the lowest.
static ORDER: [u64; 10] = [
    0xfedc_ba98_7654_3210,
    0x357b_20c1_6df9_84ae,
    0x4917_63ea_df25_0c8b,
    0x8f04_a562_ebcd_1397,
    0xd386_cb1e_fa42_7509,
    0x91ef_57d4_38b0_a6c2,
    0xb829_3670_a4de_f15c,
    0xa268_4f05_931c_e7bd,
    0x5a41_7d2c_803b_9ef6,
    0x0dc3_e9bf_5167_482a,
];

/// Works one block, as little-endian words, into the chaining value. `count` is the number of
/// bytes up to the block's end, its padding left out, and must be below 2^32; `last` says that no
/// block follows.
// Functions with loops and not ten rounds written out: so they get by with an eBPF stack.
#[inline(never)]
pub fn compress(h: &mut [u32; 8], m: &[u32; 16], count: u32, last: bool) {
    let mut v = [0u32; 16];
    let (state, constants) = v.split_at_mut(8);
    state.copy_from_slice(h);
    constants.copy_from_slice(&IV);
    v[12] ^= count;
    if last {
        v[14] = !v[14];
    }
    for order in &ORDER {
        columns(&mut v, m, *order as u32);
        diagonals(&mut v, m, (*order >> 32) as u32);
    }
    h[0] ^= v[0] ^ v[8];
    h[1] ^= v[1] ^ v[9];
    h[2] ^= v[2] ^ v[10];
    h[3] ^= v[3] ^ v[11];
    h[4] ^= v[4] ^ v[12];
    h[5] ^= v[5] ^ v[13];
    h[6] ^= v[6] ^ v[14];
    h[7] ^= v[7] ^ v[15];
}

#[inline(never)]
fn columns(v: &mut [u32; 16], m: &[u32; 16], order: u32) {
    let word = |place: u32| m[(order >> (4 * place)) as usize & 15];
    mix!(v, 0 4 8 12, word(0), word(1));
    mix!(v, 1 5 9 13, word(2), word(3));
    mix!(v, 2 6 10 14, word(4), word(5));
    mix!(v, 3 7 11 15, word(6), word(7));
}

#[inline(never)]
fn diagonals(v: &mut [u32; 16], m: &[u32; 16], order: u32) {
    let word = |place: u32| m[(order >> (4 * place)) as usize & 15];
    mix!(v, 0 5 10 15, word(0), word(1));
    mix!(v, 1 6 11 12, word(2), word(3));
    mix!(v, 2 7 8 13, word(4), word(5));
    mix!(v, 3 4 9 14, word(6), word(7));
}

/// The BLAKE2s digest of `message`, of at most 2^31 bytes. The first `len` bytes (1 to 32) of the
/// result are the digest. Up to 32 bytes of `key` are used; an empty one is no key.
#[must_use]
pub fn digest(len: u8, key: &[u8], message: &[u8]) -> [u8; 32] {
    let key = key.get(..32).unwrap_or(key);
    let mut h = start(len, key.len() as u8);
    let mut count = 0;
    if !key.is_empty() {
        count = BLOCK_LEN as u32;
        compress(&mut h, &block(key), count, message.is_empty());
    }
    if !message.is_empty() || key.is_empty() {
        let whole = message.len().saturating_sub(1) / BLOCK_LEN * BLOCK_LEN;
        let (blocks, rest) = message.split_at_checked(whole).unwrap_or((message, &[]));
        for bytes in blocks.chunks(BLOCK_LEN) {
            count += BLOCK_LEN as u32;
            compress(&mut h, &block(bytes), count, false);
        }
        compress(&mut h, &block(rest), count + rest.len() as u32, true);
    }
    let mut digest = [0; 32];
    for (place, word) in digest.chunks_exact_mut(4).zip(h) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

/// Up to 64 bytes as a block, with zeros behind.
#[must_use]
pub fn block(bytes: &[u8]) -> [u32; 16] {
    let mut block = [0; 16];
    for (word, four) in block.iter_mut().zip(bytes.chunks(4)) {
        let mut padded = [0; 4];
        for (to, from) in padded.iter_mut().zip(four) {
            *to = *from;
        }
        *word = u32::from_le_bytes(padded);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7693, appendix B.
    #[test]
    fn abc_has_the_digest_of_the_rfc() {
        let expected = [
            0x50, 0x8c, 0x5e, 0x8c, 0x32, 0x7c, 0x14, 0xe2, 0xe1, 0xa7, 0x2b, 0xa3, 0x4e, 0xeb,
            0x45, 0x2f, 0x37, 0x45, 0x8b, 0x20, 0x9e, 0xd6, 0x3a, 0x29, 0x4d, 0x99, 0x9b, 0x4c,
            0x86, 0x67, 0x59, 0x82,
        ];
        assert_eq!(digest(32, b"", b"abc"), expected);
    }

    /// RFC 7693, appendix E: a digest of the digests of many lengths, with and without a key.
    #[test]
    fn the_self_test_of_the_rfc_passes() {
        fn sequence(bytes: &mut [u8], seed: u32) {
            let (mut a, mut b) = (0xDEAD_4BADu32.wrapping_mul(seed), 1u32);
            for byte in bytes {
                let t = a.wrapping_add(b);
                (a, b) = (b, t);
                *byte = (t >> 24) as u8;
            }
        }
        let lens = [0usize, 3, 64, 65, 255, 1024];
        let (mut all, mut at) = ([0u8; 4 * 6 * 2 * 32], 0);
        let mut input = [0u8; 1024];
        let mut key = [0u8; 32];
        for out in [16usize, 20, 28, 32] {
            for len in lens {
                sequence(&mut input[..len], len as u32);
                let plain = digest(out as u8, b"", &input[..len]);
                sequence(&mut key[..out], out as u32);
                let keyed = digest(out as u8, &key[..out], &input[..len]);
                for digest in [plain, keyed] {
                    all[at..at + out].copy_from_slice(&digest[..out]);
                    at += out;
                }
            }
        }
        let expected = [
            0x6a, 0x41, 0x1f, 0x08, 0xce, 0x25, 0xad, 0xcd, 0xfb, 0x02, 0xab, 0xa6, 0x41, 0x45,
            0x1c, 0xec, 0x53, 0xc5, 0x98, 0xb2, 0x4f, 0x4f, 0xc7, 0x87, 0xfb, 0xdc, 0x88, 0x79,
            0x7f, 0x4c, 0x1d, 0xfe,
        ];
        assert_eq!(digest(32, b"", &all[..at]), expected);
    }
}
