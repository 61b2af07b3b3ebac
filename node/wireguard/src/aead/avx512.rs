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

use zeroize::zeroize_stack;

#[cfg(test)]
pub(super) use self::poly1305::Way;
use self::{
    chacha20::{LANES, Rows, Stream},
    poly1305::{Keys, MESSAGES},
    vector::Line,
};
#[cfg(test)]
use super::TAG_LEN;
use super::{
    Key, Open, Seal, by_ring,
    job::{BLOCK_LEN, Job},
};

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
    for jobs in jobs.chunks_mut(GROUP) {
        if is_faster(jobs) {
            // SAFETY: the processor has the instructions, as the caller has seen to.
            unsafe { all(jobs) };
        } else {
            by_ring::seal_batch(jobs);
        }
    }
}

/// Opens the messages.
///
/// # Safety
///
/// [`is_available`] must be true.
pub(super) unsafe fn open_batch(jobs: &mut [Open<'_>]) {
    for jobs in jobs.chunks_mut(GROUP) {
        if is_faster(jobs) {
            // SAFETY: the processor has the instructions, as the caller has seen to.
            unsafe { all(jobs) };
        } else {
            by_ring::open_batch(jobs);
        }
    }
}

/// Seals or opens all messages on this path, and wipes the frames that had secrets.
///
/// # Safety
///
/// [`is_available`] must be true.
pub(super) unsafe fn all<J: Job>(jobs: &mut [J]) {
    for jobs in jobs.chunks_mut(GROUP) {
        // SAFETY: the processor has the instructions, as the caller has seen to.
        unsafe { group(jobs) };
    }
    zeroize_stack::<FRAMES>();
}

/// Nanoseconds of this path: of a group, of a pass, and of a message. And ten bytes take one.
///
/// Measured with `cargo bench --bench aead` on an Intel Xeon (family 6, model 167) at 3.5 GHz, as is
/// what ring takes for a message and for two bytes. Only the proportions matter.
const COST: [usize; 3] = [240, 165, 20];
const RING_COST: usize = 140;

/// Whether this path takes at most 0.9 of ring's time for the messages. It does not for one message
/// below 1300 bytes, nor for two below 500 or three below 100.
fn is_faster<J: Job>(jobs: &[J]) -> bool {
    let bytes: usize = jobs.iter().map(Job::text_len).sum();
    let blocks: usize = jobs.iter().map(|job| 1 + job.text_len().div_ceil(BLOCK_LEN)).sum();
    let [group, pass, message] = COST;
    let here = group + blocks.div_ceil(LANES) * pass + jobs.len() * message + bytes / 10;
    10 * here <= 9 * (jobs.len() * RING_COST + bytes / 2)
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
            let [zero, low, high] = job.nonce();
            self.rows.nonce[0] = set(self.rows.nonce[0], zero);
            self.rows.nonce[1] = set(self.rows.nonce[1], low);
            self.rows.nonce[2] = set(self.rows.nonce[2], high);
            if !std::ptr::eq(key, job.key()) {
                key = job.key();
                // All lanes from here on: most messages have the key of the one before.
                let mask = u16::MAX << lane;
                for (row, word) in self.rows.key.iter_mut().zip(job.key().words()) {
                    *row = _mm512_mask_set1_epi32(*row, mask, word.cast_signed());
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
    let mut lengths = [Line([0; MESSAGES]); 2];
    for (i, job) in jobs.iter().enumerate() {
        texts[i] = job.ciphertext();
        for (half, length) in lengths.iter_mut().zip(job.lengths()) {
            half.0[i] = length;
        }
    }
    let tags = poly1305::tags(keys, &texts, &lengths, jobs.len());
    for (job, tag) in jobs.iter_mut().zip(&tags) {
        job.finish(tag);
    }
}

/// The tags of up to eight messages in a given way, for tests of Poly1305 alone. `lengths` is the last
/// block of each.
#[cfg(test)]
pub(super) fn tags(
    way: Way,
    one_time: &[&[u8; BLOCK_LEN]],
    messages: &[&[u8]],
    lengths: u128,
) -> [[u8; TAG_LEN]; MESSAGES] {
    assert!(is_available());
    let (mut keys, mut texts) = (Keys::ZERO, [&[][..]; MESSAGES]);
    for (lane, key) in one_time.iter().enumerate() {
        keys.set(lane, key);
        texts[lane] = messages[lane];
    }
    let lengths = [Line([lengths as u64; MESSAGES]), Line([(lengths >> 64) as u64; MESSAGES])];
    // SAFETY: the processor has the instructions, as the assertion has seen to.
    unsafe { poly1305::tags_in(way, &keys, &texts, &lengths, messages.len()) }
}
