//! Poly1305 (RFC 8439, section 2.5) of up to eight messages at once, by multiplication of 52 bits.
//!
//! There are two ways through the messages. [`by_message`] has one message in each lane and goes through their blocks in step, which
//! costs nothing before or after. [`by_block`] goes through one message after the other, with eight of
//! its blocks in the lanes, which needs the powers of r, computed for all messages at once.

use std::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_cmple_epu64_mask, _mm512_maskz_mov_epi64, _mm512_or_si512,
    _mm512_setzero_si512, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

use super::{
    number::{
        BEYOND, Factor, Limbs, accumulate, add, carry, factor, finish, multiply, no_sum, split,
    },
    vector::{self, Line, load_line, load_window, splat, store_line, sums, transpose},
};

/// Messages of one call.
pub(super) const MESSAGES: usize = 8;
/// Bytes of a block.
const BLOCK_LEN: usize = 16;
/// The block that [`load_blocks`] has in each lane.
const BLOCK_OF_LANE: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The keys of up to eight messages: the halves of r, not yet clamped, and those of s.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub(super) r: [Line; 2],
    pub(super) s: [Line; 2],
}

impl Keys {
    pub(super) const ZERO: Self = Self { r: [Line([0; 8]); 2], s: [Line([0; 8]); 2] };

    /// Takes the key of message `lane` from the start of its block 0 of the key stream.
    pub(super) fn set(&mut self, lane: usize, block: &[u8; 64]) {
        let (words, _) = block.as_chunks::<8>();
        for half in 0..2 {
            self.r[half].0[lane] = u64::from_le_bytes(words[half]);
            self.s[half].0[lane] = u64::from_le_bytes(words[2 + half]);
        }
    }
}

/// A way through the messages.
#[derive(Clone, Copy)]
pub(in crate::aead) enum Way {
    ByMessage,
    ByBlock,
}

/// What is known of a way's cost: of a step [`by_message`], and of a message and of a block
/// [`by_block`]. Measured. Only the proportions matter.
const STEP_COST: usize = 16;
const MESSAGE_COST: usize = 25;
const BLOCK_COST: usize = 1;

impl Way {
    fn best(texts: &[&[u8]]) -> Self {
        let (mut most, mut all) = (0, 0);
        for text in texts {
            let blocks = text.len().div_ceil(BLOCK_LEN);
            most = most.max(blocks);
            all += blocks;
        }
        let by_block = texts.len() * MESSAGE_COST + all * BLOCK_COST;
        if most * STEP_COST <= by_block { Self::ByMessage } else { Self::ByBlock }
    }
}

/// The tags of `count` messages under their keys. Texts beyond these are empty. The last block of each
/// message has the two `lengths` (RFC 8439, section 2.8).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn tags(
    keys: &Keys,
    texts: &[&[u8]; MESSAGES],
    lengths: &[Line; 2],
    count: usize,
) -> [[u8; 16]; MESSAGES] {
    tags_in(Way::best(&texts[..count]), keys, texts, lengths, count)
}

/// The same in a given way.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn tags_in(
    way: Way,
    keys: &Keys,
    texts: &[&[u8]; MESSAGES],
    lengths: &[Line; 2],
    count: usize,
) -> [[u8; 16]; MESSAGES] {
    let clamped = |half: usize, mask| _mm512_and_si512(load_line(&keys.r[half]), splat(mask));
    let (low, high) = (clamped(0, 0x0fff_fffc_0fff_ffff), clamped(1, 0x0fff_fffc_0fff_fffc));
    let r = factor(split(low, high, _mm512_setzero_si512()));
    let h = match way {
        Way::ByMessage => by_message(&r, texts, lengths),
        Way::ByBlock => by_block(&r, texts, lengths, count),
    };
    finish(h, &keys.s)
}

/// One message in each lane. The messages end together, with their lengths.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn by_message(r: &Factor, texts: &[&[u8]; MESSAGES], lengths: &[Line; 2]) -> Limbs {
    let most = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let steps = most.div_ceil(BLOCK_LEN).next_multiple_of(4);
    let mut missing = Line([0; MESSAGES]);
    for (missing, text) in missing.0.iter_mut().zip(texts) {
        *missing = (steps - text.len().div_ceil(BLOCK_LEN)) as u64;
    }
    let lanes = load_line(&missing);
    let mut h = [_mm512_setzero_si512(); 3];
    for step in (0..steps).step_by(4) {
        let mut rows = [_mm512_setzero_si512(); 8];
        for i in 0..8 {
            let block = step as isize - missing.0[i] as isize;
            rows[i] = load_window(texts[i], block * BLOCK_LEN as isize);
        }
        let columns = transpose(&rows);
        for i in 0..4 {
            let is_block = _mm512_cmple_epu64_mask(lanes, splat((step + i) as u64));
            let beyond = _mm512_maskz_mov_epi64(is_block, splat(BEYOND));
            h = multiply(add(h, split(columns[2 * i], columns[2 * i + 1], beyond)), r);
        }
    }
    let lengths = split(load_line(&lengths[0]), load_line(&lengths[1]), splat(BEYOND));
    multiply(add(h, lengths), r)
}

/// Eight blocks of one message in the lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn by_block(r: &Factor, texts: &[&[u8]; MESSAGES], lengths: &[Line; 2], count: usize) -> Limbs {
    let mut powers = [r.r; 8];
    powers[1] = multiply(r.r, r);
    let square = factor(powers[1]);
    powers[2] = multiply(powers[0], &square);
    powers[3] = multiply(powers[1], &square);
    let fourth = factor(powers[3]);
    for i in 0..4 {
        powers[4 + i] = multiply(powers[i], &fourth);
    }
    let sixteenth = multiply(powers[7], &factor(powers[7]));
    // From a power of all messages to the powers of a message: those of the last eight blocks, in the
    // order of the lanes, and the eighth and sixteenth in all lanes.
    let mut last = [[Line([0; 8]); 3]; MESSAGES];
    let mut steps = [[Line([0; 8]); 3]; 2];
    for limb in 0..3 {
        let of_lane = BLOCK_OF_LANE.map(|block| powers[7 - block][limb]);
        for (message, power) in transpose(&of_lane).into_iter().enumerate() {
            store_line(power, &mut last[message][limb]);
        }
        store_line(powers[7][limb], &mut steps[0][limb]);
        store_line(sixteenth[limb], &mut steps[1][limb]);
    }
    let mut products = [[_mm512_setzero_si512(); MESSAGES]; 3];
    for message in 0..count {
        let step = |which: usize| {
            let limb = |limb: usize| splat(steps[which][limb].0[message]);
            factor([limb(0), limb(1), limb(2)])
        };
        let lengths = [lengths[0].0[message], lengths[1].0[message]];
        let h = absorb(texts[message], lengths, &step(0), &step(1));
        let limb = |limb: usize| load_line(&last[message][limb]);
        let product = multiply(h, &factor([limb(0), limb(1), limb(2)]));
        for limb in 0..3 {
            products[limb][message] = product[limb];
        }
    }
    [sums(&products[0]), sums(&products[1]), sums(&products[2])]
}

/// The sums of every eighth block of a message and its length, each to be multiplied by the power of
/// its place among the last eight.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn absorb(text: &[u8], lengths: [u64; 2], eighth: &Factor, sixteenth: &Factor) -> Limbs {
    let blocks = text.len().div_ceil(BLOCK_LEN) + 1;
    let groups = blocks.div_ceil(8);
    // The first group has what is over.
    let missing = groups * 8 - blocks;
    let mut at = -((missing * BLOCK_LEN) as isize);
    let mut is_block = 0;
    for (lane, block) in BLOCK_OF_LANE.into_iter().enumerate() {
        is_block |= u8::from(block >= missing) << lane;
    }
    let mut next = |beyond| {
        let blocks = load_blocks(text, lengths, at, beyond);
        at += 8 * BLOCK_LEN as isize;
        blocks
    };
    let mut h = next(_mm512_maskz_mov_epi64(is_block, splat(BEYOND)));
    if groups.is_multiple_of(2) {
        h = add(multiply(h, eighth), next(splat(BEYOND)));
    }
    for _ in 0..(groups - 1) / 2 {
        // One carry for two groups.
        let sum = accumulate(no_sum(), next(splat(BEYOND)), eighth);
        h = add(carry(accumulate(sum, h, sixteenth)), next(splat(BEYOND)));
    }
    h
}

/// Eight blocks from `at`, with zeros before the text. After it comes the block of the lengths.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn load_blocks(text: &[u8], lengths: [u64; 2], at: isize, beyond: __m512i) -> Limbs {
    let whole = usize::try_from(at).ok().and_then(|at| text.get(at..)?.first_chunk::<128>());
    let (a, b) = if let Some(whole) = whole {
        let (halves, _) = whole.as_chunks::<64>();
        (vector::load(&halves[0]), vector::load(&halves[1]))
    } else {
        let is_last = at + 128 > text.len() as isize;
        let [low, high] = if is_last { lengths } else { [0; 2] };
        let lengths = load_line(&Line([0, 0, 0, 0, 0, 0, low, high]));
        (load_window(text, at), _mm512_or_si512(load_window(text, at + 64), lengths))
    };
    split(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b), beyond)
}
