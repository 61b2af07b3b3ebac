//! Poly1305 (RFC 8439, section 2.5) of up to eight messages at once, by multiplication of 52 bits.
//!
//! A number modulo 2^130 - 5 is in three limbs of 44, 44 and 42 bits. There are two ways through the
//! messages. [`by_message`] has one message in each lane and goes through their blocks in step, which
//! costs nothing before or after. [`by_block`] goes through one message after the other, with eight of
//! its blocks in the lanes, which needs the powers of r, computed for all messages at once.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmple_epu64_mask, _mm512_cmplt_epu64_mask,
    _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_add_epi64, _mm512_mask_mov_epi64,
    _mm512_maskz_mov_epi64, _mm512_movepi64_mask, _mm512_or_si512, _mm512_setzero_si512,
    _mm512_shrdi_epi64, _mm512_slli_epi64, _mm512_srli_epi64, _mm512_sub_epi64,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

use super::vector::{self, Line, load_line, load_window, splat, store_line, sums, transpose};

/// Messages of one call.
pub(super) const MESSAGES: usize = 8;
/// Bytes of a block.
const BLOCK_LEN: usize = 16;
const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;
/// The bit beyond a block of 16 bytes, in its highest limb.
const BEYOND: u64 = 1 << 40;
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

/// A number in each lane. The limbs may have a few bits more than their share.
type Limbs = [__m512i; 3];

/// A factor, with what its upper limbs give beyond 2^130.
#[derive(Clone, Copy)]
struct Factor {
    r: Limbs,
    /// 20 times the upper two limbs.
    s: [__m512i; 2],
}

/// The products of some numbers by some factors, before their carries.
struct Sum {
    low: Limbs,
    high: Limbs,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn factor(r: Limbs) -> Factor {
    // A shift and an addition would become the slow multiplication of 64 bits.
    let twenty = |limb| _mm512_madd52lo_epu64(_mm512_setzero_si512(), limb, splat(20));
    Factor { r, s: [twenty(r[1]), twenty(r[2])] }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn add(a: Limbs, b: Limbs) -> Limbs {
    [_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])]
}

/// Adds `number * factor`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn accumulate(mut sum: Sum, number: Limbs, factor: &Factor) -> Sum {
    let Factor { r, s } = factor;
    let rows = [[r[0], r[1], r[2]], [s[1], r[0], r[1]], [s[0], s[1], r[0]]];
    for (limb, row) in number.into_iter().zip(rows) {
        for (i, factor) in row.into_iter().enumerate() {
            sum.low[i] = _mm512_madd52lo_epu64(sum.low[i], limb, factor);
            sum.high[i] = _mm512_madd52hi_epu64(sum.high[i], limb, factor);
        }
    }
    sum
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn no_sum() -> Sum {
    let zero = [_mm512_setzero_si512(); 3];
    Sum { low: zero, high: zero }
}

/// Carries, so that the limbs have 44 bits, 44 and a few more, and 42.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn carry(Sum { low, high }: Sum) -> Limbs {
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
fn multiply(number: Limbs, by: &Factor) -> Limbs {
    carry(accumulate(no_sum(), number, by))
}

/// Splits blocks of 128 bits into limbs. `beyond` is the bit beyond, where there is a block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn split(low: __m512i, high: __m512i, beyond: __m512i) -> Limbs {
    let mask_44 = splat(MASK_44);
    [
        _mm512_and_si512(low, mask_44),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), mask_44),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), beyond),
    ]
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

/// Reduces modulo 2^130 - 5, and adds s modulo 2^128.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn finish(mut h: Limbs, s: &[Line; 2]) -> [[u8; 16]; MESSAGES] {
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
