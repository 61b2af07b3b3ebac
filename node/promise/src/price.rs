//! What use costs, in whole wei.

use alloy_primitives::U256;

/// The bytes of the unit in which volume is priced.
const GIB: u64 = 1 << 30;
/// The seconds of the unit in which time is priced.
const HOUR: u64 = 3600;

/// What a GiB and an hour cost, in wei.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Per GiB, up and down together.
    pub per_gib: u128,
    /// Per hour served.
    pub per_hour: u128,
}

/// What a session has used, or may use: two amounts that are never added up. No price makes one of
/// them stand for the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Billed bytes, up and down together.
    pub bytes: u64,
    /// Seconds served.
    pub seconds: u64,
}

/// The consumer's price is below the operator's floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the price {} per GiB and {} per hour is below this node's {} and {} (in wei): offer at least \
     that", offered.per_gib, offered.per_hour, floor.per_gib, floor.per_hour
)]
pub struct TooCheap {
    /// What was offered.
    pub offered: Price,
    /// The least that is taken.
    pub floor: Price,
}

impl Price {
    /// What so much use costs. Each part is cut to whole wei by itself, as consumers do it.
    #[must_use]
    pub fn due(&self, used: Use) -> U256 {
        // 128 and 64 bits make 192 at most, and so do their sum's parts: nothing can overflow.
        let time = U256::from(self.per_hour) * U256::from(used.seconds) / U256::from(HOUR);
        time + U256::from(self.per_gib) * U256::from(used.bytes) / U256::from(GIB)
    }

    /// The most bytes that `paid` wei cover after so many seconds: `due` of one more is more.
    #[must_use]
    pub fn affordable(&self, paid: U256, seconds: u64) -> u64 {
        let Some(left) = paid.checked_sub(self.due(Use { bytes: 0, seconds })) else { return 0 };
        if self.per_gib == 0 || left >= U256::from(1) << 200 {
            return u64::MAX;
        }
        let beyond = (left + U256::from(1)) * U256::from(GIB) - U256::from(1);
        (beyond / U256::from(self.per_gib)).saturating_to()
    }

    /// Holds a consumer's price against the operator's floor: nothing is free that has a price.
    ///
    /// # Errors
    ///
    /// When either part is below.
    pub fn not_below(self, floor: Self) -> Result<Self, TooCheap> {
        if self.per_gib < floor.per_gib || self.per_hour < floor.per_hour {
            return Err(TooCheap { offered: self, floor });
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRICE: Price = Price { per_gib: 7_000_000, per_hour: 3_000_000 };

    const fn used(bytes: u64, seconds: u64) -> Use {
        Use { bytes, seconds }
    }

    #[test]
    fn an_hour_and_a_gib_cost_what_consumers_expect() {
        assert_eq!(PRICE.due(used(GIB / 2 + GIB / 2, HOUR)), U256::from(10_000_000));
        assert_eq!(PRICE.due(used(0, HOUR)), U256::from(3_000_000));
        assert_eq!(Price::default().due(used(GIB, HOUR)), U256::ZERO);
    }

    #[test]
    fn each_part_is_cut_by_itself() {
        let price = Price { per_gib: 1, per_hour: 1 };
        assert_eq!(price.due(used(GIB - 1, HOUR - 1)), U256::ZERO);
        assert_eq!(price.due(used(GIB, HOUR - 1)), U256::from(1));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let dear = Price { per_gib: u128::MAX, per_hour: u128::MAX };
        assert!(dear.due(used(u64::MAX, u64::MAX)) > U256::from(u128::MAX));
        assert_eq!(dear.affordable(U256::MAX, u64::MAX), u64::MAX);
        assert_eq!(dear.affordable(U256::ZERO, 1), 0);
    }

    #[test]
    fn free_and_half_free_prices_are_below_a_floor() {
        for offered in [
            Price::default(),
            Price { per_hour: 0, ..PRICE },
            Price { per_gib: PRICE.per_gib - 1, ..PRICE },
        ] {
            assert_eq!(offered.not_below(PRICE), Err(TooCheap { offered, floor: PRICE }));
        }
        assert_eq!(PRICE.not_below(PRICE), Ok(PRICE));
    }

    proptest! {
        #[test]
        fn what_is_affordable_is_paid_for_and_one_byte_more_is_not(
            per_gib in 1u128..1 << 80,
            per_hour in 0u128..1 << 80,
            paid in 0u128..1 << 90,
            seconds in 0u64..1 << 20,
        ) {
            let price = Price { per_gib, per_hour };
            let paid = U256::from(paid);
            prop_assume!(price.due(used(0, seconds)) <= paid);
            let bytes = price.affordable(paid, seconds);
            prop_assert!(price.due(used(bytes, seconds)) <= paid);
            if let Some(more) = bytes.checked_add(1) {
                prop_assert!(price.due(used(more, seconds)) > paid);
            }
        }

        #[test]
        fn more_use_never_costs_less(
            per_gib: u128, per_hour: u128, bytes: u64, more: u64, seconds: u64,
        ) {
            let price = Price { per_gib, per_hour };
            let (low, high) = (bytes.min(more), bytes.max(more));
            prop_assert!(price.due(used(low, seconds)) <= price.due(used(high, seconds)));
        }
    }
}
