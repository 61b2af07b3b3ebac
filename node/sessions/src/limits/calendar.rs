//! Days and months of a node: in UTC, moved by a fixed offset.

/// A span of time that a quota counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From midnight of this day of the month to that of the next month; in a month without such a
    /// day, of its last.
    Month(u32),
}

const DAY: i64 = 86_400;

impl Period {
    /// When the period that contains `now` began, and when it ends; seconds since 1970. `offset`
    /// is how many seconds the node's midnight is before that of UTC.
    #[must_use]
    pub fn around(self, now: u64, offset: i64) -> (u64, u64) {
        let local = i64::try_from(now).unwrap_or(i64::MAX / 2) + offset;
        let today = local.div_euclid(DAY);
        let (first, next) = match self {
            Self::Day => (today, today + 1),
            Self::Month(reset) => {
                let (year, month) = year_and_month(today);
                let this = reset_day(year, month, reset);
                if today < this {
                    let (year, month) = before(year, month);
                    (reset_day(year, month, reset), this)
                } else {
                    let (year, month) = after(year, month);
                    (this, reset_day(year, month, reset))
                }
            }
        };
        let utc = |day: i64| u64::try_from(day * DAY - offset).unwrap_or(0);
        (utc(first), utc(next))
    }
}

/// The minute of the week, of which the first is Monday's 00:00.
#[must_use]
pub fn minute_of_week(now: u64, offset: i64) -> u32 {
    let local = i64::try_from(now).unwrap_or(i64::MAX / 2) + offset;
    // 1970-01-01 was a Thursday.
    let minute = (local + 3 * DAY).rem_euclid(7 * DAY) / 60;
    u32::try_from(minute).unwrap_or(0)
}

fn before(year: i64, month: i64) -> (i64, i64) {
    if month == 1 { (year - 1, 12) } else { (year, month - 1) }
}

fn after(year: i64, month: i64) -> (i64, i64) {
    if month == 12 { (year + 1, 1) } else { (year, month + 1) }
}

/// The day since 1970 on which a month's period begins.
fn reset_day(year: i64, month: i64, reset: u32) -> i64 {
    let first = first_of(year, month);
    let (next_year, next_month) = after(year, month);
    (first + i64::from(reset.max(1)) - 1).min(first_of(next_year, next_month) - 1)
}

/// Days from 1970-01-01 to the first of a month of the Gregorian calendar. `month` is from 1 to 12.
#[must_use]
pub fn first_of(year: i64, month: i64) -> i64 {
    // Years are counted from March, so that the leap day is the last of its year.
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * from_march + 2) / 5 - 719_468
}

fn year_and_month(day: i64) -> (i64, i64) {
    // Never too late, and at most a year too early.
    let mut year = 1970 + day.div_euclid(366) - 1;
    while first_of(year + 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| first_of(year, *month) <= day);
    (year, month.unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 22:30:00 UTC, a Sunday.
    const NOW: u64 = 1_795_386_600;
    const MIDNIGHT: u64 = 1_795_305_600;

    #[test]
    fn days_and_months_begin_where_the_calendar_says() {
        assert_eq!(Period::Day.around(NOW, 0), (MIDNIGHT, MIDNIGHT + 86_400));
        // In +02:00 it is Monday already.
        let monday = MIDNIGHT + 86_400 - 7200;
        assert_eq!(Period::Day.around(NOW, 7200), (monday, monday + 86_400));
        let november = 1_793_491_200;
        assert_eq!(Period::Month(1).around(NOW, 0), (november, november + 30 * 86_400));
        assert_eq!(Period::Month(22).around(NOW, 0).0, MIDNIGHT);
        let october_23 = MIDNIGHT - 30 * 86_400;
        assert_eq!(Period::Month(23).around(NOW, 0), (october_23, MIDNIGHT + 86_400));
        // November has no 31st: its last day is the 30th.
        assert_eq!(Period::Month(31).around(NOW, 0).1, MIDNIGHT + 8 * 86_400);
    }

    #[test]
    fn february_ends_when_it_does() {
        let day = |text: u64| text / 86_400;
        // 2024-02-15 and 2023-02-15.
        assert_eq!(day(Period::Month(30).around(1_707_955_200, 0).1), 19_782, "2024-02-29");
        assert_eq!(day(Period::Month(30).around(1_676_419_200, 0).1), 19_416, "2023-02-28");
        assert_eq!(Period::Month(1).around(0, 0), (0, 31 * 86_400));
    }

    #[test]
    fn the_week_begins_on_monday() {
        assert_eq!(minute_of_week(NOW, 0), 6 * 1440 + 22 * 60 + 30);
        assert_eq!(minute_of_week(NOW, 2 * 3600), 30);
        assert_eq!(minute_of_week(0, 0), 3 * 1440);
        assert_eq!(minute_of_week(0, -3600), 3 * 1440 - 60);
    }

    /// The date of a day since 1970, counted day by day from 1970.
    fn slowly(days: u64) -> (i64, i64, i64) {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for _ in 0..days {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        (year, month, day)
    }

    proptest::proptest! {
        #[test]
        fn periods_contain_now_begin_on_the_reset_day_and_follow_each_other(
            now in 0u64..5_000_000_000, reset in 1u32..=31, hours in -12i64..=14,
        ) {
            let offset = hours * 3600;
            let now = now + 86_400 * 60;
            for period in [Period::Day, Period::Month(reset)] {
                let (from, to) = period.around(now, offset);
                proptest::prop_assert!(from <= now && now < to);
                proptest::prop_assert_eq!(period.around(to, offset).0, to);
                proptest::prop_assert_eq!(period.around(to - 1, offset), (from, to));
                proptest::prop_assert_eq!((from as i64 + offset).rem_euclid(86_400), 0);
            }
            let (from, to) = Period::Month(reset).around(now, offset);
            let date = |at: u64| slowly(((at as i64 + offset) / 86_400) as u64);
            for at in [from, to] {
                let (.., day) = date(at);
                let (.., next) = date(at + 86_400);
                // That day, or the month's last.
                proptest::prop_assert!(day == i64::from(reset) || (next == 1 && day < i64::from(reset)));
            }
            let months = |at: u64| { let (year, month, _) = date(at); year * 12 + month };
            proptest::prop_assert_eq!(months(to), months(from) + 1);
        }
    }
}
