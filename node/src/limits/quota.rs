//! How much was used of a period's quota.

/// Where a period's count began. The ledger keeps it: the count itself is the total of all sessions
/// less this, and that total never falls and survives everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// When the period began, in seconds since 1970.
    pub started: u64,
    /// The total then, in billed bytes.
    pub total: u64,
}

impl Mark {
    /// The mark of the period that began at `started`, now that the total is `total`. Only a later
    /// period than the marked one begins a new count: an earlier one (the clock was put back, or
    /// the reset day moved) goes on with what there is.
    #[must_use]
    pub fn at(self, started: u64, total: u64) -> Self {
        if started > self.started { Self { started, total } } else { self }
    }

    /// What was used since.
    #[must_use]
    pub fn used(self, total: u64) -> u64 {
        total.saturating_sub(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_period_begins_at_nothing_and_an_old_one_goes_on() {
        let mark = Mark::default().at(100, 5000);
        assert_eq!(mark, Mark { started: 100, total: 5000 });
        assert_eq!(mark.at(100, 6000).used(6000), 1000);
        assert_eq!(mark.at(50, 6000).used(6000), 1000, "the clock was put back");
        assert_eq!(mark.at(200, 7000).used(7500), 500);
        assert_eq!(mark.used(10), 0, "a ledger from a backup");
    }
}
