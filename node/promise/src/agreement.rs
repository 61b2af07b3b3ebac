//! How a session pays as it goes, and how far that goes before it must pay again.
//!
//! Bytes and time are two budgets, each with an end of its own that the operator sets. Neither is
//! counted in money: else the price that a consumer offers would say how much it may owe, and what
//! is left of the one could be spent on the other.

use alloy_primitives::{Address, U256};

use super::{Price, price::Use};

/// How a session pays as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Random; in every invoice and message.
    pub id: U256,
    /// Whose promises pay.
    pub consumer: Address,
    /// What is due.
    pub price: Price,
    /// What may be used beyond what is paid, once anything was paid at all: the operator's terms,
    /// whatever the price.
    pub unpaid: Use,
    /// What was paid, in wei.
    pub paid: U256,
    /// The use that this was the invoice of.
    pub paid_for: Use,
}

impl Agreement {
    /// What so much use has cost.
    #[must_use]
    pub fn due(&self, used: Use) -> U256 {
        self.price.due(used)
    }

    /// The bytes that are paid for, after so many seconds; `u64::MAX` where they cost nothing.
    #[must_use]
    pub fn paid_bytes(&self, seconds: u64) -> u64 {
        match (self.paid.is_zero(), self.price.per_gib) {
            (true, _) => 0,
            (false, 0) => u64::MAX,
            // Less than a wei's worth is never asked for.
            _ => self.paid_for.bytes.max(self.price.affordable(self.paid, seconds)),
        }
    }

    /// The bytes that the session may have had, after so many seconds, until it must pay.
    #[must_use]
    pub fn byte_limit(&self, seconds: u64) -> u64 {
        if self.paid.is_zero() {
            return 0;
        }
        self.paid_bytes(seconds).saturating_add(self.unpaid.bytes)
    }

    /// The seconds that the session may have had until it must pay; `None` before it has paid at all,
    /// and where time costs nothing.
    #[must_use]
    pub fn second_limit(&self) -> Option<u64> {
        let limit = self.paid_for.seconds.saturating_add(self.unpaid.seconds);
        (!self.paid.is_zero() && self.price.per_hour != 0).then_some(limit)
    }

    /// Whether the session has had all the time that it may have until it must pay.
    #[must_use]
    pub fn is_time_over(&self, used: Use) -> bool {
        self.second_limit().is_some_and(|limit| used.seconds >= limit)
            // As long as nothing is due, there is no invoice to pay.
            && self.due(used) > self.paid
    }

    /// What `paid` wei are for, where only the seconds of use are known: agreements of a weir that
    /// did not write it down.
    #[must_use]
    pub fn guess_paid_for(price: Price, paid: U256, seconds: u64) -> Use {
        if paid.is_zero() {
            return Use::default();
        }
        let seconds = match price.due(Use { bytes: 0, seconds }) <= paid {
            true => seconds,
            false => 0,
        };
        let bytes = if price.per_gib == 0 { 0 } else { price.affordable(paid, seconds) };
        Use { bytes, seconds }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const UNPAID: Use = Use { bytes: 64 * MIB, seconds: 300 };

    fn agreement(price: Price, paid: u128, paid_for: Use) -> Agreement {
        let paid = U256::from(paid);
        Agreement { id: U256::ZERO, consumer: Address::ZERO, price, unpaid: UNPAID, paid, paid_for }
    }

    #[test]
    fn nothing_may_be_used_before_anything_was_paid() {
        let new = agreement(Price { per_gib: 1, per_hour: 1 }, 0, Use::default());
        assert_eq!(new.byte_limit(0), 0);
        assert_eq!(new.paid_bytes(0), 0);
    }

    #[test]
    fn an_absurd_price_of_one_widens_neither_budget() {
        for per_hour in [0, 1, 10u128.pow(17), 10u128.pow(33), u128::MAX] {
            let price = Price { per_gib: 10u128.pow(17), per_hour };
            let paid = agreement(price, 1, Use::default());
            for seconds in [0, 299, 300, 1 << 40] {
                assert!(paid.byte_limit(seconds) <= UNPAID.bytes + 10, "{per_hour} {seconds}");
            }
            let over = |seconds| paid.is_time_over(Use { bytes: 0, seconds });
            assert!(!over(299), "{per_hour}");
            assert_eq!(over(300), per_hour > 12, "{per_hour}: nothing is due");
        }
    }

    #[test]
    fn what_costs_nothing_has_no_end() {
        let by_time = agreement(Price { per_gib: 0, per_hour: 1 << 40 }, 1, Use::default());
        assert_eq!(by_time.byte_limit(7), u64::MAX);
        let by_bytes = agreement(Price { per_gib: 1 << 40, per_hour: 0 }, 1, Use::default());
        assert!(!by_bytes.is_time_over(Use { bytes: 0, seconds: u64::MAX }));
    }

    proptest! {
        /// Whoever is stopped can pay, and whoever has paid goes on.
        #[test]
        fn who_is_stopped_owes_something_and_who_pays_it_goes_on(
            per_gib in 0u128..1 << 100,
            per_hour in 0u128..1 << 100,
            had in (0u64..1 << 40, 0u64..1 << 30),
            more in (0u64..1 << 30, 0u64..1 << 12),
        ) {
            let price = Price { per_gib, per_hour };
            prop_assume!(price != Price::default());
            let paid_for = Use { bytes: had.0, seconds: had.1 };
            let paid = price.due(paid_for).max(U256::from(1));
            let before = Agreement { paid, ..agreement(price, 1, paid_for) };
            let used = Use { bytes: had.0 + more.0, seconds: had.1 + more.1 };
            let stopped = |a: &Agreement| {
                used.bytes >= a.byte_limit(used.seconds) || a.is_time_over(used)
            };
            if stopped(&before) {
                prop_assert!(more.0 >= UNPAID.bytes || more.1 >= UNPAID.seconds);
                prop_assert!(price.due(used) > paid, "{} {}", price.due(used), paid);
            }
            let after = Agreement { paid: price.due(used).max(paid), paid_for: used, ..before };
            prop_assert!(!stopped(&after));
        }
    }
}
