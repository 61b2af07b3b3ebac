//! Through which node the exits are reached, and when it is another one. Pure: it is told what happened,
//! and says which entry comes next. There is one tunnel to an entry at a time, because it carries the
//! tunnels to the exits.

use crate::change_over::Cause;

/// The nodes that may be the entry.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    is_banned: Vec<bool>,
    current: usize,
}

impl Entries {
    /// Begins with this number of candidates, the first of which is used.
    #[must_use]
    pub fn new(candidates: usize) -> Self {
        Self { is_banned: vec![false; candidates], current: 0 }
    }

    /// The number of the one in use.
    #[must_use]
    pub const fn current(&self) -> usize {
        self.current
    }

    /// There is one candidate more, the last.
    pub fn add(&mut self) {
        self.is_banned.push(false);
    }

    /// The candidates beside the one in use that may be used.
    #[must_use]
    pub fn spares(&self) -> usize {
        self.others().count()
    }

    /// The one in use is to be left for this reason, and another one is in use from now on. `None` if
    /// there is no other: then it stays.
    pub fn leave(&mut self, cause: Cause) -> Option<usize> {
        let next = self.others().next()?;
        if cause.is_final()
            && let Some(banned) = self.is_banned.get_mut(self.current)
        {
            *banned = true;
        }
        self.current = next;
        Some(next)
    }

    /// The others that may be used, those after the present one first.
    fn others(&self) -> impl Iterator<Item = usize> {
        let count = self.is_banned.len();
        let others = (1..count).map(move |step| (self.current + step) % count);
        others.filter(|number| self.is_banned.get(*number) == Some(&false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_has_its_turn_and_a_dead_one_may_come_back() {
        let mut entries = Entries::new(3);
        assert_eq!((entries.current(), entries.spares()), (0, 2));
        let left: Vec<_> = (0..4).map(|_| entries.leave(Cause::NoAnswer)).collect();
        assert_eq!(left, [Some(1), Some(2), Some(0), Some(1)]);
    }

    #[test]
    fn one_that_cheats_or_cannot_be_paid_is_never_used_again() {
        for cause in [Cause::Bill, Cause::Receipt, Cause::OutOfMoney] {
            let mut entries = Entries::new(2);
            assert_eq!(entries.leave(cause), Some(1));
            assert_eq!(entries.spares(), 0);
            assert_eq!(entries.leave(Cause::NoAnswer), None, "there is nothing better");
            assert_eq!(entries.current(), 1);
        }
    }

    #[test]
    fn one_that_comes_later_is_a_spare() {
        let mut entries = Entries::new(1);
        assert_eq!(entries.leave(Cause::Bill), None);
        entries.add();
        assert_eq!(entries.leave(Cause::NoAnswer), Some(1));
        assert_eq!(Entries::new(0).leave(Cause::NoAnswer), None);
    }
}
