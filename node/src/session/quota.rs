//! How much was used of a quota's period: the total of all sessions less what that was when the
//! period began. The total never falls and survives everything, so only the marks are kept.

/// Where a period's count began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// When the period began, in seconds since 1970.
    pub started: u64,
    /// The total then, in billed bytes.
    pub total: u64,
}

/// The mark of the period in which the clock stands, and the one before that.
///
/// A clock may be wrong for a while, either way and by years, as at a boot before the first answer
/// from a time server. When it comes back to the period that it left, so does the count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The one in force.
    pub now: Mark,
    /// The one that was in force before it.
    pub before: Option<Mark>,
}

impl Marks {
    /// The marks when the clock is in the period that began at `started` and the total is `total`.
    /// A later period begins a new count. An earlier one that is not known goes on with the count
    /// that there is.
    #[must_use]
    pub fn at(self, started: u64, total: u64) -> Self {
        let left = self.now;
        if started == left.started {
            return self;
        }
        let now = match self.before {
            Some(known) if known.started == started => known,
            _ if started > left.started => Mark { started, total },
            _ => Mark { started, total: left.total },
        };
        Self { now, before: (left != Mark::default()).then_some(left) }
    }

    /// What was used since the period began.
    #[must_use]
    pub fn used(self, total: u64) -> u64 {
        total.saturating_sub(self.now.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const TODAY: u64 = 20_000 * DAY;

    #[test]
    fn a_new_period_begins_at_nothing() {
        let marks = Marks::default().at(TODAY, 5000);
        assert_eq!(marks, Marks { now: Mark { started: TODAY, total: 5000 }, before: None });
        assert_eq!(marks.at(TODAY, 6000).used(6000), 1000);
        assert_eq!(marks.at(TODAY + DAY, 7000).used(7500), 500);
        assert_eq!(marks.used(10), 0, "a ledger from a backup");
    }

    #[test]
    fn a_clock_that_was_years_ahead_ends_no_period_and_forgets_nothing() {
        let marks = Marks::default().at(TODAY, 5000);
        let ahead = marks.at(TODAY + 12 * 365 * DAY, 6000);
        assert_eq!(ahead.used(6100), 100);
        let right = ahead.at(TODAY, 6100);
        assert_eq!(right.used(6100), 1100, "the same day goes on");
        assert_eq!(right.at(TODAY + DAY, 7000).used(7000), 0, "the next day begins at midnight");
        let later = ahead.at(TODAY + 3 * DAY, 6100);
        assert_eq!(later.used(6100), 100, "another day keeps what was used since");
        assert_eq!(later.at(TODAY + 4 * DAY, 7000).used(7000), 0, "and the next one begins");
    }

    #[test]
    fn a_clock_that_was_put_back_begins_no_day_twice() {
        let marks = Marks::default().at(TODAY, 5000);
        for back in [DAY, 3 * DAY, TODAY] {
            let behind = marks.at(TODAY - back, 6000);
            assert_eq!(behind.used(6000), 1000, "it goes on with the count that there is");
            assert_eq!(behind.at(TODAY, 6500).used(6500), 1500, "{back}");
        }
    }

    #[test]
    fn around_midnight_each_day_has_its_own_count() {
        let marks = Marks::default().at(TODAY, 5000).at(TODAY + DAY, 6000);
        let back = marks.at(TODAY, 6100);
        assert_eq!(back.used(6100), 1100);
        assert_eq!(back.at(TODAY + DAY, 6200).used(6200), 200);
    }
}
