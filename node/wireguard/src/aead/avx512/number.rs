//! Numbers modulo 2^130 - 5, eight at once, each in three limbs of 44, 44 and 42 bits. Multiplication is
//! that of 52 bits (IFMA).

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmplt_epu64_mask, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_add_epi64, _mm512_mask_mov_epi64, _mm512_movepi64_mask,
    _mm512_or_si512, _mm512_setzero_si512, _mm512_shrdi_epi64, _mm512_slli_epi64,
    _mm512_srli_epi64, _mm512_sub_epi64,
};

use super::vector::{Line, load_line, splat, store_line};

const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;
/// The bit beyond a block of 16 bytes, in its highest limb.
pub(super) const BEYOND: u64 = 1 << 40;

/// A number in each lane. The limbs may have a few bits more than their share.
pub(super) type Limbs = [__m512i; 3];

/// A factor, with what its upper limbs give beyond 2^130.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub(super) r: Limbs,
    /// 20 times the upper two limbs.
    s: [__m512i; 2],
}

/// The products of some numbers by some factors, before their carries.
pub(super) struct Sum {
    low: Limbs,
    high: Limbs,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn factor(r: Limbs) -> Factor {
    // A shift and an addition would become the slow multiplication of 64 bits.
    let twenty = |limb| _mm512_madd52lo_epu64(_mm512_setzero_si512(), limb, splat(20));
    Factor { r, s: [twenty(r[1]), twenty(r[2])] }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn add(a: Limbs, b: Limbs) -> Limbs {
    [_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])]
}

/// Adds `number * factor`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn accumulate(mut sum: Sum, number: Limbs, factor: &Factor) -> Sum {
    let Factor { r, s } = factor;
    // In the order in which `carry` finishes the limbs.
    let rows = [[s[0], s[1], r[0]], [r[0], r[1], r[2]], [s[1], r[0], r[1]]];
    for (limb, row) in [number[2], number[0], number[1]].into_iter().zip(rows) {
        for (i, factor) in row.into_iter().enumerate() {
            sum.low[i] = _mm512_madd52lo_epu64(sum.low[i], limb, factor);
            sum.high[i] = _mm512_madd52hi_epu64(sum.high[i], limb, factor);
        }
    }
    sum
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn no_sum() -> Sum {
    let zero = [_mm512_setzero_si512(); 3];
    Sum { low: zero, high: zero }
}

/// Carries, so that the limbs have 44 bits, 44 and a few more, and 42.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn carry(Sum { low, high }: Sum) -> Limbs {
    let (mask_44, mask_42) = (splat(MASK_44), splat(MASK_42));
    // The upper halves count 2^52, which is 2^8 of the next limb.
    let above =
        |low, high| _mm512_add_epi64(_mm512_slli_epi64::<8>(high), _mm512_srli_epi64::<44>(low));
    let one = _mm512_add_epi64(low[1], above(low[0], high[0]));
    let two = _mm512_add_epi64(low[2], above(one, high[1]));
    // What is beyond 2^130 counts five times. The upper half of limb 2 counts 2^140.
    let beyond = _mm512_add_epi64(_mm512_slli_epi64::<10>(high[2]), _mm512_srli_epi64::<42>(two));
    let zero = _mm512_madd52lo_epu64(_mm512_and_si512(low[0], mask_44), beyond, splat(5));
    [
        _mm512_and_si512(zero, mask_44),
        _mm512_add_epi64(_mm512_and_si512(one, mask_44), _mm512_srli_epi64::<44>(zero)),
        _mm512_and_si512(two, mask_42),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn multiply(number: Limbs, by: &Factor) -> Limbs {
    carry(accumulate(no_sum(), number, by))
}

/// Splits blocks of 128 bits into limbs. `beyond` is the bit beyond, where there is a block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn split(low: __m512i, high: __m512i, beyond: __m512i) -> Limbs {
    let mask_44 = splat(MASK_44);
    [
        _mm512_and_si512(low, mask_44),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), mask_44),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), beyond),
    ]
}

/// Reduces modulo 2^130 - 5, and adds s modulo 2^128.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn finish(mut h: Limbs, s: &[Line; 2]) -> [[u8; 16]; 8] {
    let (mask_44, mask_42) = (splat(MASK_44), splat(MASK_42));
    for _ in 0..2 {
        h[1] = _mm512_add_epi64(h[1], _mm512_srli_epi64::<44>(h[0]));
        h[0] = _mm512_and_si512(h[0], mask_44);
        h[2] = _mm512_add_epi64(h[2], _mm512_srli_epi64::<44>(h[1]));
        h[1] = _mm512_and_si512(h[1], mask_44);
        let beyond = _mm512_srli_epi64::<42>(h[2]);
        h[2] = _mm512_and_si512(h[2], mask_42);
        h[0] = _mm512_madd52lo_epu64(h[0], beyond, splat(5));
    }
    h[1] = _mm512_add_epi64(h[1], _mm512_srli_epi64::<44>(h[0]));
    h[0] = _mm512_and_si512(h[0], mask_44);
    // h - (2^130 - 5), which is taken unless it is negative.
    let zero = _mm512_add_epi64(h[0], splat(5));
    let one = _mm512_add_epi64(h[1], _mm512_srli_epi64::<44>(zero));
    let two = _mm512_add_epi64(h[2], _mm512_srli_epi64::<44>(one));
    let two = _mm512_sub_epi64(two, splat(1 << 42));
    let is_less = _mm512_movepi64_mask(two);
    let h = [
        _mm512_mask_mov_epi64(_mm512_and_si512(zero, mask_44), is_less, h[0]),
        _mm512_mask_mov_epi64(_mm512_and_si512(one, mask_44), is_less, h[1]),
        _mm512_mask_mov_epi64(two, is_less, h[2]),
    ];
    let low = _mm512_or_si512(h[0], _mm512_slli_epi64::<44>(h[1]));
    let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h[1]), _mm512_slli_epi64::<24>(h[2]));
    let low_sum = _mm512_add_epi64(low, load_line(&s[0]));
    let carried = _mm512_cmplt_epu64_mask(low_sum, low);
    let high = _mm512_add_epi64(high, load_line(&s[1]));
    let high = _mm512_mask_add_epi64(high, carried, high, splat(1));
    let mut words = [Line([0; 8]); 2];
    store_line(low_sum, &mut words[0]);
    store_line(high, &mut words[1]);
    std::array::from_fn(|i| {
        let (low, high) = (u128::from(words[0].0[i]), u128::from(words[1].0[i]));
        (low | high << 64).to_le_bytes()
    })
}
