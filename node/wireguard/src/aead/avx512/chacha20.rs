//! Sixteen blocks of ChaCha20 (RFC 8439, section 2.3) at once. A vector has one word of the state for
//! each block.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_rol_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    _mm512_xor_si512,
};

use super::{
    super::job::{BLOCK_LEN, CONSTANTS},
    vector::{self, transpose_quarters},
};

/// Blocks of one pass.
pub(super) const LANES: usize = 16;

/// The words of the state that are not constant.
pub(super) struct Rows {
    pub(super) key: [__m512i; 8],
    pub(super) block: __m512i,
    pub(super) nonce: [__m512i; 3],
}

/// The key stream of one pass.
#[repr(C, align(64))]
pub(super) struct Stream(pub(super) [[u8; BLOCK_LEN]; LANES]);

macro_rules! half_round {
    ($x:ident, $b:expr, $c:expr, $d:expr) => {
        half_round!($x, 16, [0, 1, 2, 3], $b, $d);
        half_round!($x, 12, $c, $d, $b);
        half_round!($x, 8, [0, 1, 2, 3], $b, $d);
        half_round!($x, 7, $c, $d, $b);
    };
    ($x:ident, $rotation:literal, $to:expr, $from:expr, $mixed:expr) => {
        let (to, from, mixed): ([usize; 4], [usize; 4], [usize; 4]) = ($to, $from, $mixed);
        for i in 0..4 {
            $x[to[i]] = _mm512_add_epi32($x[to[i]], $x[from[i]]);
        }
        for i in 0..4 {
            $x[mixed[i]] = _mm512_xor_si512($x[mixed[i]], $x[to[i]]);
        }
        for i in 0..4 {
            $x[mixed[i]] = _mm512_rol_epi32::<$rotation>($x[mixed[i]]);
        }
    };
}

/// The key stream of sixteen blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn pass(rows: &Rows, stream: &mut Stream) {
    let mut x = [_mm512_setzero_si512(); 16];
    for i in 0..4 {
        x[i] = _mm512_set1_epi32(CONSTANTS[i].cast_signed());
    }
    x[4..12].copy_from_slice(&rows.key);
    x[12] = rows.block;
    x[13..].copy_from_slice(&rows.nonce);
    for _ in 0..10 {
        half_round!(x, [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]);
        half_round!(x, [5, 6, 7, 4], [10, 11, 8, 9], [15, 12, 13, 14]);
    }
    for i in 0..4 {
        x[i] = _mm512_add_epi32(x[i], _mm512_set1_epi32(CONSTANTS[i].cast_signed()));
    }
    for i in 0..8 {
        x[4 + i] = _mm512_add_epi32(x[4 + i], rows.key[i]);
    }
    x[12] = _mm512_add_epi32(x[12], rows.block);
    for i in 0..3 {
        x[13 + i] = _mm512_add_epi32(x[13 + i], rows.nonce[i]);
    }
    write_blocks(&x, stream);
}

/// From one vector for each word to one for each block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn write_blocks(words: &[__m512i; 16], stream: &mut Stream) {
    let mut quarters = [[_mm512_setzero_si512(); 4]; 4];
    for i in 0..4 {
        let [a, b, c, d] = [words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]];
        let low = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let high = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        quarters[0][i] = _mm512_unpacklo_epi64(low.0, low.1);
        quarters[1][i] = _mm512_unpackhi_epi64(low.0, low.1);
        quarters[2][i] = _mm512_unpacklo_epi64(high.0, high.1);
        quarters[3][i] = _mm512_unpackhi_epi64(high.0, high.1);
    }
    for (i, quarters) in quarters.into_iter().enumerate() {
        for (lane, block) in transpose_quarters(quarters).into_iter().enumerate() {
            vector::store(block, &mut stream.0[4 * lane + i]);
        }
    }
}
