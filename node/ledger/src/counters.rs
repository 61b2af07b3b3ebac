//! Arithmetic on the counters of a session.

use weir_common::{
    Account,
    account::{Counters, SessionState},
};

use std::sync::atomic::Ordering::Relaxed;

/// How many counters a session has.
pub const COUNT: usize = 12;

/// Their names in the ledger, in the order of [`to_array`].
#[cfg(test)]
pub const NAMES: [&str; COUNT] = [
    "bytes_up",
    "packets_up",
    "bytes_down",
    "packets_down",
    "handshake_bytes_up",
    "handshake_bytes_down",
    "last_handshake",
    "seen_datagrams",
    "seen_bytes",
    "dropped_datagrams",
    "dropped_bytes",
    "newest_initiation",
];

/// The counters in the order of their columns in the ledger.
pub const fn to_array(counters: &Counters) -> [u64; COUNT] {
    [
        counters.bytes_up,
        counters.packets_up,
        counters.bytes_down,
        counters.packets_down,
        counters.handshake_bytes_up,
        counters.handshake_bytes_down,
        counters.last_handshake,
        counters.seen_datagrams,
        counters.seen_bytes,
        counters.dropped_datagrams,
        counters.dropped_bytes,
        counters.newest_initiation,
    ]
}

/// The inverse of [`to_array`].
pub const fn from_array(array: [u64; COUNT]) -> Counters {
    Counters {
        bytes_up: array[0],
        packets_up: array[1],
        bytes_down: array[2],
        packets_down: array[3],
        handshake_bytes_up: array[4],
        handshake_bytes_down: array[5],
        last_handshake: array[6],
        seen_datagrams: array[7],
        seen_bytes: array[8],
        dropped_datagrams: array[9],
        dropped_bytes: array[10],
        newest_initiation: array[11],
    }
}

/// The higher of each pair.
pub fn highest(one: &Counters, other: &Counters) -> Counters {
    let (one, other) = (to_array(one), to_array(other));
    from_array(std::array::from_fn(|i| one[i].max(other[i])))
}

/// The sum of each pair, saturating; of the last handshakes, and of the newest initiations, the
/// later one.
pub fn sum(one: &Counters, other: &Counters) -> Counters {
    let last_handshake = one.last_handshake.max(other.last_handshake);
    let newest_initiation = one.newest_initiation.max(other.newest_initiation);
    let (one, other) = (to_array(one), to_array(other));
    let sums = from_array(std::array::from_fn(|i| one[i].saturating_add(other[i])));
    Counters { last_handshake, newest_initiation, ..sums }
}

/// Raises the counters of an account to at least `base`, and leaves everything else of it alone:
/// it knows where the consumer was.
pub fn raise(account: &Account, base: &Counters) {
    let (seen, metered) = (&account.seen, &account.metered);
    metered.bytes_up.fetch_max(base.bytes_up, Relaxed);
    metered.packets_up.fetch_max(base.packets_up, Relaxed);
    metered.bytes_down.fetch_max(base.bytes_down, Relaxed);
    metered.packets_down.fetch_max(base.packets_down, Relaxed);
    metered.handshake_bytes_up.fetch_max(base.handshake_bytes_up, Relaxed);
    metered.handshake_bytes_down.fetch_max(base.handshake_bytes_down, Relaxed);
    metered.last_handshake.fetch_max(base.last_handshake, Relaxed);
    seen.datagrams.fetch_max(base.seen_datagrams, Relaxed);
    seen.bytes.fetch_max(base.seen_bytes, Relaxed);
    seen.dropped_datagrams.fetch_max(base.dropped_datagrams, Relaxed);
    seen.dropped_bytes.fetch_max(base.dropped_bytes, Relaxed);
    account.worker.newest_initiation.fetch_max(base.newest_initiation, Relaxed);
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

    #[test]
    fn arrays_keep_every_counter_in_its_place() {
        let array = std::array::from_fn(|i| i as u64 + 1);
        assert_eq!(to_array(&from_array(array)), array);
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
    fn raising_an_account_keeps_higher_counters_and_whereabouts() {
        let account = Account::default();
        account.metered.bytes_up.store(10, Relaxed);
        account.worker.port.store(4, Relaxed);
        raise(&account, &from_array([5; COUNT]));
        let raised = Counters { bytes_up: 10, ..from_array([5; COUNT]) };
        assert_eq!(account.counters(), raised);
        assert_eq!(account.worker.port.load(Relaxed), 4);
    }
}
