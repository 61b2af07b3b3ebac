//! Exact limits on new flows and destinations, for sessions whose flows are in the flow table.
//!
//! The flow table knows what is a new flow. Which destinations are new is remembered here, as keyed
//! hashes for ten seconds, so that no destination can be read from memory.

use weir_accounts::FlowLimits;
use weir_common::DropReason;

use super::{
    flow_key::FlowKey,
    flows::{Buckets, DESTINATION_WINDOW},
};

/// The unit of time: 2^24 ns, 17 ms. In 16 bits it wraps after 18 minutes.
const TICK_BITS: u32 = 24;
/// How many ticks a destination is known for.
const WINDOW_TICKS: u16 = (DESTINATION_WINDOW >> TICK_BITS) as u16 + 1;
/// The places of a new generation.
const MIN_PLACES: usize = 64;

/// A destination: 48 bits of its hash above the tick at which it was admitted. Zero is free.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    fn new(hash: u64, tick: u16) -> Self {
        // Never zero.
        Self((hash << 16 | u64::from(tick)).max(1))
    }

    /// The high bits of the hash, which are not in the entry, choose the place.
    fn is(self, hash: u64) -> bool {
        self != Self::default() && self.0 >> 16 == hash & (u64::MAX >> 16)
    }

    fn tick(self) -> u16 {
        self.0 as u16
    }
}

/// What was admitted in one window: open addressing, nothing is removed.
#[derive(Default)]
struct Generation {
    /// Each with the high bits of its hash, for when the table grows.
    entries: Vec<(Entry, u16)>,
    count: usize,
}

impl Generation {
    fn find(&self, hash: u64) -> Option<Entry> {
        let start = (hash >> 48) as usize;
        for step in 0..self.entries.len() {
            let (entry, _) = self.entries.get((start + step) & (self.entries.len() - 1))?;
            if entry.is(hash) {
                return Some(*entry);
            }
            if *entry == Entry::default() {
                break;
            }
        }
        None
    }

    fn insert(&mut self, entry: Entry, high: u16) {
        if (self.count + 1) * 4 > self.entries.len() * 3 {
            let places = (self.entries.len() * 2).max(MIN_PLACES);
            let old = std::mem::replace(&mut self.entries, vec![Default::default(); places]);
            self.count = 0;
            for (entry, high) in old.into_iter().filter(|(entry, _)| *entry != Entry::default()) {
                self.insert(entry, high);
            }
        }
        let mask = self.entries.len() - 1;
        let mut place = usize::from(high) & mask;
        while self.entries.get(place).is_some_and(|(there, _)| *there != Entry::default()) {
            place = (place + 1) & mask;
        }
        if let Some(free) = self.entries.get_mut(place) {
            *free = (entry, high);
            self.count += 1;
        }
    }

    fn clear(&mut self) {
        self.entries.fill(Default::default());
        self.count = 0;
    }
}

/// The destinations of the last ten seconds, in two generations. In each, at most twice the limit of
/// destinations gets in: what a full bucket lets through, and what flows into it.
#[derive(Default)]
struct DestinationSet {
    current: Generation,
    former: Generation,
    /// When the current generation began, in nanoseconds.
    began: u64,
}

impl DestinationSet {
    /// Whether a destination was admitted within the window.
    fn knows(&self, hash: u64, now: u64) -> bool {
        let tick = (now >> TICK_BITS) as u16;
        let is_live = |entry: Entry| tick.wrapping_sub(entry.tick()) <= WINDOW_TICKS;
        [&self.current, &self.former].iter().any(|it| it.find(hash).is_some_and(is_live))
    }

    fn note(&mut self, hash: u64, now: u64) {
        let age = now.saturating_sub(self.began);
        if age > DESTINATION_WINDOW {
            std::mem::swap(&mut self.current, &mut self.former);
            self.current.clear();
            if age > 2 * DESTINATION_WINDOW {
                self.former.clear();
            }
            self.began = now;
        }
        self.current.insert(Entry::new(hash, (now >> TICK_BITS) as u16), (hash >> 48) as u16);
    }
}

/// The limits of one session.
#[derive(Default)]
pub(crate) struct ExactLimiter {
    destinations: DestinationSet,
    buckets: Buckets,
}

impl ExactLimiter {
    /// Lets a new flow pass, at `now` nanoseconds of a clock that does not go backwards.
    ///
    /// # Errors
    ///
    /// Says which limit it is beyond. Then nothing is noted.
    pub(crate) fn admit(
        &mut self,
        limits: FlowLimits,
        flow: &FlowKey,
        now: u64,
    ) -> Result<(), DropReason> {
        let is_new = limits.destinations != 0 && !self.destinations.knows(flow.destination, now);
        self.buckets.take(limits, is_new, now)?;
        if is_new {
            self.destinations.note(flow.destination, now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: FlowLimits = FlowLimits { new_flows: 0, destinations: 100 };
    const SECOND: u64 = 1_000_000_000;

    fn key(destination: u64) -> FlowKey {
        // splitmix64
        let mut z = destination.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        FlowKey { hash: z, destination: z ^ z >> 31 }
    }

    #[test]
    fn a_scan_passes_to_exactly_as_many_destinations_as_allowed() {
        let mut limiter = ExactLimiter::default();
        let start = 7_000_000 * SECOND;
        let passed = (0..300_000)
            .filter(|number| limiter.admit(LIMITS, &key(*number), start + number * 100_000).is_ok())
            .count();
        // A full bucket, and 10 a second until just before 30 seconds are over.
        assert_eq!(passed, 100 + 299);
    }

    #[test]
    fn known_destinations_are_free_and_new_flows_are_counted_each() {
        let limits = FlowLimits { new_flows: 10, destinations: 1 };
        let mut limiter = ExactLimiter::default();
        let passed = (0..1000).filter(|_| limiter.admit(limits, &key(1), SECOND).is_ok()).count();
        assert_eq!(passed, 50, "five seconds' worth");
        assert_eq!(limiter.admit(limits, &key(2), SECOND), Err(DropReason::Destinations));
    }

    proptest! {
        #[test]
        fn it_knows_what_a_map_knows(
            steps in prop::collection::vec((0u64..300, 0u64..400_000_000), 1..1500),
        ) {
            let (mut set, mut model) = (DestinationSet::default(), HashMap::new());
            let mut now = 3 * SECOND;
            for (destination, pause) in steps {
                now += pause;
                let hash = key(destination).destination;
                let since = model.get(&destination).map(|admitted: &u64| now - admitted);
                if set.knows(hash, now) {
                    // Two ticks more at most.
                    let most = DESTINATION_WINDOW + (2 << TICK_BITS);
                    prop_assert!(since.is_some_and(|since| since < most));
                } else {
                    prop_assert!(since.is_none_or(|since| since >= DESTINATION_WINDOW));
                    set.note(hash, now);
                    model.insert(destination, now);
                }
            }
        }
    }
}
