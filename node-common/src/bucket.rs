//! Token buckets, as one number each: the time at which the bucket will be full again.

/// How much a bucket lets through.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds from one to the next, in the long run. 0 is no limit.
    pub interval: u64,
    /// Nanoseconds that a full bucket lasts: the interval times the burst.
    pub window: u64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { interval: 0, window: 0 };

    /// So many per second in the long run, and so many at once; at least one each.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let interval = 1_000_000_000 / if per_second == 0 { 1 } else { per_second as u64 };
        let interval = if interval == 0 { 1 } else { interval };
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

    /// Takes one from a bucket that will be full at `full_at`: when it will be full afterwards, or
    /// `None` if it is empty. Both are nanoseconds of a clock that does not go backwards.
    #[must_use]
    #[inline(always)]
    pub const fn take(&self, full_at: u64, now: u64) -> Option<u64> {
        let from = if full_at > now { full_at } else { now };
        let next = from + self.interval;
        if next - now > self.window { None } else { Some(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate::new(20, 5);
        let mut full_at = 0;
        let mut taken = |now| match rate.take(full_at, now) {
            Some(next) => {
                full_at = next;
                true
            }
            None => false,
        };
        let start = 1_000_000_000_000;
        assert_eq!((0..10).filter(|_| taken(start)).count(), 5);
        assert_eq!((0..10).filter(|_| taken(start + 49_999_999)).count(), 0);
        assert_eq!((0..10).filter(|_| taken(start + 50_000_000)).count(), 1);
        assert_eq!((0..10).filter(|_| taken(start + 60_000_000_000)).count(), 5);
    }

    #[test]
    fn no_limit_lets_everything_through() {
        let rate = Rate::UNLIMITED;
        assert!((0..1000).all(|_| rate.take(7, 7).is_some()));
    }
}
