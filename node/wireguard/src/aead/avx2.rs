//! The path for processors with AVX2: eight blocks of ChaCha20 at once, of one message after the other,
//! and Poly1305 without vectors. ring's assembly does both in the same instructions and is faster, so
//! this path is never the default. It is the second opinion where AVX-512 is missing.

mod poly1305;

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set1_epi32,
    _mm256_setr_epi8, _mm256_setr_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use zeroize::zeroize_stack;

use super::job::{BLOCK_LEN, CONSTANTS, Job, Nonce};

/// Blocks of one pass.
const LANES: usize = 8;
/// More than the frames of [`message`] and of what it calls.
const FRAMES: usize = 4096;

/// The key stream of one pass.
type Stream = [[u8; BLOCK_LEN]; LANES];

/// Whether this processor has what the path needs.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
}

/// Seals or opens the messages, and wipes the frames that had secrets.
///
/// # Safety
///
/// [`is_available`] must be true.
pub(super) unsafe fn all<J: Job>(jobs: &mut [J]) {
    // SAFETY: the processor has the instructions, as the caller has seen to.
    jobs.iter_mut().for_each(|job| unsafe { message(job) });
    zeroize_stack::<FRAMES>();
}

/// Seals or opens one message.
#[target_feature(enable = "avx2")]
#[inline(never)]
fn message<J: Job>(job: &mut J) {
    let key = job.key().words();
    let nonce = job.nonce();
    let mut stream = [[0; BLOCK_LEN]; LANES];
    pass(&key, 0, nonce, &mut stream);
    let one_time = stream[0];
    let (source, destination) = job.buffers();
    xor(source, destination, stream[1..].as_flattened());
    let mut at = (LANES - 1) * BLOCK_LEN;
    while at < destination.len() {
        let block = (at / BLOCK_LEN + 1) as u32;
        pass(&key, block, nonce, &mut stream);
        let source = source.get(at..).unwrap_or(&[]);
        xor(source, &mut destination[at..], stream.as_flattened());
        at += LANES * BLOCK_LEN;
    }
    let tag = poly1305::tag(&one_time, job.ciphertext(), job.lengths());
    job.finish(&tag);
}

/// Adds key stream to a text, which ends in zeros if the source is shorter than the destination.
#[target_feature(enable = "avx2")]
#[inline]
fn xor(source: &[u8], destination: &mut [u8], stream: &[u8]) {
    let text = source.len().min(destination.len()).min(stream.len());
    for ((to, from), key) in destination.iter_mut().zip(source).zip(stream) {
        *to = from ^ key;
    }
    for (to, key) in destination.iter_mut().zip(stream).skip(text) {
        *to = *key;
    }
}

macro_rules! rotate {
    ($x:expr, $by:literal) => {
        _mm256_or_si256(_mm256_slli_epi32::<$by>($x), _mm256_srli_epi32::<{ 32 - $by }>($x))
    };
}

/// The key stream of eight blocks from `block`.
#[target_feature(enable = "avx2")]
#[inline]
fn pass(key: &[u32; 8], block: u32, nonce: Nonce, stream: &mut Stream) {
    let splat = |word: u32| _mm256_set1_epi32(word.cast_signed());
    let mut start = [_mm256_setzero_si256(); 16];
    let words = CONSTANTS.into_iter().chain(*key).chain([block]).chain(nonce);
    for (row, word) in start.iter_mut().zip(words) {
        *row = splat(word);
    }
    start[12] = _mm256_add_epi32(start[12], _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    #[rustfmt::skip]
    let by_16 = _mm256_setr_epi8(
        2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13,
        2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13,
    );
    #[rustfmt::skip]
    let by_8 = _mm256_setr_epi8(
        3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14,
        3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14,
    );
    let mut x = start;
    for round in 0..20 {
        for i in 0..4 {
            // Odd rounds go along the diagonals.
            let turn = |row: usize| 4 * row + (i + row * (round % 2)) % 4;
            let [a, b, c, d] = [i, turn(1), turn(2), turn(3)];
            x[a] = _mm256_add_epi32(x[a], x[b]);
            x[d] = _mm256_shuffle_epi8(_mm256_xor_si256(x[d], x[a]), by_16);
            x[c] = _mm256_add_epi32(x[c], x[d]);
            x[b] = _mm256_xor_si256(x[b], x[c]);
            x[b] = rotate!(x[b], 12);
            x[a] = _mm256_add_epi32(x[a], x[b]);
            x[d] = _mm256_shuffle_epi8(_mm256_xor_si256(x[d], x[a]), by_8);
            x[c] = _mm256_add_epi32(x[c], x[d]);
            x[b] = _mm256_xor_si256(x[b], x[c]);
            x[b] = rotate!(x[b], 7);
        }
    }
    for (word, start) in x.iter_mut().zip(start) {
        *word = _mm256_add_epi32(*word, start);
    }
    for half in 0..2 {
        let mut words = [_mm256_setzero_si256(); 8];
        words.copy_from_slice(&x[8 * half..8 * half + 8]);
        for (block, bytes) in transpose(&words).into_iter().zip(&mut *stream) {
            let (halves, _) = bytes.as_chunks_mut::<32>();
            // SAFETY: the reference is to 32 bytes, and the store needs no alignment.
            unsafe { _mm256_storeu_si256(halves[half].as_mut_ptr().cast(), block) }
        }
    }
}

/// Word `column` of row `row` goes to word `row` of row `column`.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose(rows: &[__m256i; 8]) -> [__m256i; 8] {
    let mut quarters = [[_mm256_setzero_si256(); 2]; 4];
    for i in 0..2 {
        let [a, b, c, d] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
        let low = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let high = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
        quarters[0][i] = _mm256_unpacklo_epi64(low.0, low.1);
        quarters[1][i] = _mm256_unpackhi_epi64(low.0, low.1);
        quarters[2][i] = _mm256_unpacklo_epi64(high.0, high.1);
        quarters[3][i] = _mm256_unpackhi_epi64(high.0, high.1);
    }
    let mut columns = [_mm256_setzero_si256(); 8];
    for (i, [a, b]) in quarters.into_iter().enumerate() {
        columns[i] = _mm256_permute2x128_si256::<0x20>(a, b);
        columns[4 + i] = _mm256_permute2x128_si256::<0x31>(a, b);
    }
    columns
}

/// The tag of a message, for tests of Poly1305 alone. `lengths` is its last block.
#[cfg(test)]
pub(super) fn tag(one_time: &[u8; BLOCK_LEN], text: &[u8], lengths: u128) -> [u8; 16] {
    poly1305::tag(one_time, text, [lengths as u64, (lengths >> 64) as u64])
}
