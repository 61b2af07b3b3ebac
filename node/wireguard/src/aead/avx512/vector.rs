//! Loads, stores and transpositions that both halves of the cipher share. All pointers of the path
//! are in this file: the rest is safe code.

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi64, _mm512_load_si512, _mm512_loadu_si512,
    _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_shuffle_i64x2, _mm512_store_si512, _mm512_storeu_si512, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};

/// 64 bytes, or eight words of 64 bits, that a vector is stored to.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u64; 8]);

/// All bytes from the first one to `len`, at most 64.
#[inline]
fn first_bytes(len: usize) -> u64 {
    u64::MAX.checked_shr(64 - len.min(64) as u32).unwrap_or(0)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn store(vector: __m512i, bytes: &mut [u8; 64]) {
    // SAFETY: the reference is to 64 bytes, and the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

/// The first 64 bytes, with zeros in place of those that are not there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn load_first(bytes: &[u8]) -> __m512i {
    // SAFETY: the mask leaves out what is beyond the slice. What is left out is not read, nor does it
    // fault.
    unsafe { _mm512_maskz_loadu_epi8(first_bytes(bytes.len()), bytes.as_ptr().cast()) }
}

/// Writes the first 64 bytes, as many as there are.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn store_first(vector: __m512i, bytes: &mut [u8]) {
    let mask = first_bytes(bytes.len());
    // SAFETY: the mask leaves out what is beyond the slice. What is left out is not written, nor does
    // it fault.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, vector) }
}

/// The 64 bytes from `at`, which may be before the start or beyond the end of the slice, with zeros in
/// place of those that are not there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn load_window(bytes: &[u8], at: isize) -> __m512i {
    let before = 0_isize.saturating_sub(at).clamp(0, 64) as usize;
    let end = (bytes.len() as isize).saturating_sub(at).clamp(0, 64) as usize;
    let mask = first_bytes(end) & !first_bytes(before);
    // SAFETY: the mask leaves out what is before and what is beyond the slice. What is left out is not
    // read, nor does it fault. `wrapping_offset` asks nothing of the address.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().wrapping_offset(at).cast()) }
}

/// Asks for the bytes, which will be read soon.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn load_line(line: &Line) -> __m512i {
    // SAFETY: the reference is to 64 bytes, aligned as the load needs it.
    unsafe { _mm512_load_si512((&raw const *line).cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn store_line(vector: __m512i, line: &mut Line) {
    // SAFETY: the reference is to 64 bytes, aligned as the store needs it.
    unsafe { _mm512_store_si512((&raw mut *line).cast(), vector) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn splat(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

/// Word `column` of row `row` goes to word `row` of row `column`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn transpose(rows: &[__m512i; 8]) -> [__m512i; 8] {
    let mut columns = [_mm512_setzero_si512(); 8];
    for odd in 0..2 {
        let pair = |i: usize| match odd {
            0 => _mm512_unpacklo_epi64(rows[2 * i], rows[2 * i + 1]),
            _ => _mm512_unpackhi_epi64(rows[2 * i], rows[2 * i + 1]),
        };
        let quarters = transpose_quarters([pair(0), pair(1), pair(2), pair(3)]);
        for i in 0..4 {
            columns[2 * i + odd] = quarters[i];
        }
    }
    columns
}

/// The same for four rows of four words of 128 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let ab = [_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b)];
    let cd = [_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xee>(c, d)];
    [
        _mm512_shuffle_i64x2::<0x88>(ab[0], cd[0]),
        _mm512_shuffle_i64x2::<0xdd>(ab[0], cd[0]),
        _mm512_shuffle_i64x2::<0x88>(ab[1], cd[1]),
        _mm512_shuffle_i64x2::<0xdd>(ab[1], cd[1]),
    ]
}

/// Word `i` of the result is the sum of all words of row `i`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn sums(rows: &[__m512i; 8]) -> __m512i {
    let pair = |i: usize| {
        let (even, odd) = (rows[2 * i], rows[2 * i + 1]);
        _mm512_add_epi64(_mm512_unpacklo_epi64(even, odd), _mm512_unpackhi_epi64(even, odd))
    };
    let join = |a: __m512i, b: __m512i| {
        let (even, odd) = (_mm512_shuffle_i64x2::<0x88>(a, b), _mm512_shuffle_i64x2::<0xdd>(a, b));
        _mm512_add_epi64(even, odd)
    };
    join(join(pair(0), pair(1)), join(pair(2), pair(3)))
}
