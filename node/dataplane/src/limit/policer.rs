//! Holds each session to its rate, and to its share of the node's.
//!
//! Nothing is queued: a token bucket decides for each packet whether it passes. As the bucket
//! empties, the probability of a drop rises, as in random early detection (RED: Floyd and Jacobson,
//! "Random Early Detection Gateways for Congestion Avoidance", 1993; RFC 7567). A TCP connection
//! then finds the rate without losing a whole burst at once. The bucket is a [`Gcra`], which names
//! its own source.

use weir_common::gcra::{Gcra, Rate};

/// Nanoseconds for which a full bucket lasts at its rate. TCP must recover from a loss within it,
/// even after the shortest retransmission timeout of Linux (`TCP_RTO_MIN`, 200 ms,
/// include/net/tcp.h).
const WINDOW: u64 = 300_000_000;
/// The minimum size of a bucket in bytes. In a smaller one TCP cannot make progress.
const SMALLEST_BUCKET: u64 = 24_000;
/// The odds against a drop just before the bucket is empty.
const STEEPEST: u64 = 12;
/// The maximum rate, in bytes per second, that this arithmetic can represent.
const FASTEST: u64 = 1_000_000_000_000;

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the consumer.
    Up,
    /// To the consumer.
    Down,
}

/// The lower of two rates, of which 0 is no limit.
#[must_use]
#[inline(always)]
pub(crate) const fn lower(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, rate) | (rate, 0) => rate,
        (one, other) => {
            if one < other {
                one
            } else {
                other
            }
        }
    }
}

/// The policer of one session in one direction: a [`Gcra`] in nanoseconds at the session's rate,
/// with early drops (RED).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policer {
    bucket: Gcra,
    /// The state of a small generator of random numbers.
    random: u32,
}

impl Policer {
    /// Whether a packet of `len` bytes passes at `now` (nanoseconds of a clock that does not go
    /// backwards) with this rate in bytes per second, which is not 0.
    #[inline]
    pub(crate) fn passes(&mut self, rate: u64, now: u64, len: u64) -> bool {
        let rate = rate.clamp(1, FASTEST);
        let window = WINDOW.max(SMALLEST_BUCKET * 1_000_000_000 / rate);
        let packet = Rate { interval: len.saturating_mul(1_000_000_000) / rate, window };
        // The rate may have changed, and with it the window.
        self.bucket = self.bucket.within(window, now);
        match self.bucket.next(packet, now) {
            Some(next) if !self.is_unlucky(next.backlog(now), window) => {
                self.bucket = next;
                true
            }
            _ => false,
        }
    }

    /// Whether a packet is dropped although the bucket has room for it: never while it is half
    /// full, then with a chance that grows with the fourth power of what is missing.
    #[inline]
    fn is_unlucky(&mut self, taken: u64, window: u64) -> bool {
        let half = window / 2;
        let Some(beyond) = taken.checked_sub(half) else { return false };
        // In 1/1024 of the half, so that the fourth power stays small.
        let part = beyond * 1024 / half;
        let chance = ((part * part * part * part) >> 8) / STEEPEST;
        u64::from(self.random()) < chance
    }

    /// 32 random bits (xorshift): only chance must be even, nobody gains from guessing it.
    #[inline]
    fn random(&mut self) -> u32 {
        let mut x = if self.random == 0 { 0x9e37_79b9 } else { self.random };
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random = x;
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 77 * SECOND;

    /// What passes of packets of `len` bytes that come each `gap` nanoseconds for `seconds`.
    fn passed(rate: u64, len: u64, gap: u64, seconds: u64) -> u64 {
        let mut policer = Policer::default();
        let times = (START..START + seconds * SECOND).step_by(gap as usize);
        times.filter(|now| policer.passes(rate, *now, len)).count() as u64 * len
    }

    #[test]
    fn a_flood_is_cut_to_the_rate_and_one_bucket() {
        for rate in [100_000, 1_000_000, 125_000_000, 12_500_000_000] {
            let gap = (SECOND * 1400 / rate / 3).max(1);
            let passed = passed(rate, 1400, gap, 4);
            let most = 4 * rate + (rate * WINDOW / SECOND).max(SMALLEST_BUCKET);
            assert!(passed <= most + 1400 && passed >= 4 * rate - rate / 50, "{rate}: {passed}");
        }
    }

    #[test]
    fn what_is_well_below_the_rate_loses_nothing() {
        let rate = 1_000_000;
        let gap = SECOND * 1400 / (rate * 9 / 10);
        let sent = (START..START + 10 * SECOND).step_by(gap as usize).count() as u64;
        assert_eq!(passed(rate, 1400, gap, 10), sent * 1400);
    }

    #[test]
    fn drops_begin_rarely_and_one_at_a_time() {
        // A tenth too much, as from a connection that probes.
        let rate = 6_250_000;
        let gap = SECOND * 1400 / (rate * 11 / 10);
        let mut policer = Policer::default();
        let mut dropped = Vec::new();
        for (index, now) in (START..START + 20 * SECOND).step_by(gap as usize).enumerate() {
            if !policer.passes(rate, now, 1400) {
                dropped.push(index);
            }
        }
        let first = dropped.first().expect("too much comes");
        assert!(*first > 700, "the bucket's first half is free: {first}");
        let neighbours = dropped.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
        assert!(neighbours * 4 < dropped.len(), "{neighbours} of {}", dropped.len());
    }

    #[test]
    fn a_lower_rate_takes_effect_at_once() {
        let mut policer = Policer::default();
        while policer.passes(1000, START, 1400) {}
        assert!(!policer.passes(1_000_000, START, u64::from(u32::MAX)));
        let later =
            (0..SECOND).step_by(1_000_000).filter(|at| policer.passes(1_000_000, START + at, 1400));
        // Not what the slow bucket still owed: that would be a minute.
        assert!(later.count() > 500);
    }

    #[test]
    fn of_two_rates_the_lower_counts_and_none_is_none() {
        assert_eq!(
            [lower(0, 0), lower(0, 5), lower(5, 0), lower(5, 3), lower(3, 5)],
            [0, 5, 5, 3, 3]
        );
    }

    proptest::proptest! {
        /// Against a bucket of bytes that is refilled step by step: never more than it allows.
        #[test]
        fn it_never_passes_more_than_a_plain_bucket(
            rate in 10_000u64..1_000_000_000,
            steps in proptest::collection::vec((0u64..5_000_000, 20u64..1500), 1..400),
        ) {
            let mut policer = Policer::default();
            let depth = (rate * WINDOW / SECOND).max(SMALLEST_BUCKET);
            let (mut now, mut room) = (START, depth as f64);
            for (gap, len) in steps {
                now += gap;
                room = (room + gap as f64 * rate as f64 / 1e9).min(depth as f64);
                let cost = (len * SECOND / rate) as f64 * rate as f64 / 1e9;
                if policer.passes(rate, now, len) {
                    room -= cost;
                    proptest::prop_assert!(room >= -2.0 - rate as f64 / 1e9, "{room}");
                }
            }
        }
    }
}
