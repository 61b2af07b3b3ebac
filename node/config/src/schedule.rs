//! The weekly schedule: times at which other limits apply, such as `Mon-Fri 08:00-18:00
//! down=100mbit`.

use std::{fmt, str::FromStr};

use super::amounts::BitRate;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MINUTES_PER_DAY: u32 = 24 * 60;

/// The rule of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// No session has traffic.
    Closed,
    /// The node has these rates; `None` leaves a direction unchanged.
    Rates {
        /// From all consumers together.
        up: Option<BitRate>,
        /// To all consumers together.
        down: Option<BitRate>,
    },
}

/// A time of the week, and the rule that applies then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days on which it begins, from Monday.
    days: [bool; 7],
    /// Minutes since midnight.
    from: u32,
    /// Minutes since midnight. If it is not after `from`, the window ends on the next day.
    to: u32,
    /// The rule.
    pub rule: Rule,
}

impl Window {
    /// Whether the window includes this minute of the week. Minute 0 is Monday, 00:00.
    #[must_use]
    pub fn holds(&self, minute: u32) -> bool {
        let day = (minute / MINUTES_PER_DAY % 7) as usize;
        let time = minute % MINUTES_PER_DAY;
        if self.from < self.to {
            return self.days[day] && (self.from..self.to).contains(&time);
        }
        // It begins today, or began yesterday.
        (self.days[day] && time >= self.from) || (self.days[(day + 6) % 7] && time < self.to)
    }
}

/// The rule for this minute of the week: that of the first window that includes it.
#[must_use]
pub fn rule_at(windows: &[Window], minute: u32) -> Option<Rule> {
    windows.iter().find(|window| window.holds(minute)).map(|window| window.rule)
}

/// Why a text is not a valid window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}. Write {EXAMPLES}", self.problem())]
pub struct NotAWindow {
    text: String,
    why: String,
}

const EXAMPLES: &str = "for example \"Mon-Fri 08:00-18:00 up=50mbit down=100mbit\", \"daily \
    22:00-06:00 down=off\" or \"Sat,Sun 00:00-24:00 closed\"";

impl NotAWindow {
    /// The reason, without the fix.
    pub(crate) fn problem(&self) -> String {
        format!("{:?} is not a schedule entry: {}", self.text, self.why)
    }

    /// The fix.
    #[expect(clippy::unused_self, reason = "the errors of all values have the same two parts")]
    pub(crate) fn fix(&self) -> String {
        format!("write {EXAMPLES}")
    }
}

impl FromStr for Window {
    type Err = NotAWindow;

    fn from_str(text: &str) -> Result<Self, NotAWindow> {
        parse(text).map_err(|why| NotAWindow { text: text.to_owned(), why })
    }
}

fn parse(text: &str) -> Result<Window, String> {
    let mut words = text.split_ascii_whitespace();
    let days = days(words.next().ok_or("it has no days")?)?;
    let span = words.next().ok_or("it has no hours")?;
    let (from, to) = span.split_once('-').ok_or("its hours are not FROM-TO")?;
    let (from, to) = (minute(from)?, minute(to)?);
    if from == to || from == MINUTES_PER_DAY {
        return Err("its hours are empty".into());
    }
    let (mut closed, mut up, mut down) = (false, None, None);
    for word in words {
        let slot = match word.split_once('=') {
            None if word == "closed" => {
                closed = true;
                continue;
            }
            Some(("up", rate)) => (&mut up, rate),
            Some(("down", rate)) => (&mut down, rate),
            _ => return Err(format!("{word:?} is neither \"closed\" nor up=RATE nor down=RATE")),
        };
        let rate = slot.1.parse::<BitRate>().map_err(|error| error.to_string())?;
        if slot.0.replace(rate).is_some() {
            return Err(format!("{word:?} contradicts an earlier word"));
        }
    }
    let rule = match (closed, up, down) {
        (true, None, None) => Rule::Closed,
        (true, ..) => return Err("it has both \"closed\" and a rate".into()),
        (false, None, None) => return Err("it has neither \"closed\" nor a rate".into()),
        (false, up, down) => Rule::Rates { up, down },
    };
    Ok(Window { days, from, to, rule })
}

fn days(text: &str) -> Result<[bool; 7], String> {
    if text == "daily" {
        return Ok([true; 7]);
    }
    let day = |name: &str| {
        let same = |known: &&str| known.eq_ignore_ascii_case(name);
        DAYS.iter().position(same).ok_or(format!("{name:?} is not a day such as Mon"))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // Fri-Mon goes over the end of the week.
        let count = (last + 7 - first) % 7;
        (0..=count).for_each(|next| days[(first + next) % 7] = true);
    }
    Ok(days)
}

fn minute(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not a time such as 08:00");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let two = |digits: &str| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !two(hour) || !two(minute) {
        return Err(wrong());
    }
    let (hour, minute): (u32, u32) =
        (hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?);
    let total = hour * 60 + minute;
    if minute < 60 && total <= MINUTES_PER_DAY { Ok(total) } else { Err(wrong()) }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days == [true; 7] {
            f.write_str("daily")?;
        } else {
            let named = DAYS.iter().zip(self.days).filter(|(_, is)| *is).map(|(name, _)| *name);
            f.write_str(&named.collect::<Vec<_>>().join(","))?;
        }
        let time = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, " {}-{}", time(self.from), time(self.to))?;
        match self.rule {
            Rule::Closed => f.write_str(" closed"),
            Rule::Rates { up, down } => {
                let rate = |rate: BitRate| rate.to_string().replace([' '], "");
                up.map_or(Ok(()), |up| write!(f, " up={}", rate(up)))?;
                down.map_or(Ok(()), |down| write!(f, " down={}", rate(down)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u32 = 60;

    fn window(text: &str) -> Window {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_window_holds_at_its_days_and_hours() {
        let office = window("Mon-Fri 08:00-18:00 up=50mbit down=100mbit");
        let day = MINUTES_PER_DAY;
        for (minute, holds) in [
            (8 * HOUR - 1, false),
            (8 * HOUR, true),
            (18 * HOUR - 1, true),
            (18 * HOUR, false),
            (4 * day + 12 * HOUR, true),
            (5 * day + 12 * HOUR, false),
        ] {
            assert_eq!(office.holds(minute), holds, "{minute}");
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = window("Sun 22:00-06:00 closed");
        let sunday = 6 * MINUTES_PER_DAY;
        assert!(night.holds(sunday + 23 * HOUR));
        assert!(night.holds(5 * HOUR), "Monday morning");
        assert!(!night.holds(sunday + 5 * HOUR), "Sunday morning");
        assert!(!night.holds(23 * HOUR), "Monday evening");
    }

    #[test]
    fn of_several_the_first_counts() {
        let windows =
            [window("Sat,Sun 00:00-24:00 closed"), window("daily 00:00-24:00 down=1mbit")];
        let rate = Rule::Rates { up: None, down: Some(BitRate::new(1_000_000)) };
        assert_eq!(rule_at(&windows, 0), Some(rate));
        assert_eq!(rule_at(&windows, 5 * MINUTES_PER_DAY), Some(Rule::Closed));
        assert_eq!(rule_at(&windows[..1], 0), None);
    }

    #[test]
    fn what_is_unclear_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "has no days"),
            ("Mon", "no hours"),
            ("Moon 08:00-09:00 closed", "not a day"),
            ("Mon 8:00-09:00 closed", "not a time"),
            ("Mon 08:00-24:01 closed", "not a time"),
            ("Mon 08:60-09:00 closed", "not a time"),
            ("Mon 08:00-08:00 closed", "hours are empty"),
            ("Mon 08:00-09:00", "neither"),
            ("Mon 08:00-09:00 open", "neither"),
            ("Mon 08:00-09:00 closed up=1mbit", "both \"closed\" and a rate"),
            ("Mon 08:00-09:00 up=1mbit up=2mbit", "contradicts"),
            ("Mon 08:00-09:00 up=much", "not a rate"),
        ] {
            let error = text.parse::<Window>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest::proptest! {
        /// Against a slow model: all minutes of the week, marked one by one.
        #[test]
        fn it_holds_where_a_calendar_has_marks(
            days: [bool; 7], from in 0u32..1440, to in 0u32..=1440,
        ) {
            proptest::prop_assume!(from != to && days.contains(&true));
            let window = Window { days, from, to, rule: Rule::Closed };
            let mut marks = vec![false; 7 * 1440];
            for day in (0..7).filter(|day| days[*day as usize]) {
                let length = if from < to { to - from } else { to + 1440 - from };
                for minute in 0..length {
                    marks[((day * 1440 + from + minute) % (7 * 1440)) as usize] = true;
                }
            }
            for (minute, mark) in marks.iter().enumerate() {
                proptest::prop_assert_eq!(window.holds(minute as u32), *mark, "{}", minute);
            }
            proptest::prop_assert_eq!(window.to_string().parse(), Ok(window));
        }
    }
}
