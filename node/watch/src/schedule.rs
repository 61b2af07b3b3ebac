//! Which exit is next, and when: at random, so that an exit cannot tell a watcher by its hours. Pure.

/// The least pause between two measurements, in seconds.
pub const MIN_PAUSE: u64 = 5;

/// The pause before the next measurement, in seconds: exponentially distributed, so that the time since
/// the last one says nothing about the next. On average each of `exits` is measured once per `interval`
/// seconds. `random` is any number.
#[must_use]
pub fn pause(exits: usize, interval: u64, random: u64) -> u64 {
    let mean = interval as f64 / exits.max(1) as f64;
    // Never 0, whose logarithm is infinite.
    let uniform = (random >> 11) as f64 + 1.0;
    let uniform = uniform / (1_u64 << 53) as f64;
    let pause = -uniform.ln() * mean;
    (pause as u64).clamp(MIN_PAUSE, interval.max(MIN_PAUSE))
}

/// One of the exits that were not measured within half an `interval`, by a random number. The argument
/// has when each was measured last; 0 is never.
#[must_use]
pub fn pick(last: &[u64], interval: u64, now: u64, random: u64) -> Option<usize> {
    let due = |at: &u64| now.saturating_sub(*at) >= interval / 2;
    let all: Vec<usize> =
        last.iter().enumerate().filter(|(_, at)| due(at)).map(|(number, _)| number).collect();
    let count = u64::try_from(all.len()).ok().filter(|count| *count > 0)?;
    all.get(usize::try_from(random % count).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const NOW: u64 = 1_800_000_000;

    /// Numbers that look random.
    fn numbers() -> impl Iterator<Item = u64> {
        std::iter::successors(Some(0x9e37_79b9_7f4a_7c15_u64), |number| {
            Some(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040))
        })
    }

    #[test]
    fn pauses_are_random_and_each_exit_has_its_turn_once_an_interval() {
        let all: Vec<u64> = numbers().take(2000).map(|number| pause(24, DAY, number)).collect();
        let mean = all.iter().sum::<u64>() / 2000;
        assert!((3000..4200).contains(&mean), "{mean}");
        let short = all.iter().filter(|pause| **pause < 900).count();
        assert!((200..800).contains(&short), "{short} are shorter than a quarter of the mean");
        assert_eq!(pause(0, DAY, 0), DAY, "without exits, not at once again");
        assert_eq!(pause(usize::MAX, DAY, u64::MAX), MIN_PAUSE);
        assert_eq!(pause(1, 0, 7), MIN_PAUSE);
    }

    #[test]
    fn only_exits_that_were_not_measured_lately_are_picked() {
        let last = [NOW - 10, 0, NOW - DAY, NOW - DAY / 2 + 1];
        let picked: std::collections::BTreeSet<_> =
            numbers().take(100).filter_map(|number| pick(&last, DAY, NOW, number >> 7)).collect();
        assert_eq!(picked.into_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(pick(&[NOW], DAY, NOW, 3), None);
        assert_eq!(pick(&[], DAY, NOW, 3), None);
    }
}
