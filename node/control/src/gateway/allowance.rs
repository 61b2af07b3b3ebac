//! Limits how often each consumer, or each source, may make a request.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use weir_common::gcra::{Gcra, Rate};
use weir_ledger::SessionId;

/// The number of consumers at which those with a full allowance are removed.
const SWEEP_THRESHOLD: usize = 1024;

/// A burst and a rate of requests, for each consumer.
#[derive(Debug)]
pub(crate) struct Allowance<K = SessionId> {
    rate: Rate,
    /// The time 0 of the buckets.
    started: Instant,
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    of: HashMap<K, Gcra>,
    /// The number of consumers after the last sweep. The next sweep waits until it has doubled.
    kept: usize,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { of: HashMap::new(), kept: 0 }
    }
}

impl<K: Eq + Hash> Allowance<K> {
    /// An allowance of `per_second`, of which `burst` may be used at once. Neither may be 0.
    #[must_use]
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self::of(Rate::new(per_second, burst))
    }

    /// An allowance of one per interval, with a burst of `burst`.
    #[must_use]
    pub(crate) fn every(each: Duration, burst: u32) -> Self {
        Self::of(Rate::every(each, burst))
    }

    fn of(rate: Rate) -> Self {
        Self { rate, started: Instant::now(), buckets: Mutex::default() }
    }

    /// Returns one to a consumer's allowance.
    pub(crate) fn give_back(&self, consumer: &K) {
        if let Some(bucket) = self.buckets().of.get_mut(consumer) {
            bucket.give_back(self.rate);
        }
    }

    /// Takes one from a consumer's allowance. Returns false if it is empty.
    pub(crate) fn take(&self, consumer: K) -> bool {
        self.take_at(consumer, self.started.elapsed())
    }

    fn take_at(&self, consumer: K, now: Duration) -> bool {
        let now = now.as_nanos() as u64;
        let mut buckets = self.buckets();
        if buckets.of.len() >= SWEEP_THRESHOLD.max(2 * buckets.kept) {
            buckets.of.retain(|_, bucket| bucket.backlog(now) > 0);
            buckets.kept = buckets.of.len();
        }
        buckets.of.entry(consumer).or_default().take(self.rate, now)
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets<K>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_rate_for_each_consumer() {
        let allowance = Allowance::new(10, 3);
        let (one, two) = (SessionId::new(1).expect("one"), SessionId::new(2).expect("two"));
        let granted = |who, after: u64, tries: usize| {
            let now = Duration::from_millis(after);
            (0..tries).filter(|_| allowance.take_at(who, now)).count()
        };
        assert_eq!(granted(one, 0, 9), 3);
        assert_eq!(granted(two, 0, 9), 3, "another consumer's is its own");
        assert_eq!(granted(one, 99, 1), 0);
        assert_eq!(granted(one, 100, 9), 1);
        assert_eq!(granted(one, 10_000, 9), 3, "it does not grow beyond the burst");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_makes_no_more_than_the_burst() {
        let allowance = Allowance::every(Duration::from_secs(60), 2);
        let (one, start) = (SessionId::new(1).expect("one"), Duration::ZERO);
        for _ in 0..100 {
            assert!(allowance.take_at(one, start));
            allowance.give_back(&one);
        }
        let granted = (0..9).filter(|_| allowance.take_at(one, start)).count();
        assert_eq!(granted, 2);
        allowance.give_back(&one);
        assert!(allowance.take_at(one, start) && !allowance.take_at(one, start));
    }

    #[test]
    fn consumers_that_are_gone_are_forgotten() {
        let allowance = Allowance::new(10, 1);
        for number in 1..10_000 {
            let id = SessionId::new(number).expect("a number");
            assert!(allowance.take_at(id, Duration::from_secs(number)));
        }
        let kept = allowance.buckets().of.len();
        assert!(kept <= SWEEP_THRESHOLD, "{kept}");
    }
}
