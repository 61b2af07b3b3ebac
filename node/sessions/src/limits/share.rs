//! Who gets how much of a rate that is not enough for all: max-min fairness, as water fills a
//! vessel. Whoever wants less than an even share gets what it wants; the rest is shared evenly.

/// The most that each may have, so that all together have `rate`; `wants` is what each would take
/// (`u64::MAX` for any amount), in any order, and is sorted. Where all have what they want, whoever
/// wants most may have what is left besides. Never 0, which would be no limit.
#[must_use]
pub fn level(rate: u64, wants: &mut [u64]) -> u64 {
    wants.sort_unstable();
    let mut left = rate;
    let count = wants.len();
    for (index, want) in wants.iter().enumerate() {
        let share = left / (count - index) as u64;
        if *want > share && index + 1 < count {
            return share.max(1);
        }
        if index + 1 < count {
            left -= want;
        }
    }
    left.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modest_have_what_they_want_and_the_rest_share() {
        assert_eq!(level(100, &mut []), 100);
        assert_eq!(level(100, &mut [7]), 100);
        assert_eq!(level(100, &mut [u64::MAX]), 100);
        assert_eq!(level(100, &mut [u64::MAX; 4]), 25);
        assert_eq!(level(100, &mut [u64::MAX, 10, u64::MAX, 10]), 40);
        assert_eq!(level(100, &mut [10, 20]), 90, "the larger may have what is left");
        assert_eq!(level(3, &mut [u64::MAX; 10]), 1, "never no limit");
    }

    proptest::proptest! {
        /// Against water that rises a unit at a time.
        #[test]
        fn it_is_where_rising_water_stops(
            rate in 1u64..3000,
            mut wants in proptest::collection::vec(0u64..800, 1..20),
        ) {
            let given = |level: u64| wants.iter().map(|want| (*want).min(level)).sum::<u64>();
            let all = wants.iter().sum::<u64>();
            let mut water = 0;
            while water < rate && given(water + 1) <= rate {
                water += 1;
            }
            let count = wants.len() as u64;
            let most = wants.iter().copied().max().unwrap_or(0);
            let level = level(rate, &mut wants);
            if all <= rate {
                proptest::prop_assert_eq!(level, (rate - (all - most)).max(1));
            } else {
                let passed: u64 = wants.iter().map(|want| (*want).min(level)).sum();
                proptest::prop_assert_eq!(level, water.max(1));
                proptest::prop_assert!(passed + count > rate, "{} of {}", passed, rate);
            }
        }
    }
}
