//! Limits initiations per source: by default 20 per second with a burst of 5, for each IPv4 address
//! and each IPv6 /64. The rate, burst and prefix are those of the kernel (`PACKETS_PER_SECOND` and
//! `PACKETS_BURSTABLE` in drivers/net/wireguard/ratelimiter.c). Section 5.3 of the WireGuard
//! whitepaper describes the cookies that prove a source's address, which makes the limit effective.
//! The memory is bounded: sources whose hashes collide share a bucket ([`Gcra`]).

use std::{collections::hash_map::RandomState, hash::BuildHasher, net::IpAddr};

use weir_common::gcra::{Gcra, Rate};

const BUCKETS: usize = 8192;

/// The buckets of all sources.
pub(crate) struct SourceLimiter {
    rate: Rate,
    buckets: Box<[Gcra]>,
    hasher: RandomState,
}

impl SourceLimiter {
    /// Creates the limiter with all buckets full.
    #[must_use]
    pub(crate) fn new(rate: Rate) -> Self {
        let buckets = vec![Gcra::default(); BUCKETS].into_boxed_slice();
        Self { rate, buckets, hasher: RandomState::new() }
    }

    /// Takes one initiation from `source`'s bucket at `now`, in nanoseconds of a clock that does not
    /// go backwards; `false` if it is empty.
    pub(crate) fn allow(&mut self, source: IpAddr, now: u64) -> bool {
        let prefix = match source {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 | 1 << 63,
        };
        let bucket = self.hasher.hash_one(prefix) as usize % BUCKETS;
        self.buckets.get_mut(bucket).is_some_and(|bucket| bucket.take(self.rate, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::new(20, 5);
    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1000 * SECOND;

    fn source(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let mut limiter = SourceLimiter::new(RATE);
        let one = source("192.0.2.1");
        let mut allowed = |now| (0..10).filter(|_| limiter.allow(one, now)).count();
        assert_eq!(allowed(START), 5);
        assert_eq!(allowed(START + SECOND / 20), 1);
        assert_eq!(allowed(START + 60 * SECOND), 5);
    }

    #[test]
    fn a_64_is_one_source_and_its_neighbour_another() {
        let mut limiter = SourceLimiter::new(RATE);
        let allowed = (0..100u16)
            .filter(|i| limiter.allow(source(&format!("2a00:0:0:1::{i:x}")), START))
            .count();
        assert_eq!(allowed, 5);
        assert!(limiter.allow(source("2a00:0:0:2::1"), START));
    }
}
