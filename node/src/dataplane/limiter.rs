//! Initiations per source: 20 a second with a burst of 5 by default, as the kernel's WireGuard
//! has it, for each IPv4 address and each IPv6 /64. The memory is bounded: sources whose hashes
//! collide share a bucket.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::IpAddr,
    time::{Duration, Instant},
};

const BUCKETS: usize = 8192;

/// How many initiations a source may send.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Per second, in the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// The buckets of all sources.
pub struct SourceLimiter {
    rate: Rate,
    /// When each bucket will be full again.
    full_at: Box<[Instant]>,
    hasher: RandomState,
}

impl SourceLimiter {
    /// All buckets full.
    #[must_use]
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: vec![now; BUCKETS].into_boxed_slice(), hasher: RandomState::new() }
    }

    /// Takes one initiation from `source`'s bucket; `false` if it is empty.
    pub fn allow(&mut self, source: IpAddr, now: Instant) -> bool {
        let prefix = match source {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 | 1 << 63,
        };
        let bucket = self.hasher.hash_one(prefix) as usize % BUCKETS;
        let Some(full_at) = self.full_at.get_mut(bucket) else { return false };
        let cost = Duration::from_secs(1) / self.rate.per_second.max(1);
        let next = (*full_at).max(now) + cost;
        if next - now > cost * self.rate.burst {
            return false;
        }
        *full_at = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 20, burst: 5 };

    fn source(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut limiter = SourceLimiter::new(RATE, start);
        let one = source("192.0.2.1");
        assert_eq!((0..10).filter(|_| limiter.allow(one, start)).count(), 5);
        let later = start + Duration::from_millis(50);
        assert_eq!((0..10).filter(|_| limiter.allow(one, later)).count(), 1);
        let much_later = start + Duration::from_secs(60);
        assert_eq!((0..10).filter(|_| limiter.allow(one, much_later)).count(), 5);
    }

    #[test]
    fn a_64_is_one_source_and_its_neighbour_another() {
        let start = Instant::now();
        let mut limiter = SourceLimiter::new(RATE, start);
        let allowed = (0..100u16)
            .filter(|i| limiter.allow(source(&format!("2a00:0:0:1::{i:x}")), start))
            .count();
        assert_eq!(allowed, 5);
        assert!(limiter.allow(source("2a00:0:0:2::1"), start));
    }
}
