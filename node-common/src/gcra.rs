//! The generic cell rate algorithm: a token bucket as one number, the theoretical arrival time of
//! the next message.
//!
//! Source: ITU-T Recommendation I.371 and ATM Forum, Traffic Management 4.0 (section 4.4.3), in the
//! form of virtual scheduling. GCRA(T, tau) has an increment T and a tolerance tau. A message at time
//! `t` conforms if `t >= TAT - tau`, and then moves TAT to `max(TAT, t) + T`. Here the tolerance
//! is written as [`Rate::window`], which is `tau + T`: how far ahead of the time TAT may be
//! afterwards. TAT is also when the bucket will be full again.

use core::time::Duration;

/// What a [`Gcra`] lets through.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds from one to the next, in the long run: the increment T. 0 is no limit.
    pub interval: u64,
    /// Nanoseconds that a full bucket lasts: the interval times the burst.
    pub window: u64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { interval: 0, window: 0 };

    /// A sustained rate per second with a burst. Each is at least one.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let interval = 1_000_000_000 / if per_second == 0 { 1 } else { per_second as u64 };
        let interval = if interval == 0 { 1 } else { interval };
        Self { interval, window: interval * if burst == 0 { 1 } else { burst as u64 } }
    }

    /// A sustained rate of one per interval, with a burst of at least one.
    #[must_use]
    pub const fn every(interval: Duration, burst: u32) -> Self {
        let interval = interval.as_nanos() as u64;
        Self { interval, window: interval * if burst == 0 { 1 } else { burst as u64 } }
    }

    /// The same in the long run with half of what may come at once, at least one. A bucket from
    /// which some take by this and others by the whole rate has the other half for those alone.
    #[must_use]
    #[inline(always)]
    pub const fn half(self) -> Self {
        let half = self.window / 2;
        let window = if half < self.interval { self.interval } else { half };
        Self { interval: self.interval, window }
    }
}

/// The state of one bucket. Full at first. Times are nanoseconds of a clock that does not go
/// backwards.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gcra(u64);

impl Gcra {
    /// The bucket with this theoretical arrival time, as shared memory has it.
    #[must_use]
    #[inline(always)]
    pub const fn from_raw(theoretical_arrival: u64) -> Self {
        Self(theoretical_arrival)
    }

    /// The theoretical arrival time.
    #[must_use]
    #[inline(always)]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The bucket after one more message at `now`; `None` if the message does not conform.
    #[must_use]
    #[inline(always)]
    pub const fn next(self, rate: Rate, now: u64) -> Option<Self> {
        let from = if self.0 > now { self.0 } else { now };
        let next = from + rate.interval;
        if next - now > rate.window { None } else { Some(Self(next)) }
    }

    /// Takes one; `false` if the bucket is empty.
    #[must_use]
    #[inline(always)]
    pub const fn take(&mut self, rate: Rate, now: u64) -> bool {
        match self.next(rate, now) {
            Some(next) => {
                *self = next;
                true
            }
            None => false,
        }
    }

    /// Puts back what was taken by this rate.
    pub const fn give_back(&mut self, rate: Rate) {
        self.0 = self.0.saturating_sub(rate.interval);
    }

    /// Nanoseconds until the bucket is full; 0 if it is.
    #[must_use]
    #[inline(always)]
    pub const fn backlog(self, now: u64) -> u64 {
        self.0.saturating_sub(now)
    }

    /// The bucket, with a backlog of at most `window`: after a change of the rate it may be emptier
    /// than it can be.
    #[must_use]
    #[inline(always)]
    pub const fn within(self, window: u64, now: u64) -> Self {
        let latest = now + window;
        if self.0 > latest { Self(latest) } else { self }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_000_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate::new(20, 5);
        let mut bucket = Gcra::default();
        let mut taken =
            |tries: usize, now| (0..tries).filter(|_| bucket.take(rate, START + now)).count();
        assert_eq!(taken(10, 0), 5);
        assert_eq!(taken(10, 49_999_999), 0);
        assert_eq!(taken(10, 50_000_000), 1);
        assert_eq!(taken(10, 60_000_000_000), 5);
    }

    #[test]
    fn no_limit_lets_everything_through() {
        let mut bucket = Gcra::from_raw(7);
        assert!((0..1000).all(|_| bucket.take(Rate::UNLIMITED, 7)));
    }

    #[test]
    fn rates_of_a_second_and_of_any_time_are_the_same() {
        assert_eq!(Rate::every(Duration::from_millis(50), 5), Rate::new(20, 5));
        assert_eq!(Rate::every(Duration::from_secs(60), 0).window, 60_000_000_000, "one at least");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let rate = Rate::new(1, 2);
        let mut bucket = Gcra::default();
        assert!(bucket.take(rate, START) && bucket.take(rate, START) && !bucket.take(rate, START));
        bucket.give_back(rate);
        assert!(bucket.take(rate, START) && !bucket.take(rate, START));
        let mut full = Gcra::default();
        full.give_back(rate);
        assert_eq!(full, Gcra::default(), "a full one gets no fuller");
    }

    #[test]
    fn a_lower_window_counts_at_once() {
        let mut bucket = Gcra::from_raw(START + 1000);
        assert_eq!(bucket.within(100, START).backlog(START), 100);
        bucket = bucket.within(2000, START);
        assert_eq!((bucket.backlog(START), bucket.backlog(START + 5000)), (1000, 0));
    }

    /// A bucket of nanoseconds that leaks them one by one.
    #[derive(Default)]
    struct Slow {
        content: u64,
        now: u64,
    }

    impl Slow {
        fn take(&mut self, rate: Rate, now: u64) -> bool {
            while self.now < now {
                self.now += 1;
                self.content = self.content.saturating_sub(1);
            }
            let fits = self.content + rate.interval <= rate.window;
            if fits {
                self.content += rate.interval;
            }
            fits
        }
    }

    proptest! {
        /// The continuous-state leaky bucket of I.371, which says the same as virtual scheduling;
        /// with messages of one size or of several.
        #[test]
        fn it_judges_as_a_bucket_that_leaks(
            window in 1u64..500,
            arrivals in proptest::collection::vec((0u64..200, 1u64..100), 1..200),
        ) {
            let (mut bucket, mut slow) = (Gcra::default(), Slow { now: START, ..Slow::default() });
            let mut now = START;
            for (gap, interval) in arrivals {
                now += gap;
                let rate = Rate { interval, window };
                prop_assert_eq!(bucket.take(rate, now), slow.take(rate, now));
                prop_assert_eq!(bucket.backlog(now), slow.content);
            }
        }

        /// Within any span there pass no more than the burst and what the rate adds.
        #[test]
        fn no_span_has_more_than_the_burst_and_the_rate(
            interval in 1u64..50,
            burst in 1u64..10,
            gaps in proptest::collection::vec(0u64..60, 1..150),
        ) {
            let rate = Rate { interval, window: interval * burst };
            let (mut bucket, mut now, mut passed) = (Gcra::default(), START, Vec::new());
            for gap in gaps {
                now += gap;
                if bucket.take(rate, now) {
                    passed.push(now);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u64;
                    prop_assert!(count <= burst + (to - from) / interval);
                }
            }
        }
    }
}
