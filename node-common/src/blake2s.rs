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

macro_rules! round {
    ($v:ident, $m:ident, $s0:literal $s1:literal $s2:literal $s3:literal $s4:literal $s5:literal
     $s6:literal $s7:literal $s8:literal $s9:literal $s10:literal $s11:literal $s12:literal
     $s13:literal $s14:literal $s15:literal) => {
        mix!($v, 0 4 8 12, $m[$s0], $m[$s1]);
        mix!($v, 1 5 9 13, $m[$s2], $m[$s3]);
        mix!($v, 2 6 10 14, $m[$s4], $m[$s5]);
        mix!($v, 3 7 11 15, $m[$s6], $m[$s7]);
        mix!($v, 0 5 10 15, $m[$s8], $m[$s9]);
        mix!($v, 1 6 11 12, $m[$s10], $m[$s11]);
        mix!($v, 2 7 8 13, $m[$s12], $m[$s13]);
        mix!($v, 3 4 9 14, $m[$s14], $m[$s15]);
    };
}

/// Works one block, as little-endian words, into the chaining value. `count` is the number of
/// bytes up to the block's end, its padding left out, and must be below 2^32; `last` says that no
/// block follows.
// The rounds are written out: an index that the verifier cannot follow would be refused.
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
    round!(v, m, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    round!(v, m, 14 10 4 8 9 15 13 6 1 12 0 2 11 7 5 3);
    round!(v, m, 11 8 12 0 5 2 15 13 10 14 3 6 7 1 9 4);
    round!(v, m, 7 9 3 1 13 12 11 14 2 6 5 10 4 0 15 8);
    round!(v, m, 9 0 5 7 2 4 10 15 14 1 11 12 6 8 3 13);
    round!(v, m, 2 12 6 10 0 11 8 3 4 13 7 5 15 14 1 9);
    round!(v, m, 12 5 1 15 14 13 4 10 0 7 6 3 9 2 8 11);
    round!(v, m, 13 11 7 14 12 1 3 9 5 0 15 4 8 6 2 10);
    round!(v, m, 6 15 14 9 11 3 0 8 12 2 13 7 1 4 10 5);
    round!(v, m, 10 2 8 4 7 6 1 5 15 11 9 14 3 12 13 0);
    h[0] ^= v[0] ^ v[8];
    h[1] ^= v[1] ^ v[9];
    h[2] ^= v[2] ^ v[10];
    h[3] ^= v[3] ^ v[11];
    h[4] ^= v[4] ^ v[12];
    h[5] ^= v[5] ^ v[13];
    h[6] ^= v[6] ^ v[14];
    h[7] ^= v[7] ^ v[15];
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
