//! Arithmetic on the counters of a session.

use weir_common::{
    Account,
    account::{Counters, SessionState, Total},
};

use std::sync::atomic::Ordering::Relaxed;

/// The higher of each pair.
pub fn highest(one: &Counters, other: &Counters) -> Counters {
    each(one, other, |_, one, other| one.max(other))
}

/// The sum of each pair, saturating; of times, the later one.
pub fn sum(one: &Counters, other: &Counters) -> Counters {
    each(one, other, |total, one, other| match total {
        Total::Sum => one.saturating_add(other),
        Total::Latest => one.max(other),
    })
}

fn each(one: &Counters, other: &Counters, join: impl Fn(Total, u64, u64) -> u64) -> Counters {
    let pairs = one.to_array().into_iter().zip(other.to_array());
    let mut joined = [0; Counters::COUNT];
    for ((to, total), (one, other)) in joined.iter_mut().zip(Counters::TOTALS).zip(pairs) {
        *to = join(total, one, other);
    }
    Counters::from_array(joined)
}

/// Raises the counters of an account to at least `base`, and leaves everything else of it alone:
/// it knows where the consumer was.
pub fn raise(account: &Account, base: &Counters) {
    for (cell, base) in account.counter_cells().into_iter().zip(base.to_array()) {
        cell.fetch_max(base, Relaxed);
    }
}

/// Whether the account belongs to session `id`.
pub fn names(account: &Account, id: crate::SessionId) -> bool {
    account.control.session.load(Relaxed) == id.get()
}

/// Whether nothing is left in the account of any session.
pub fn is_vacant(account: &Account) -> bool {
    account.control.session.load(Relaxed) == 0 && account.state() == SessionState::Vacant
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each counter has a place of its own, and goes the whole way around.
    #[test]
    fn every_counter_is_copied_assigned_raised_and_added() {
        let ones = Counters::from_array(std::array::from_fn(|i| i as u64 + 1));
        let doubled = Counters::from_array(ones.to_array().map(|value| 2 * value));
        let account = Account::default();
        account.assign(7, &ones);
        assert_eq!(account.counters(), ones);
        raise(&account, &doubled);
        assert_eq!(account.counters(), doubled);
        raise(&account, &ones);
        assert_eq!(account.counters(), doubled);
        let copy = Account::default();
        copy.copy_from(&account);
        assert_eq!(copy.counters(), doubled);
        account.vacate();
        assert_eq!(account.counters(), Counters::default());
        assert_eq!(highest(&ones, &doubled), doubled);
        for ((one, sum), total) in
            ones.to_array().into_iter().zip(sum(&ones, &ones).to_array()).zip(Counters::TOTALS)
        {
            assert_eq!(sum, if total == Total::Sum { 2 * one } else { one });
        }
    }

    #[test]
    fn sums_saturate_and_keep_the_later_handshake() {
        let later = Counters { last_handshake: 7, newest_initiation: 9, ..Counters::default() };
        let one = Counters { bytes_up: u64::MAX, ..later };
        let earlier = Counters { last_handshake: 5, newest_initiation: 8, ..Counters::default() };
        let other = Counters { bytes_up: 1, ..earlier };
        assert_eq!(sum(&one, &other), one);
    }

    #[test]
    fn raising_an_account_keeps_higher_counters_and_the_last_endpoint() {
        let account = Account::default();
        account.metered.bytes_up.store(10, Relaxed);
        account.worker.port.store(4, Relaxed);
        raise(&account, &Counters::from_array([5; Counters::COUNT]));
        let raised = Counters { bytes_up: 10, ..Counters::from_array([5; Counters::COUNT]) };
        assert_eq!(account.counters(), raised);
        assert_eq!(account.worker.port.load(Relaxed), 4);
    }
}
