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

/// The mark of the period in which the clock stands, and another that it may come back to.
///
/// A clock may be wrong for a while, either way and by years, as at a boot before the first answer
/// from a time server. When it comes back to a period that is known, so does the count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The one in force.
    pub now: Mark,
    /// The latest of the others.
    pub other: Option<Mark>,
}

/// A period that is further ahead of one that began in its time was an error of the clock.
const MAX_AHEAD: u64 = 62 * 86_400;

/// When a period began, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    /// It.
    pub this: u64,
    /// The one before it.
    pub previous: u64,
}

impl Marks {
    /// The marks when the clock is in this period and the total is `total`. A new count begins with
    /// the period after the marked one, and with one that is later than all that are known. In any
    /// other the count that there is goes on: the clock is or was wrong.
    #[must_use]
    pub fn at(self, began: Began, total: u64) -> Self {
        let Began { this: started, previous } = began;
        let left = self.now;
        if started == left.started {
            return self;
        }
        let is_next = previous == left.started;
        let latest = self.other.map_or(left.started, |other| other.started.max(left.started));
        let now = match self.other {
            Some(known) if known.started == started => known,
            _ if is_next || started > latest => Mark { started, total },
            _ => Mark { started, total: left.total },
        };
        let others = [Some(left).filter(|left| *left != Mark::default()), self.other];
        let too_far = |other: &Mark| is_next && other.started > started.saturating_add(MAX_AHEAD);
        let others = others.into_iter().flatten().filter(|other| other.started != started);
        let other = others.filter(|other| !too_far(other)).max_by_key(|other| other.started);
        Self { now, other }
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

    /// `days` from today.
    fn day(days: i64) -> Began {
        let this = TODAY.saturating_add_signed(days * DAY as i64);
        Began { this, previous: this.saturating_sub(DAY) }
    }

    #[test]
    fn a_new_period_begins_at_nothing() {
        let marks = Marks::default().at(day(0), 5000);
        assert_eq!(marks, Marks { now: Mark { started: TODAY, total: 5000 }, other: None });
        assert_eq!(marks.at(day(0), 6000).used(6000), 1000);
        assert_eq!(marks.at(day(1), 7000).used(7500), 500);
        assert_eq!(marks.at(day(9), 7000).used(7500), 500, "it was off for days");
        assert_eq!(marks.used(10), 0, "a ledger from a backup");
    }

    #[test]
    fn a_clock_that_was_years_ahead_ends_no_period_and_forgets_nothing() {
        let marks = Marks::default().at(day(0), 5000);
        let ahead = marks.at(day(12 * 365), 6000);
        assert_eq!(ahead.used(6100), 100);
        let right = ahead.at(day(0), 6100);
        assert_eq!(right.used(6100), 1100, "the same day goes on");
        let next = right.at(day(1), 7000);
        assert_eq!(next.used(7000), 0, "the next day begins at midnight");
        assert_eq!(next.at(day(4), 8000).used(8000), 0, "and so does each that is later");
        let later = ahead.at(day(3), 6100);
        assert_eq!(later.used(6100), 100, "another day keeps what was used since");
        assert_eq!(later.at(day(4), 7000).used(7000), 0, "and the next one begins");
    }

    #[test]
    fn a_clock_that_goes_back_and_forth_begins_no_day_twice() {
        let mut marks = Marks::default().at(day(0), 5000);
        let (mut latest, mut mark, mut total) = (0, 5000, 5000);
        for days in [-3, 2, -9, -12, 1, -5, 4, 0, -20_000, 3, 4, 0, 6, 5] {
            total += 100;
            marks = marks.at(day(days), total);
            if days > latest {
                (latest, mark) = (days, total);
            }
            assert_eq!(marks.used(total), total - mark, "{days}");
        }
    }

    #[test]
    fn around_midnight_each_day_has_its_own_count() {
        let marks = Marks::default().at(day(0), 5000).at(day(1), 6000);
        let back = marks.at(day(0), 6100);
        assert_eq!(back.used(6100), 1100);
        assert_eq!(back.at(day(1), 6200).used(6200), 200);
    }
}
