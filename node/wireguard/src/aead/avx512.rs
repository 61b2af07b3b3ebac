//! The path for processors with AVX-512 and its multiplication of 52 bits.
//!
//! The lanes of a pass of ChaCha20 are pairs of message and block: two messages of 1420 bytes fill
//! three passes of sixteen. Block 0 of a message is the key of its tag. What is encrypted or about to
//! be decrypted is hashed for eight messages at once, while it is still in the nearest cache.

mod chacha20;
mod poly1305;
mod vector;

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_mask_mov_epi32, _mm512_mask_set1_epi32, _mm512_set1_epi32,
    _mm512_setr_epi32, _mm512_setzero_si512, _mm512_xor_si512,
};

use subtle::ConstantTimeEq as _;
use zeroize::zeroize_stack;

use self::{
    chacha20::{BLOCK_LEN, LANES, Rows, Stream},
    poly1305::{Keys, MESSAGES},
};
use super::{Key, Open, Seal, TAG_LEN};

/// Whether this processor has what the path needs.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512vbmi2")
}

/// Messages of one call of [`group`].
const GROUP: usize = 4 * MESSAGES;
/// More than the frames of [`group`] and of what it calls, by the assembly.
const FRAMES: usize = 8192;

/// Seals the messages.
///
/// # Safety
///
/// [`is_available`] must be true.
pub(super) unsafe fn seal_batch(jobs: &mut [Seal<'_>]) {
    // SAFETY: the processor has the instructions, as the caller has seen to.
    jobs.chunks_mut(GROUP).for_each(|jobs| unsafe { group(jobs) });
    zeroize_stack::<FRAMES>();
}

/// Opens the messages.
///
/// # Safety
///
/// [`is_available`] must be true.
pub(super) unsafe fn open_batch(jobs: &mut [Open<'_>]) {
    // SAFETY: the processor has the instructions, as the caller has seen to.
    jobs.chunks_mut(GROUP).for_each(|jobs| unsafe { group(jobs) });
    zeroize_stack::<FRAMES>();
}

/// What sealing and opening differ in.
trait Job {
    fn key(&self) -> &Key;
    fn counter(&self) -> u64;
    fn text_len(&self) -> usize;
    fn source(&self) -> &[u8];
    /// What is read, which may be shorter than what is written.
    fn buffers(&mut self) -> (&[u8], &mut [u8]);
    fn ciphertext(&self) -> &[u8];
    fn finish(&mut self, tag: &[u8; TAG_LEN]);
}

impl Job for Seal<'_> {
    fn key(&self) -> &Key {
        self.key
    }

    fn counter(&self) -> u64 {
        self.counter
    }

    fn text_len(&self) -> usize {
        self.destination.len() - TAG_LEN
    }

    fn source(&self) -> &[u8] {
        self.source
    }

    fn buffers(&mut self) -> (&[u8], &mut [u8]) {
        let len = self.text_len();
        (self.source, &mut self.destination[..len])
    }

    fn ciphertext(&self) -> &[u8] {
        &self.destination[..self.text_len()]
    }

    fn finish(&mut self, tag: &[u8; TAG_LEN]) {
        let len = self.text_len();
        self.destination[len..].copy_from_slice(tag);
    }
}

impl Job for Open<'_> {
    fn key(&self) -> &Key {
        self.key
    }

    fn counter(&self) -> u64 {
        self.counter
    }

    fn text_len(&self) -> usize {
        self.destination.len()
    }

    fn source(&self) -> &[u8] {
        self.ciphertext
    }

    fn buffers(&mut self) -> (&[u8], &mut [u8]) {
        (self.ciphertext, self.destination)
    }

    fn ciphertext(&self) -> &[u8] {
        self.ciphertext
    }

    fn finish(&mut self, tag: &[u8; TAG_LEN]) {
        let is_authentic = u128::from_le_bytes(*tag).ct_eq(&u128::from_le_bytes(*self.tag));
        self.finish(is_authentic.into());
    }
}

/// Neighbouring lanes of one message.
#[derive(Clone, Copy, Default)]
struct Segment {
    message: usize,
    /// The first one's block.
    block: usize,
    lane: usize,
    count: usize,
}

/// Seals or opens up to [`GROUP`] messages. Its frame, with all that is secret, is wiped afterwards.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline(never)]
fn group<J: Job>(jobs: &mut [J]) {
    let mut keys = [Keys::ZERO; GROUP / MESSAGES];
    let mut stream = Stream([[0; BLOCK_LEN]; LANES]);
    let mut lanes = Lanes::new();
    let mut hashed = 0;
    while lanes.message < jobs.len() {
        let count = lanes.fill(jobs);
        chacha20::pass(&lanes.rows, &mut stream);
        for segment in &lanes.segments[..count] {
            let blocks = &stream.0[segment.lane..][..segment.count];
            let (message, mut block) = (segment.message, segment.block);
            let blocks = match blocks.split_first() {
                Some((first, rest)) if block == 0 => {
                    keys[message / MESSAGES].set(message % MESSAGES, first);
                    block = 1;
                    rest
                }
                _ => blocks,
            };
            xor(&mut jobs[message], (block - 1) * BLOCK_LEN, blocks);
        }
        while lanes.message - hashed >= MESSAGES {
            hash(&keys[hashed / MESSAGES], &mut jobs[hashed..hashed + MESSAGES]);
            hashed += MESSAGES;
        }
    }
    if hashed < jobs.len() {
        hash(&keys[hashed / MESSAGES], &mut jobs[hashed..]);
    }
}

/// Which block of which message comes next, and the rows of the pass.
struct Lanes {
    message: usize,
    block: usize,
    rows: Rows,
    segments: [Segment; LANES],
}

impl Lanes {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
    #[inline]
    fn new() -> Self {
        let zero = _mm512_setzero_si512();
        let rows = Rows { key: [zero; 8], block: zero, nonce: [zero; 3] };
        Self { message: 0, block: 0, rows, segments: [Segment::default(); LANES] }
    }

    /// Takes the next sixteen blocks, or what there is, and says how many segments they are.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
    #[inline]
    fn fill<J: Job>(&mut self, jobs: &[J]) -> usize {
        let iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let (mut lane, mut segments) = (0, 0);
        let mut key: *const Key = std::ptr::null();
        while lane < LANES && self.message < jobs.len() {
            let job = &jobs[self.message];
            let blocks = 1 + job.text_len().div_ceil(BLOCK_LEN);
            let count = (blocks - self.block).min(LANES - lane);
            let mask = (((1_u32 << count) - 1) << lane) as u16;
            let offset = _mm512_set1_epi32(self.block as i32 - lane as i32);
            let block = _mm512_add_epi32(iota, offset);
            self.rows.block = _mm512_mask_mov_epi32(self.rows.block, mask, block);
            let set =
                |row: __m512i, word: u32| _mm512_mask_set1_epi32(row, mask, word.cast_signed());
            let counter = job.counter();
            self.rows.nonce[1] = set(self.rows.nonce[1], counter as u32);
            self.rows.nonce[2] = set(self.rows.nonce[2], (counter >> 32) as u32);
            if !std::ptr::eq(key, job.key()) {
                key = job.key();
                // All lanes from here on: most messages have the key of the one before.
                let mask = u16::MAX << lane;
                let (words, _) = job.key().0.as_chunks::<4>();
                for (row, word) in self.rows.key.iter_mut().zip(words) {
                    let word = u32::from_le_bytes(*word).cast_signed();
                    *row = _mm512_mask_set1_epi32(*row, mask, word);
                }
            }
            // It arrives while the pass computes.
            let start = self.block.saturating_sub(1) * BLOCK_LEN;
            let end = (self.block + count).saturating_sub(1) * BLOCK_LEN;
            let source = job.source();
            let end = end.min(source.len());
            vector::prefetch(source.get(start..end).unwrap_or(&[]));
            self.segments[segments] =
                Segment { message: self.message, block: self.block, lane, count };
            segments += 1;
            lane += count;
            self.block += count;
            if self.block == blocks {
                (self.message, self.block) = (self.message + 1, 0);
            }
        }
        segments
    }
}

/// Adds blocks of key stream to the text from `at`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn xor<J: Job>(job: &mut J, at: usize, blocks: &[[u8; BLOCK_LEN]]) {
    let (source, destination) = job.buffers();
    let source = source.get(at..).unwrap_or(&[]);
    let destination = destination.get_mut(at..).unwrap_or(&mut []);
    let (whole_from, from) = source.as_chunks::<BLOCK_LEN>();
    let (whole_to, to) = destination.as_chunks_mut::<BLOCK_LEN>();
    let whole = whole_from.len().min(blocks.len());
    for ((from, to), block) in whole_from.iter().zip(&mut *whole_to).zip(blocks) {
        vector::store(_mm512_xor_si512(vector::load(from), vector::load(block)), to);
    }
    // The end of the source, and the padding.
    for (i, block) in blocks.iter().enumerate().skip(whole) {
        let from = if i == whole_from.len() { from } else { &[] };
        let text = _mm512_xor_si512(vector::load_first(from), vector::load(block));
        match whole_to.get_mut(i) {
            Some(to) => vector::store(text, to),
            None => vector::store_first(text, to),
        }
    }
}

/// Finishes up to eight messages.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn hash<J: Job>(keys: &Keys, jobs: &mut [J]) {
    let mut texts: [&[u8]; MESSAGES] = [&[]; MESSAGES];
    for (text, job) in texts.iter_mut().zip(&*jobs) {
        *text = job.ciphertext();
    }
    let tags = poly1305::tags(keys, &texts, jobs.len());
    for (job, tag) in jobs.iter_mut().zip(&tags) {
        job.finish(tag);
    }
}
